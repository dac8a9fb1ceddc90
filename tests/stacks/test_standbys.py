"""Durable standbys with a real one: streaming, away, back, and promoted too early."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

import migrations
from cli.postgres.launcher import find_launcher
from cli.postgres.programs import find_programs
from cli.postgres.supervisor import Postgres
from tests.running_meter import RunningMeter, running_meter_on
from tests.wire.session import Response, Session, event, opening, rows
from tests.wire.talk import Talk, failure_of, is_recording, talking, wait_until
from tokenworks.meter.v1 import meter_service_pb2, usage_pb2

pytestmark = pytest.mark.stacks
STANDBY = "standby-1"
SETTINGS = {"durable_standbys": STANDBY}
PASSWORD = "only-for-tests"
BACKUP_SECONDS_MAX = 60
# So often is looked before something is taken for staying as it is.
LOOKS = 20
INPUT = usage_pb2.TOKEN_CLASS_INPUT


class Pair:
    """A primary, and a standby that was made from it; either may be stopped and started."""

    def __init__(self, folder: Path, *, bin_directory: Path | None) -> None:
        self._programs = find_programs(bin_directory)
        self._folder = folder
        self.primary = self._make("primary")
        self.primary.start(password=PASSWORD)
        self.url = self.primary.url()
        migrations.upgrade(self.url)
        self.standby = self._make("standby")
        self._copy()

    def _make(self, name: str, *, port: int | None = None) -> Postgres:
        path = self._folder / "cluster" / name
        return Postgres(path, programs=self._programs, port=port, durable=False)

    def _copy(self) -> None:
        """Make the standby's folder, as an operator does."""
        path = self._folder / "cluster" / "standby"
        path.mkdir(mode=0o700)
        program = self._programs.directory / "pg_basebackup"
        launcher = find_launcher(self._programs.directory, folder=path.parent / "primary")
        launcher.give(path)
        source = f"{self.url}?application_name={STANDBY}"
        done = launcher.run(
            [str(program), "-D", str(path / "data"), "-R", "-c", "fast", "-d", source],
            seconds_max=BACKUP_SECONDS_MAX,
        )
        assert done.returncode == 0, done.stdout
        launcher.write(path / "password", PASSWORD)

    def execute(self, statement: str) -> None:
        """Tell the primary something."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement)

    def fail_over(self) -> None:
        """Lose the primary, and let the standby take its place, at the same address."""
        port = self.primary.port
        self.primary.stop()
        self.standby = self._make("standby", port=port)
        self.standby.start(password=None)
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("SELECT pg_promote(true, 60)")

    def hosts_url(self) -> str:
        """The URL that names both, the standby first."""
        here, there = f":{self.primary.port}/", f":{self.standby.port},127.0.0.1{{}}"
        return self.url.replace(here, there.format(here))

    def promote(self) -> None:
        """Lose the primary, and let the standby take its place where it is."""
        self.primary.stop()
        with psycopg.connect(self.standby.url(), autocommit=True) as connection:
            connection.execute("SELECT pg_promote(true, 60)")

    def stop(self) -> None:
        """Stop both."""
        for server in (self.standby, self.primary):
            server.stop()


@pytest.fixture
def pair(pg_bin: Path | None) -> Iterator[Pair]:
    """A primary that runs, and a standby that has not been started."""
    folder = Path(tempfile.mkdtemp(prefix="tokenworks-test-"))
    pair = Pair(folder, bin_directory=pg_bin)
    try:
        yield pair
    finally:
        pair.stop()
        shutil.rmtree(folder)


@pytest.fixture
def meter(pair: Pair, tmp_path: Path) -> Iterator[RunningMeter]:
    """A meter whose producers wait for the standby."""
    pair.execute("GRANT pg_read_all_stats TO tokenworks_ingest")
    with running_meter_on(pair.url, folder=tmp_path, settings=SETTINGS) as meter:
        Session(meter).create_account("acme")
        yield meter


def ask(talk: Talk) -> meter_service_pb2.BatchAck:
    """Ask by a heartbeat how things stand."""
    talk.say(meter_service_pb2.StreamUsageRequest(heartbeat=meter_service_pb2.Heartbeat()))
    return talk.hear().ack


def numbers(response: Response) -> tuple[int, int]:
    """Return what an ack says is recorded and durable."""
    return response.ack.sequence, response.ack.durable_sequence


def test_standby__holds_back_what_it_does_not_have(pair: Pair, meter: RunningMeter) -> None:
    """Without the standby all is recorded and nothing is durable; it comes, and catches up."""
    with talking(Session(meter)) as talk:
        talk.say(opening(), rows(1, event()))
        assert talk.hear().opened.next_sequence == 1
        assert numbers(talk.hear()) == (1, 0)
        assert {ask(talk).durable_sequence for _ in range(LOOKS)} == {0}
        assert "standbys_missing" in meter.log.read_text("utf-8")
        pair.standby.start(password=None)
        wait_until(lambda: ask(talk).durable_sequence == 1)
        pair.standby.stop()
        talk.say(rows(2, event()))
        assert numbers(talk.hear()) == (2, 1)
        assert {ask(talk).durable_sequence for _ in range(LOOKS)} == {1}
        pair.standby.start(password=None)
        wait_until(lambda: ask(talk).durable_sequence == 2)


def test_standby__promoted_before_it_had_everything(pair: Pair, meter: RunningMeter) -> None:
    """What only the lost primary had was never durable: the producer has it, and it counts once."""
    batches = [rows(number, event(tokens={INPUT: 10**number})) for number in range(1, 4)]
    session = Session(meter)
    pair.standby.start(password=None)
    with talking(session) as talk:
        talk.say(opening(), *batches[:2])
        assert talk.hear().WhichOneof("message") == "opened"
        assert talk.hear_of(2).sequence == 2
        wait_until(lambda: ask(talk).durable_sequence == 2)
        pair.standby.stop()
        talk.say(batches[2])
        assert numbers(talk.hear()) == (3, 2)
        pair.fail_over()
        assert failure_of(lambda: [ask(talk) for _ in iter(int, 1)])[0] == "UNAVAILABLE"

    wait_until(lambda: is_recording(session))
    with talking(session) as talk:
        talk.say(opening(first_sequence=3), batches[2])
        assert talk.hear().opened.next_sequence == 3
        # The new primary has no standby of that name: what it has is durable for nobody.
        assert numbers(talk.hear()) == (3, 0)
        assert {ask(talk).durable_sequence for _ in range(LOOKS)} == {0}
    assert session.counted() == {("acme", "high", INPUT): 1110}


def test_url__names_both(pair: Pair, tmp_path: Path) -> None:
    """Of two hosts the meter speaks to the one that takes writes, before and after a change."""
    pair.standby.start(password=None)
    pair.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
    pair.execute("SELECT pg_reload_conf()")
    with running_meter_on(pair.hosts_url(), folder=tmp_path) as meter:
        session = Session(meter)
        session.create_account("acme")
        session.exchange(opening(), rows(1, event(tokens={INPUT: 10})))
        pair.promote()
        with psycopg.connect(pair.standby.url(), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
            connection.execute("SELECT pg_reload_conf()")
        wait_until(lambda: is_recording(session))
        session.exchange(opening(), rows(2, event(tokens={INPUT: 100})))
        assert session.counted() == {("acme", "high", INPUT): 110}


def test_start__without_the_privilege(pair: Pair, tmp_path: Path) -> None:
    """A meter that may not see standbys says what to grant, and does not start."""
    with (
        pytest.raises(AssertionError, match="GRANT pg_read_all_stats TO tokenworks_ingest"),
        running_meter_on(pair.url, folder=tmp_path, settings=SETTINGS),
    ):
        pass
