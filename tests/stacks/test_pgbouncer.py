"""A meter behind the real PgBouncer: by sessions it counts as ever, by transactions it refuses."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest

from cli.db import upgrade_schema
from cli.process import CommandError
from meter.domain.errors import Refused
from meter.runtime.sessions import refuse_shared_sessions
from tests.postgres import Cluster, running_cluster
from tests.running_meter import running_meter_on
from tests.stacks.pooler import page_settings, pooling
from tests.wire.session import Session, event, opening, rows
from tests.wire.talk import talking, wait_until
from tokenworks.meter.v1 import usage_pb2

pytestmark = pytest.mark.stacks
INPUT = usage_pb2.TOKEN_CLASS_INPUT
# More than psycopg needs to prepare a statement.
BATCHES = 20
LOOKS = 5


@pytest.fixture(scope="module")
def own_cluster(pg_bin: Path | None) -> Iterator[Cluster]:
    """A Postgres that may be stopped without taking it from others."""
    with running_cluster(bin_directory=pg_bin) as cluster:
        cluster.migrate_template()
        yield cluster


def test_sessions__count_and_outlive_a_restart(own_cluster: Cluster, tmp_path: Path) -> None:
    """By sessions all is counted once, also over a restart of the Postgres behind the pooler."""
    with own_cluster.database() as url, pooling(url, mode="session") as through:
        with running_meter_on(through, folder=tmp_path) as meter:
            session = Session(meter)
            session.create_account("acme")
            report(session, up_to=BATCHES)
            own_cluster.stop()
            own_cluster.start()
            report(session, up_to=2 * BATCHES)
            assert session.counted() == {("acme", "high", INPUT): 2 * BATCHES}
            assert meter.stop() == 0
        # What the meter said to its sessions is gone with it.
        with psycopg.connect(through) as connection:
            assert connection.execute("SHOW role").fetchone() == ("none",)


@pytest.mark.parametrize("in_turn", ["0", "1"])
def test_transactions__are_refused(own_cluster: Cluster, tmp_path: Path, in_turn: str) -> None:
    """By transactions a meter does not start, and says what to set, however sessions are given."""
    with (
        own_cluster.database() as url,
        pooling(url, mode=f"transaction\nserver_round_robin = {in_turn}") as through,
    ):
        # It has two sessions to give out; whoever asks alone has always the same one.
        with psycopg.connect(through) as one, psycopg.connect(through) as other:
            assert pid_of(one) != pid_of(other)
        for _ in range(LOOKS):
            with pytest.raises(Refused, match="pool_mode = session"):
                refuse_shared_sessions(through)
        with (
            pytest.raises(AssertionError, match="set pool_mode = session for Tokenworks"),
            running_meter_on(through, folder=tmp_path),
        ):
            pass


def test_transactions__are_refused_to_who_migrates(own_cluster: Cluster) -> None:
    """A migration, whose lock is its session's, does not begin behind such a pooler."""
    with (
        own_cluster.database(template="template0") as url,
        pooling(url, mode="transaction") as through,
    ):
        with pytest.raises(CommandError, match="set pool_mode = session for Tokenworks"):
            upgrade_schema(through)
        assert not is_started(url)


def test_sessions__are_each_their_own(own_cluster: Cluster) -> None:
    """Without a pooler, and by sessions, nothing is refused, however often it is looked."""
    with own_cluster.database() as url, pooling(url, mode="session") as through:
        for _ in range(LOOKS):
            refuse_shared_sessions(url)
            refuse_shared_sessions(through)


def test_page__sets_what_is_tried() -> None:
    """The page sets sessions, and resets what the meter said to them."""
    settings = page_settings()
    assert settings["pool_mode"] == "session"
    assert settings["server_reset_query"] == "DISCARD ALL"


def pid_of(connection: psycopg.Connection[Any]) -> int:
    """Return the process of the session that a transaction has, which stays open."""
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None
    return int(row[0])


def is_started(url: str) -> bool:
    """Tell whether a migration was applied to a database."""
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT to_regclass('alembic_version')").fetchone()
    return found != (None,)


def report(session: Session, *, up_to: int) -> None:
    """Report batches as a producer does: who hears that nothing was recorded sends again."""

    def is_reported() -> bool:
        try:
            with talking(session) as talk:
                talk.say(opening(first_sequence=1))
                for number in range(talk.hear().opened.next_sequence, up_to + 1):
                    talk.say(rows(number, event(tokens={INPUT: 1})))
                    assert talk.hear().ack.sequence == number
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return False
        return True

    wait_until(is_reported)
