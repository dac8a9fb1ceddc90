"""A backup and the way back from it, by the very commands of the pages; `make faults` loads it."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

import migrations
from cli.postgres.programs import find_programs
from cli.postgres.supervisor import Postgres
from tests.faults.steps import Steps
from tests.running_meter import running_meter_on
from tests.wire.session import Session, event, opening, rows
from tests.wire.talk import Talk, is_recording, talking, wait_until
from tokenworks.meter.v1 import meter_service_pb2, usage_pb2

pytestmark = pytest.mark.stacks
INPUT = usage_pb2.TOKEN_CLASS_INPUT
FOLLOWS = "SELECT FROM pg_stat_replication WHERE application_name = 'archive'"


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder whose parent Postgres can pass."""
    folder = Path(tempfile.mkdtemp(prefix="tokenworks-test-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def postgres(place: Path, pg_bin: Path | None) -> Iterator[Postgres]:
    """A database of its own, which may be lost."""
    postgres = Postgres(
        place / "cluster" / "postgres", programs=find_programs(pg_bin), durable=True
    )
    postgres.start(password="only-for-tests")
    migrations.upgrade(postgres.url())
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute("GRANT pg_read_all_stats TO tokenworks_ingest")
    yield postgres
    postgres.stop()


def test_pages__bring_a_lost_database_back(
    postgres: Postgres, place: Path, tmp_path: Path, pg_bin: Path | None
) -> None:
    """The data are gone; base and archive have what was durable, and the producer has the rest."""
    data = place / "cluster" / "postgres" / "data"
    steps = make_steps(place, url=postgres.url(), data=data, pg_bin=pg_bin)
    batches = [rows(number, event(tokens={INPUT: 10**number})) for number in range(1, 4)]
    with (
        archiving(steps, postgres, folder=place / "archive") as archive,
        running_meter_on(
            postgres.url(), folder=tmp_path, settings={"durable_standbys": "archive"}
        ) as meter,
    ):
        session = Session(meter)
        session.create_account("acme")
        steps.run("base")
        steps.run("trim")
        with talking(session) as talk:
            talk.say(opening(), *batches[:2])
            for _ in range(3):
                talk.hear()
            wait_until(lambda: durable_sequence(talk) == 2)
            archive.kill()
            archive.wait()
            talk.say(batches[2])
            assert talk.hear().ack.durable_sequence == 2
        postgres.stop()
        shutil.rmtree(data)
        steps.run("restore")
        postgres.start(password=None)
        steps.run("wait")
        with archiving(steps, postgres, folder=place / "archive-2"):
            wait_until(lambda: is_recording(session))
            with talking(session) as talk:
                talk.say(opening(first_sequence=3), batches[2])
                assert talk.hear().opened.next_sequence == 3
                talk.hear()
                wait_until(lambda: durable_sequence(talk) == 3)
            assert session.counted() == {("acme", "high", INPUT): 1110}
            steps.run("look")


def test_pages__come_back_to_a_moment(postgres: Postgres, place: Path, pg_bin: Path | None) -> None:
    """What somebody deleted is there again, and what came after the moment is not."""
    data = place / "cluster" / "postgres" / "data"
    steps = make_steps(place, url=postgres.url(), data=data, pg_bin=pg_bin)
    with archiving(steps, postgres, folder=place / "archive") as archive:
        steps.run("base")
        with psycopg.connect(postgres.url(), autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS number")
            moment = connection.execute("SELECT clock_timestamp()::text").fetchone()
            assert moment is not None
            connection.execute("INSERT INTO kept VALUES (2)")
            connection.execute("DELETE FROM kept WHERE number = 1")
        wait_until(lambda: everything_is_archived(postgres))
        archive.kill()
    postgres.stop()
    steps.set("MOMENT", moment[0])
    for step in ("set-aside", "restore", "moment"):
        steps.run(step)
    postgres.start(password=None)
    steps.run("wait")
    with psycopg.connect(postgres.url()) as connection:
        assert connection.execute("SELECT array_agg(number) FROM kept").fetchone() == ([1],)


def make_steps(place: Path, *, url: str, data: Path, pg_bin: Path | None) -> Steps:
    """Return the commands of both pages, on a database."""
    return Steps(
        "backup.md",
        "disaster-recovery.md",
        programs=find_programs(pg_bin).directory,
        environment={
            "DATABASE_URL": url,
            "TOKENWORKS_DATABASE_URL": url,
            "BACKUP": str(place / "base"),
            "PGDATA": str(data),
        },
        log=place / "steps.log",
    )


@contextmanager
def archiving(
    steps: Steps, postgres: Postgres, *, folder: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run the archive into a new folder, as the page says, for the time of the block."""
    folder.mkdir()
    steps.set("ARCHIVE", str(folder))
    steps.run("begin-archive")
    archive = steps.start("archive")
    try:
        wait_until(lambda: follows(postgres))
        yield archive
    finally:
        archive.kill()
        archive.wait()


def follows(postgres: Postgres) -> bool:
    """Tell whether the archive takes the log."""
    with psycopg.connect(postgres.url()) as connection:
        return connection.execute(FOLLOWS).fetchone() is not None


def everything_is_archived(postgres: Postgres) -> bool:
    """Tell whether the archive has on disk what the database has."""
    with psycopg.connect(postgres.url()) as connection:
        found = connection.execute(
            "SELECT flush_lsn >= pg_current_wal_flush_lsn() FROM pg_stat_replication"
        ).fetchone()
    return found == (True,)


def durable_sequence(talk: Talk) -> int:
    """Ask by a heartbeat what is durable."""
    talk.say(meter_service_pb2.StreamUsageRequest(heartbeat=meter_service_pb2.Heartbeat()))
    return talk.hear().ack.durable_sequence
