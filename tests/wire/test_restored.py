"""A database that is restored under a running meter: refilled, and nothing is taken for another."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on
from tests.wire.session import Session, event, opening, rows
from tests.wire.talk import failure_of, read_metric, talking, wait_until
from tokenworks.meter.v1 import account_service_pb2, usage_pb2

INPUT = usage_pb2.TOKEN_CLASS_INPUT
BACKUP = sql.Identifier("backup_of_a_test")


class Backups:
    """Backs a database up, and puts it back in its place, whoever is connected."""

    def __init__(self, cluster: Cluster, url: str) -> None:
        self._cluster = cluster
        self._name = sql.Identifier(url.rpartition("/")[2])

    def take(self) -> None:
        """Keep the database as it is; nobody may be connected."""
        self._execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(BACKUP, self._name))

    def put_back(self) -> None:
        """Make the database what it was then."""
        self._execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(self._name))
        self._execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(self._name, BACKUP))

    def forget(self) -> None:
        """Remove the backup."""
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(BACKUP))

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self._cluster.url(), autocommit=True) as connection:
            connection.execute(statement)


@pytest.fixture
def backups(cluster: Cluster, database_url: str) -> Iterator[Backups]:
    """Backups of the test's database."""
    backups = Backups(cluster, database_url)
    with contextlib.closing(contextlib.ExitStack()) as stack:
        stack.callback(backups.forget)
        yield backups


@pytest.fixture
def meter(database_url: str, tmp_path: Path, backups: Backups) -> Iterator[RunningMeter]:
    """A meter that was started anew after the backup, which knows acme and its earlier start."""
    with running_meter_on(database_url, folder=tmp_path) as meter:
        session = Session(meter)
        session.create_account("acme")
        session.create_account("other")
        meter.stop()
        backups.take()
        meter.start()
        yield meter


def test_restore__is_refilled_while_the_meter_runs_on(
    meter: RunningMeter, backups: Backups
) -> None:
    """Streams open anew and send again; each token is counted once, for whom it was."""
    session = Session(meter)
    batches = [
        rows(1, event("acme", model="first", tokens={INPUT: 1})),
        rows(2, event("other", model="second", tokens={INPUT: 10})),
    ]
    with talking(session) as talk:
        talk.say(opening(), *batches)
        assert talk.hear().WhichOneof("message") == "opened"
        assert talk.hear_of(2).sequence == 2
        assert len(session.counted()) == 2
        backups.put_back()
        # Nothing is said on the stream: the meter finds out by itself.
        assert failure_of(talk.hear) == ("UNAVAILABLE", "STORE_UNAVAILABLE", True)
    assert read_metric(meter, "tokenworks_rollbacks_total") == 1
    # The other way round, so that in the restored database ids go to others than before.
    answers = session.exchange(opening("p2"), rows(1, event("other", tokens={INPUT: 100})))
    assert answers[1].ack.sequence == 1
    answers = session.exchange(opening(first_sequence=1), *reversed(batches))
    assert answers[0].opened.next_sequence == 1
    assert answers[1].opened.next_sequence == 1
    session.exchange(opening(first_sequence=1), *batches)
    assert session.counted() == {("acme", "high", INPUT): 1, ("other", "high", INPUT): 110}


def test_restore__accounts_and_keys_are_those_of_then(
    meter: RunningMeter, backups: Backups
) -> None:
    """What was made after the backup is gone, also where the meter has it in memory."""
    session = Session(meter)
    session.create_account("later")
    backups.put_back()

    def is_gone() -> bool:
        listing = account_service_pb2.ListAccountsRequest()
        found = session.call("ListAccounts", listing).accounts
        return [each.account for each in found] == ["acme", "other"]

    wait_until(is_gone)
    session.create_account("later")
    session.create_account("latest")
    assert session.record(event("latest")) == [1]
