"""Two servers on one database: each with a shard of its own, and either may be killed."""

from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.running_meter import RunningMeter, running_meter_on
from tests.wire.session import Session, event
from tests.wire.talk import read_metric, wait_until
from tokenworks.meter.v1 import outcome_pb2, usage_pb2

INPUT = usage_pb2.TOKEN_CLASS_INPUT
RECORDED = [outcome_pb2.OUTCOME_RECORDED]


@pytest.fixture
def session(running_meter: RunningMeter) -> Session:
    """A session on a meter with the account acme."""
    session = Session(running_meter)
    session.create_account("acme")
    return session


def ask(database_url: str, question: str) -> list[Any]:
    """Return the first column of a question's rows."""
    with psycopg.connect(database_url) as connection:
        return [row[0] for row in connection.execute(question.encode()).fetchall()]


def test_replica__killed_before_its_journal_is_counted(session: Session, tmp_path: Path) -> None:
    """Whoever lives fences the one who was killed, counts what it left, and says so."""
    folder = tmp_path / "second"
    folder.mkdir()
    meter = session.meter
    url = meter.database_url
    assert session.record(event(tokens={INPUT: 1})) == RECORDED
    with running_meter_on(url, folder=folder) as second:
        assert ask(url, "SELECT shard FROM shards WHERE owner <> '' ORDER BY 1") == [0, 1]
        wait_until(lambda: read_metric(meter, "tokenworks_shard_leases") == 2)
        with psycopg.connect(url) as holder:
            holder.execute("SELECT 1 FROM counting WHERE shard = 1 FOR UPDATE")
            assert Session(second).record(event(tokens={INPUT: 10})) == RECORDED
            second.kill()
        assert session.counted() == {("acme", "high", INPUT): 11}
        wait_until(lambda: read_metric(meter, "tokenworks_lease_takeovers_total") == 1)
        assert read_metric(meter, "tokenworks_shard_leases") == 1
        assert ask(url, "SELECT shard FROM shards WHERE owner = ''") == [1]


def test_replica__stopped_in_order(session: Session, tmp_path: Path) -> None:
    """Who ends in good order gives its shard back at once, with nothing uncounted in it."""
    folder = tmp_path / "second"
    folder.mkdir()
    url = session.meter.database_url
    with running_meter_on(url, folder=folder) as second:
        assert Session(second).record(event(tokens={INPUT: 10})) == RECORDED
        assert second.stop() == 0
        assert ask(url, "SELECT shard FROM shards WHERE lease_until <= clock_timestamp()") == [1]
        uncounted = "SELECT shard FROM shards s JOIN counting c USING (shard)"
        assert ask(url, uncounted + " WHERE c.position < s.position") == []
        second.start()
        assert ask(url, "SELECT epoch FROM shards ORDER BY shard") == [1, 2]
