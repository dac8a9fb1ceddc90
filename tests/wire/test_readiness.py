"""When a server asks for no more calls, and that those it had are not lost."""

from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

import grpc
import psycopg
import pytest

from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on
from tests.wire.session import Session, event, opening, reason_of, rows
from tests.wire.talk import (
    commits_held,
    counting_held,
    read_http,
    read_metric,
    record_later,
    wait_until,
    waiting_count,
)
from tokenworks.meter.v1 import usage_pb2

INPUT = usage_pb2.TOKEN_CLASS_INPUT
BATCHES = 400
ACKED_BEFORE_STOP = 40
READY = (200, "OK\n")
OTHER_SHARD = """
INSERT INTO shards SELECT (jsonb_populate_record(s, '{"shard": 9}')).* FROM shards s LIMIT 1;
INSERT INTO counting SELECT (jsonb_populate_record(c, '{"shard": 9, "position": 0}')).*
  FROM counting c LIMIT 1;
INSERT INTO journal SELECT (jsonb_populate_record(j, jsonb_build_object(
    'shard', 9, 'position', 1, 'commit_time', j.commit_time - interval '90 s'))).*
  FROM journal j LIMIT 1
"""


@pytest.fixture(scope="module")
def meter(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMeter]:
    """A meter that the tests leave running, with an account for each."""
    folder = tmp_path_factory.mktemp("readiness")
    with cluster.database() as url, running_meter_on(url, folder=folder) as running:
        for account in ("late", "kept", "moved"):
            Session(running).create_account(account)
        yield running


def test_readyz__while_the_schema_is_behind(meter: RunningMeter) -> None:
    """A database that lost a migration, as one restored does, gets no calls until it has it."""
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    with psycopg.connect(meter.database_url, autocommit=True) as connection:
        (newest,) = connection.execute("SELECT version_num FROM alembic_version").fetchone() or ()
        connection.execute("UPDATE alembic_version SET version_num = '0008_pre_periods'")
        # As whoever restores it does.
        connection.execute(f"{others} AND datname = current_database()")
        wait_until(lambda: read_http(meter, "/readyz")[0] == 503)
        assert "schema: this version needs 0009_pre_leases, " in read_http(meter, "/readyz")[1]
        assert read_http(meter, "/healthz") == READY
        connection.execute("UPDATE alembic_version SET version_num = %s", [newest])
        wait_until(lambda: read_http(meter, "/readyz") == READY)


def test_readyz__while_counting_is_behind(meter: RunningMeter) -> None:
    """What a server has not counted for a minute sends its producers elsewhere, until it has."""
    with counting_held(meter.database_url):
        Session(meter).record(event("late", tokens={INPUT: 7}))
        with psycopg.connect(meter.database_url) as connection:
            # Another server's shard, of which the same event lies uncounted for longer.
            connection.execute(OTHER_SHARD)
        wait_until(lambda: read_metric(meter, "tokenworks_counting_behind_seconds") > 60)
        assert read_http(meter, "/readyz") == READY
        with psycopg.connect(meter.database_url) as connection:
            for table in ("journal", "counting", "shards"):
                connection.execute(f"DELETE FROM {table} WHERE shard = 9")
            connection.execute("UPDATE journal SET commit_time = commit_time - interval '65 s'")
        wait_until(lambda: read_http(meter, "/readyz")[0] == 503)
        assert "counting: 6" in read_http(meter, "/readyz")[1]
    wait_until(lambda: read_http(meter, "/readyz") == READY)
    assert Session(meter).counted()["late", "high", INPUT] == 7


def test_readyz__while_it_stops(meter: RunningMeter) -> None:
    """Who stops says so first, while what was taken is still being answered."""
    session = Session(meter)
    with commits_held(meter.database_url):
        call = record_later(session, event("kept"))
        wait_until(lambda: waiting_count(meter.database_url))
        stopping = Thread(target=meter.stop)
        stopping.start()
        wait_until(lambda: read_http(meter, "/readyz")[0] == 503)
        assert "stopping: " in read_http(meter, "/readyz")[1]
        assert not call.done() or call.exception() is not None
    stopping.join()
    meter.start()


@pytest.mark.stacks
def test_stop__of_one_of_two_moves_its_streams(meter: RunningMeter, tmp_path: Path) -> None:
    """Each batch that was acked is on disk, each other one goes to the other server, once."""
    folder = tmp_path / "second"
    folder.mkdir()
    url = meter.database_url
    with running_meter_on(url, folder=folder, settings={"shard": "1"}) as other:
        said: SimpleQueue[Any] = SimpleQueue()
        said.put(opening())
        acked, heard = 0, Session(meter).stream(iter(said.get, None))
        for sequence in range(1, BATCHES + 1):
            said.put(rows(sequence, event("moved", tokens={INPUT: 1})))
        stopping = Thread(target=meter.stop)
        with pytest.raises(grpc.RpcError) as ended:
            for answer in heard:
                acked = max(acked, answer.ack.durable_sequence)
                if acked >= ACKED_BEFORE_STOP and not stopping.ident:
                    stopping.start()
        assert reason_of(ended.value)[1] == "SHUTTING_DOWN"
        said.put(None)
        stopping.join()
        second = Session(other)
        (opened,) = second.exchange(opening())
        # Its answer is read from the database: what it asks for next is what was not recorded.
        following = opened.opened.next_sequence
        assert ACKED_BEFORE_STOP <= acked < following <= BATCHES
        rest = range(following, BATCHES + 1)
        second.exchange(opening(), *(rows(it, event("moved", tokens={INPUT: 1})) for it in rest))
        assert second.counted()["moved", "high", INPUT] == BATCHES
    meter.start()
