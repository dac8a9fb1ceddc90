"""`tokenworks up` as people run it: a process of its own, on real ports, in a folder."""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from cli.connection import connect
from cli.postgres.programs import find_programs
from cli.postgres.supervisor import Postgres
from cli.settings import Settings
from tests.postgres import Cluster
from tests.running_meter import TOKENWORKS
from tokenworks.meter.v1.account_service_pb2 import ListAccountsRequest

ANY_PORTS = ("--grpc-address", "127.0.0.1:0", "--http-address", "127.0.0.1:0")
STOP_SECONDS_MAX = 60
AS_A_USER = ("unshare", "--user", "--map-user=1000", "--map-group=1000")


class Up:
    """A running `tokenworks up --json`; `told` is what it printed once it was ready."""

    def __init__(self, folder: Path, *, arguments: Sequence[str], prefix: Sequence[str]) -> None:
        self.folder = folder
        self._errors = folder.with_name("stderr")
        with self._errors.open("ab") as errors:
            self.process = subprocess.Popen(
                [*prefix, TOKENWORKS, "up", "--json", "--dir", folder, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.read_errors()
        self.told = json.loads(line)

    def read_errors(self) -> str:
        """What it said on stderr."""
        return self._errors.read_text("utf-8")

    def stop(self, *, signal_number: int = signal.SIGINT) -> int:
        """Ask it to stop, and return its exit code."""
        self.process.send_signal(signal_number)
        return self.process.wait(timeout=STOP_SECONDS_MAX)

    def close(self) -> None:
        """End it and the Postgres that it may have left behind."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        Postgres(self.folder / "postgres", programs=find_programs()).stop()

    def database_url(self) -> str:
        """The URL of its Postgres, with the password of the file that it names."""
        password = (self.folder / "postgres" / "password").read_text("ascii").strip()
        return str(self.told["postgres"]).replace("tokenworks@", f"tokenworks:{password}@")

    def postgres_pid(self) -> int:
        """The process of its Postgres."""
        pid_file = self.folder / "postgres" / "data" / "postmaster.pid"
        return int(pid_file.read_text("ascii").splitlines()[0])


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that `up` is to make; its path is as short as real ones."""
    with tempfile.TemporaryDirectory(prefix="tw-") as path:
        yield Path(path) / "data"


class Start:
    """Starts `up` in a folder, as often as a test wants, and ends all of them."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._stack = stack

    def __call__(
        self, *arguments: str, prefix: Sequence[str] = (), ports: Sequence[str] = ANY_PORTS
    ) -> Up:
        """Start one, and wait until it is ready."""
        up = Up(self.folder, arguments=[*ports, *arguments], prefix=prefix)
        self._stack.callback(up.close)
        return up


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Starts `up` in the folder."""
    with ExitStack() as stack:
        yield Start(folder, stack)


def test_up__new_folder(start: Start, folder: Path) -> None:
    """All that it names answers, its secrets are its owner's alone, and a command finds it."""
    up = start()
    with psycopg.connect(up.database_url()) as connection:
        assert connection.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)
    for address in (up.told["grpc"], up.told["http"]):
        host, _, port = address.rpartition(":")
        socket.create_connection((host, int(port))).close()
    assert up.told["credentials"] == str(folder / "credentials.json")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in ("credentials.json", "key-pepper", "lock", "postgres/password"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600, name
    _ask(folder / "credentials.json")


@pytest.mark.parametrize(
    "signal_number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.stacks)]
)
def test_up__asked_to_stop(start: Start, signal_number: int) -> None:
    """One Ctrl-C or SIGTERM ends all of it, Postgres included, with exit code 0."""
    up = start()
    postgres = up.postgres_pid()
    assert up.stop(signal_number=signal_number) == 0
    assert not _is_alive(postgres)
    assert not (up.folder / "postgres" / "data" / "postmaster.pid").exists()


@pytest.mark.stacks
def test_up__asked_to_stop_again_and_again(start: Start) -> None:
    """Further Ctrl-C do not break off what the first one began."""
    up = start()
    postgres = up.postgres_pid()
    while up.process.poll() is None:
        up.process.send_signal(signal.SIGINT)
    assert up.stop() == 0
    assert not _is_alive(postgres)


def test_up__running_already(start: Start, folder: Path) -> None:
    """A second one on the folder says where the first one listens, and leaves it alone."""
    up = start()
    second = _run("up", "--dir", str(folder), *ANY_PORTS)
    assert second.returncode == 3
    assert f"process {up.process.pid}" in second.stderr
    assert up.told["grpc"] in second.stderr
    assert up.told["http"] in second.stderr
    assert up.process.poll() is None


def test_up__killed(start: Start) -> None:
    """After kill -9 the next one attaches to the same Postgres, and all data are there."""
    up = start()
    with psycopg.connect(up.database_url()) as connection:
        connection.execute("CREATE TABLE note AS SELECT 'kept' AS text")
    credentials = json.loads((up.folder / "credentials.json").read_text())
    postgres = up.postgres_pid()
    up.process.kill()
    up.process.wait()
    again = start()
    assert again.postgres_pid() == postgres
    assert "was still running" in again.read_errors()
    with psycopg.connect(again.database_url()) as connection:
        assert connection.execute("SELECT text FROM note").fetchone() == ("kept",)
    kept = json.loads((again.folder / "credentials.json").read_text())
    assert kept["api_key"] == credentials["api_key"]
    assert again.stop() == 0
    assert not _is_alive(postgres)


def test_up__postgres_killed(start: Start) -> None:
    """A Postgres that is killed comes again on the same port, with all that was committed."""
    up = start()
    with psycopg.connect(up.database_url()) as connection:
        connection.execute("CREATE TABLE note AS SELECT 'kept' AS text")
    os.kill(up.postgres_pid(), signal.SIGKILL)
    while "postgres_started" not in up.read_errors():
        assert up.process.poll() is None
    with psycopg.connect(up.database_url()) as connection:
        assert connection.execute("SELECT text FROM note").fetchone() == ("kept",)
    postgres = up.postgres_pid()
    assert up.stop() == 0
    assert not _is_alive(postgres)


def test_up__interrupted_start(folder: Path) -> None:
    """Ctrl-C before it is ready ends what has begun, and leaves nothing behind."""
    process = subprocess.Popen(
        [TOKENWORKS, "up", "--dir", folder, *ANY_PORTS],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not (folder / "postgres").exists():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=STOP_SECONDS_MAX) == 1
    assert not (folder / "postgres" / "data" / "postmaster.pid").exists()


def test_up__started_again(start: Start) -> None:
    """After an orderly stop everything is there again, under the same API key."""
    up = start()
    before = json.loads((up.folder / "credentials.json").read_text())
    up.stop()
    again = start()
    after = json.loads((again.folder / "credentials.json").read_text())
    assert after["api_key"] == before["api_key"]
    assert after["target"] == again.told["grpc"]


@pytest.mark.stacks
def test_up__api_key_of_another_database(start: Start, folder: Path) -> None:
    """A stored API key that the meter does not know is replaced by one that works."""
    up = start()
    before = json.loads((folder / "credentials.json").read_text())
    up.stop()
    shutil.rmtree(folder / "postgres")
    start()
    after = json.loads((folder / "credentials.json").read_text())
    assert after["api_key"] != before["api_key"]
    _ask(folder / "credentials.json")


@pytest.mark.parametrize("flag", ["--grpc-address", "--http-address", "--pg-port"])
def test_up__port_taken(folder: Path, flag: str) -> None:
    """A taken port ends it with the name of the flag to change, and nothing is left running."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        place = port if flag == "--pg-port" else f"127.0.0.1:{port}"
        refused = _run("up", "--dir", str(folder), *ANY_PORTS, flag, place)
    assert refused.returncode == 1
    assert f"{port} is taken" in refused.stderr
    assert flag in refused.stderr
    assert not (folder / "postgres" / "data" / "postmaster.pid").exists()


@pytest.mark.stacks
def test_up__pg_port(start: Start) -> None:
    """Postgres listens where it is told to."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    up = start("--pg-port", str(port))
    assert f":{port}/" in up.told["postgres"]


def test_up__other_majors_data(folder: Path) -> None:
    """A data folder of another Postgres is refused, with both versions named."""
    data = folder / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("13\n")
    refused = _run("up", "--dir", str(folder), *ANY_PORTS)
    assert refused.returncode == 1
    assert "Postgres 13" in refused.stderr
    assert f"Postgres {find_programs().major}" in refused.stderr


def test_up__pg_bin_without_postgres(folder: Path, tmp_path: Path) -> None:
    """A folder of programs without Postgres is refused by the name of its flag."""
    refused = _run("up", "--dir", str(folder), "--pg-bin", str(tmp_path), *ANY_PORTS)
    assert refused.returncode == 1
    assert f"{tmp_path}: " in refused.stderr
    assert "--pg-bin" in refused.stderr


def test_up__other_machines_in_the_clear(folder: Path) -> None:
    """It does not let other machines in without TLS."""
    refused = _run("up", "--dir", str(folder), "--grpc-address", "0.0.0.0:0")
    assert refused.returncode == 3
    assert "--insecure" in refused.stderr
    assert not folder.exists()


@pytest.mark.stacks
def test_up__other_machines_allowed(start: Start) -> None:
    """Told so, it lets other machines in without TLS, and is still found from this one."""
    up = start("--insecure", ports=("--grpc-address", "0.0.0.0:0", *ANY_PORTS[2:]))
    assert str(up.told["grpc"]).startswith("127.0.0.1:")


def test_up__other_postgres(
    start: Start, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a database named, that one is migrated and used, and none is started."""
    with cluster.database(template="template0") as url:
        monkeypatch.setenv("TOKENWORKS_DATABASE_URL", url)
        up = start()
        assert up.told["postgres"] is None
        assert not (up.folder / "postgres").exists()
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)
        assert up.stop() == 0


def test_up__for_people(folder: Path) -> None:
    """It prints where everything is and the next command to type, which works."""
    process = subprocess.Popen(
        [TOKENWORKS, "up", "--dir", folder, *ANY_PORTS],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(7)]
        assert [line.split()[0] for line in lines[:3]] == ["Postgres", "gRPC", "HTTP"]
        assert lines[3] == f"API key   {folder / 'credentials.json'}"
        environment, *command = lines[6].split()
        name, _, value = environment.partition("=")
        typed = subprocess.run(
            [TOKENWORKS, *command[1:]],
            env=os.environ | {name: value},
            capture_output=True,
            text=True,
            check=False,
        )
        assert typed.returncode == 0, typed.stderr
    finally:
        process.terminate()
        process.communicate()
    assert process.returncode == 0


def test_up__sandbox(start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox is told where it starts, its first key is of its own time, and it stays one."""
    monkeypatch.setenv("TOKENWORKS_SANDBOX_CLOCK", "2026-10-01T00:00:00Z")
    up = start()
    assert up.told["sandbox_clock"] == "2026-10-01T00:00:00Z"
    assert "SANDBOX: this installation lives on a driven clock, now 2026-10" in up.read_errors()
    with psycopg.connect(up.database_url()) as connection:
        created = connection.execute("SELECT create_time::text FROM api_keys").fetchall()
        assert created == [("2026-10-01 00:00:00+00",)]
    assert up.stop() == 0
    monkeypatch.delenv("TOKENWORKS_SANDBOX_CLOCK")
    refused = _run("up", "--dir", str(folder), *ANY_PORTS)
    assert (refused.returncode, "TOKENWORKS_SANDBOX_CLOCK" in refused.stderr) == (3, True)


@pytest.mark.stacks
def test_up__sandbox_for_people(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock stands among the addresses of a sandbox."""
    monkeypatch.setenv("TOKENWORKS_SANDBOX_CLOCK", "2026-10-01T00:00:00Z")
    process = subprocess.Popen(
        [TOKENWORKS, "up", "--dir", folder, *ANY_PORTS],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    lines = [process.stdout.readline().strip() for _ in range(5)]
    process.terminate()
    process.communicate()
    assert (lines[4], process.returncode) == ("Clock     2026-10-01T00:00:00Z, driven: SANDBOX", 0)


@pytest.mark.stacks
@pytest.mark.skipif(os.geteuid() != 0, reason="all other tests here run as a user already")
def test_up__as_a_user(start: Start) -> None:
    """Whoever is not root runs all of it as himself."""
    up = start(prefix=AS_A_USER)
    with psycopg.connect(up.database_url()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert up.stop() == 0
    assert not (up.folder / "postgres" / "data" / "postmaster.pid").exists()


def _ask(credentials_file: Path) -> None:
    """Ask the meter something, as a command with these credentials does; raises if it refuses."""
    with connect(settings=Settings(credentials_file=credentials_file)) as client:
        client.accounts.ListAccounts(ListAccountsRequest())


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [TOKENWORKS, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _is_alive(process: int) -> bool:
    """Whether it runs; one that ended and was not waited for by its parent does not."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
