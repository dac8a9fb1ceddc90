"""A meter on a Postgres of its own with fsync on, made from a template, and their processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import psycopg

import migrations
from cli.postgres.programs import Programs, find_programs
from cli.postgres.supervisor import Postgres
from meter.app import create_installation_key
from tests.faults.row import Skipped
from tests.faults.waiting import wait_until

TOKENWORKS: Final = Path(sys.executable).parent / "tokenworks"
ROOT_ACCOUNT: Final = "factory"
ACCOUNTS: Final = ("acme", "globex", "initech", "hooli")
TIERS: Final = ("free", "medium", "high", "premium", "ultra")
BOOK: Final = Path(__file__).with_name("book.toml")
CONTRACT: Final = Path(__file__).with_name("contract.toml")
PEPPER: Final = bytes(range(32))
"""Keys the hashes of the API keys of every row."""
_PASSWORD: Final = "only-for-faults"
_START_SECONDS_MAX: Final = 60
_STOP_SECONDS_MAX: Final = 40
_COMMAND_SECONDS_MAX: Final = 60
_SLOT: Final = "follows"


class MeterProcess:
    """`tokenworks serve` on a database; `grpc` and `http` (host:port) stay over restarts."""

    def __init__(
        self,
        database_url: str,
        *,
        folder: Path,
        pepper: Path,
        name: str = "meter",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`folder` takes its log, `pepper` is a file; `environment` is added to its own."""
        self.grpc = self.http = "127.0.0.1:0"
        self.log = folder / f"{name}.log"
        self.settings = {
            "TOKENWORKS_DATABASE_URL": database_url,
            "TOKENWORKS_KEY_PEPPER_FILE": str(pepper),
            **(environment or {}),
        }
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it; returns when it serves."""
        assert not self.is_running
        addresses = {"TOKENWORKS_GRPC_ADDRESS": self.grpc, "TOKENWORKS_HTTP_ADDRESS": self.http}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [TOKENWORKS, "serve", "--json"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ | self.settings | addresses,
                text=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the meter did not start:\n{self.log.read_text('utf-8')[-3000:]}")
        told = json.loads(line)
        self.grpc, self.http = told["grpc"], told["http"]

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> int:
        """End it without notice, as `kill -9` does; returns the exit status."""
        return self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Ask it to stop, as an operator does; returns the exit status."""
        return self._end(signal.SIGTERM)

    def close(self) -> None:
        """End it if it runs, also when it is stopped by a signal."""
        if self._process is not None:
            self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> int:
        process, self._process = self._process, None
        assert process is not None
        process.send_signal(number)
        try:
            return process.wait(_STOP_SECONDS_MAX)
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A stopped Postgres with the schema, accounts, prices and a contract, to copy from."""

    folder: Path
    api_key: str


def make_template(folder: Path) -> Template:
    """Make the template in a new folder; takes some seconds."""
    folder.mkdir(parents=True)
    (folder / "key-pepper").touch(mode=0o600)
    (folder / "key-pepper").write_text(PEPPER.hex(), "ascii")
    postgres = Postgres(folder / "database" / "postgres", programs=find_programs(), durable=True)
    try:
        postgres.start(password=_PASSWORD)
        url = postgres.url()
        migrations.upgrade(url)
        with psycopg.connect(url, autocommit=True) as connection:
            # So that a meter may be told to wait for standbys.
            connection.execute("GRANT pg_read_all_stats TO tokenworks_ingest")
        api_key = create_installation_key(url, key_pepper=PEPPER, description="for faults")
        meter = MeterProcess(url, folder=folder, pepper=folder / "key-pepper")
        try:
            meter.start()
            set_up(meter.grpc, api_key=api_key)
            meter.stop()
        finally:
            meter.close()
    finally:
        postgres.stop()
    return Template(folder=folder, api_key=api_key)


def run_command(*words: str, server: str, api_key: str) -> str:
    """Run a `tokenworks` command against a meter; returns what it printed."""
    environment = {"TOKENWORKS_SERVER": server, "TOKENWORKS_API_KEY": api_key}
    return subprocess.run(
        [TOKENWORKS, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=os.environ | environment,
        text=True,
        check=True,
        timeout=_COMMAND_SECONDS_MAX,
    ).stdout


class Database:
    """The Postgres of one row."""

    def __init__(self, folder: Path) -> None:
        """Take a folder that a Postgres has made; nothing runs yet."""
        self.folder = folder
        self.data = folder / "data"
        self._programs = find_programs()
        self._postgres = Postgres(folder, programs=self._programs, durable=True)

    @classmethod
    def copied(cls, template: Template, *, folder: Path) -> Self:
        """Copy the template's."""
        shutil.copytree(template.folder / "database", folder / "database", symlinks=True)
        return cls(folder / "database" / "postgres")

    @property
    def url(self) -> str:
        """The superuser's URL; the server has to run."""
        return self._postgres.url()

    @property
    def port(self) -> int:
        """The server's port."""
        return self._postgres.port

    @property
    def log_text(self) -> str:
        """All that the server said."""
        return (self.folder / "log").read_text("utf-8", "replace")

    @property
    def programs(self) -> Path:
        """The folder of Postgres' programs."""
        return self._programs.directory

    def preload(self, library: Path, *, environment: Mapping[str, str]) -> None:
        """Have later starts load a library first: through a `postgres` that sets it up."""
        wrapped = self.folder.parent / "wrapped"
        wrapped.mkdir()
        words = " ".join(f"{name}='{value}'" for name, value in environment.items())
        program = wrapped / "postgres"
        program.write_text(
            f"#!/bin/sh\nexec env LD_PRELOAD='{library}' {words}"
            f' {self.programs / "postgres"} "$@"\n',
            "utf-8",
        )
        program.chmod(0o755)
        (wrapped / "initdb").symlink_to(self.programs / "initdb")
        programs = Programs(directory=wrapped, major=self._programs.major)
        self._postgres = Postgres(self.folder, programs=programs, durable=True)

    def start(self) -> None:
        """Bring it up on the port that it had before."""
        self._postgres.start(password=None)

    def stop(self) -> None:
        """Stop it in good order."""
        self._postgres.stop()

    def revive(self) -> None:
        """Bring it back after a panic, whether it is restarting itself or has given up."""
        self.kill()
        self.start()

    def pids(self) -> list[int]:
        """All processes of the server, the first one first."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if (entry / "cwd").samefile(self.data) and _name(entry) == "postgres":
                        found.append(int(entry.name))
                except OSError:
                    continue
        return sorted(found)

    def send(self, number: signal.Signals) -> int:
        """Send a signal to all its processes; returns to how many."""
        count = 0
        for pid in self.pids():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
            count += 1
        return count

    def send_to(self, pid: int, number: signal.Signals) -> None:
        """Send a signal to one of its processes."""
        assert pid in self.pids()
        os.kill(pid, number)

    def kill(self) -> int:
        """End every process of it without notice; returns how many there were."""
        count = self.send(signal.SIGKILL)
        wait_until(lambda: not self.pids(), seconds_max=20, what="Postgres is dead")
        return count

    def back_up(self, target: Path, *, through: str | None = None) -> Path:
        """Take a base backup of the running server into a new folder, and return that.

        `through`: a URL to take it by; the copy is then a standby that follows by this URL. A slot
        keeps for it what it has not read, through restarts that would throw that away.
        """
        program = self.programs / "pg_basebackup"
        if not program.exists():
            raise Skipped("there is no pg_basebackup here")
        words = ["--write-recovery-conf", "--create-slot", "--slot", _SLOT] if through else []
        subprocess.run(
            [program, "--dbname", through or self.url, "--pgdata", target,
             "--checkpoint", "fast", *words],
            check=True,
            timeout=_COMMAND_SECONDS_MAX,
        )  # fmt: skip
        return target

    def question(self, statement: str) -> int:
        """Ask for one number."""
        with psycopg.connect(self.url, connect_timeout=10) as connection:
            row = connection.execute(statement.encode()).fetchone()
        assert row is not None
        return int(row[0])

    def close(self) -> None:
        """Leave nothing running."""
        self.send(signal.SIGCONT)
        self.kill()
        self._postgres.stop()


def set_up(server: str, *, api_key: str) -> None:
    """Make the accounts, prices and the contract of every row, at a running meter."""

    def run(*words: str) -> None:
        run_command(*words, server=server, api_key=api_key)

    run("accounts", "create", ROOT_ACCOUNT, "--id", ROOT_ACCOUNT)
    for account in ACCOUNTS:
        run("accounts", "create", account, "--parent", ROOT_ACCOUNT, "--id", account)
    run("prices", "import", str(BOOK))
    run("contracts", "set", str(CONTRACT))


def _name(entry: Path) -> str:
    return (entry / "comm").read_text("utf-8").strip()
