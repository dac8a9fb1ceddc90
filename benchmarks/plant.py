"""A durable Postgres and a meter process, as production has them, on this machine."""

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import sql

import migrations
from benchmarks.names import put_down_accounts
from cli.postgres.programs import find_programs
from cli.postgres.supervisor import Postgres
from meter.app import create_installation_key

_PEPPER = bytes(range(32))


@dataclass(frozen=True, slots=True)
class Plant:
    """What a benchmark talks to."""

    target: str
    api_key: str
    database_url: str
    meter_pid: int

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The call metadata that carries the key."""
        return (("authorization", f"Bearer {self.api_key}"),)

    def query(self, statement: str) -> Any:  # noqa: ANN401
        """Return the first row of a query."""
        with psycopg.connect(self.database_url) as connection:
            return connection.execute(statement.encode()).fetchone()

    def find_postgres_pid(self) -> int:
        """Return the process of the server, whose children serve."""
        data = self.query("SHOW data_directory")[0]
        return int((Path(data) / "postmaster.pid").read_text("ascii").split()[0])

    def counted_behind_seconds(self) -> float:
        """Return how long ago the oldest segment was recorded that is not counted; 0 if none."""
        return float(
            self.query(
                "SELECT coalesce(extract(epoch FROM clock_timestamp() - min(j.commit_time)), 0)"
                " FROM journal j JOIN counting c USING (shard) WHERE j.position > c.position"
            )[0]
        )

    def wait_until_counted(self, *, seconds: float) -> float:
        """Return how long counting took to reach the journal's end; raises after `seconds`."""
        begin = time.monotonic()
        behind = (
            "SELECT count(*) FROM shards s JOIN counting c USING (shard)"
            " WHERE s.position > c.position"
        )
        while self.query(behind)[0]:
            if time.monotonic() > begin + seconds:
                raise TimeoutError("counting did not catch up")
            time.sleep(0.02)
        return time.monotonic() - begin


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Who looks on: settings that Postgres starts with, and what is done around a plant's work."""

    postgres_settings: Mapping[str, str]
    around: Callable[[Plant], AbstractContextManager[None]]


# Rows start their plants themselves; `benchmarks.profile` has this set while it runs one.
WATCH: Final[ContextVar[Watch | None]] = ContextVar("WATCH", default=None)


@cache
def _empty_database() -> Path:
    """Return a stopped Postgres with the schema: what a process has started once is copied."""
    folder = Path(tempfile.mkdtemp(prefix="tokenworks-bench-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    postgres = Postgres(folder / "postgres", programs=find_programs(None), durable=True)
    try:
        postgres.start(password="bench")
        migrations.upgrade(postgres.url())
    finally:
        postgres.stop()
    return folder / "postgres"


@contextmanager
def running_postgres(folder: Path) -> Iterator[str]:
    """Start a durable Postgres with the schema in a folder (fsync on), and return its URL."""
    (folder / "pg").mkdir()
    # With its owners, who may be others than this process's.
    subprocess.run(["cp", "-a", _empty_database(), folder / "pg"], check=True)
    postgres = Postgres(folder / "pg" / "postgres", programs=find_programs(None), durable=True)
    try:
        postgres.start(password=None)
        if watch := WATCH.get():
            _set(postgres.url(), watch.postgres_settings)
            postgres.stop()
            postgres.start(password=None)
        yield postgres.url()
    finally:
        postgres.stop()


def _set(url: str, settings: Mapping[str, str]) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for name, value in settings.items():
            statement = sql.SQL("ALTER SYSTEM SET {} = {}")
            connection.execute(statement.format(sql.Identifier(name), sql.Literal(value)))


@contextmanager
def running_database() -> Iterator[str]:
    """Start a durable Postgres in a folder of its own, with the schema, and return its URL."""
    with bench_folder() as folder, running_postgres(folder) as url:
        yield url


@contextmanager
def running_plant(
    settings: Mapping[str, str] | None = None,
    *,
    put_down: Callable[[str], None] = put_down_accounts,
) -> Iterator[Plant]:
    """Start Postgres (fsync on) and `tokenworks serve`, with the workload's accounts.

    `settings` are further ones of the meter, by their names in the environment. `put_down` is
    handed the database before the meter starts.
    """
    with bench_folder() as folder, running_postgres(folder) as url:
        put_down(url)
        key = create_installation_key(url, key_pepper=_PEPPER, description="bench")
        pepper = folder / "pepper"
        pepper.touch(mode=0o600)
        pepper.write_text(_PEPPER.hex())
        log = folder / "meter.log"
        with _meter(url, pepper=pepper, log=log, settings=settings or {}) as (process, target):
            plant = Plant(target, key, url, process.pid)
            watch = WATCH.get()
            with watch.around(plant) if watch else nullcontext():
                yield plant


@contextmanager
def bench_folder() -> Iterator[Path]:
    """Make a folder for one run."""
    folder = Path(tempfile.mkdtemp(prefix="tokenworks-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _meter(
    url: str, *, pepper: Path, log: Path, settings: Mapping[str, str]
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    environment = os.environ | {
        "TOKENWORKS_DATABASE_URL": url,
        "TOKENWORKS_KEY_PEPPER_FILE": str(pepper),
        "TOKENWORKS_GRPC_ADDRESS": "127.0.0.1:0",
        "TOKENWORKS_HTTP_ADDRESS": "127.0.0.1:0",
        # Asked is what the server does, not how much of it one key may have.
        "TOKENWORKS_CALLS_PER_SECOND_MAX": "1000000",
        **settings,
    }
    command = [str(Path(sys.executable).parent / "tokenworks"), "serve", "--json"]
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, env=environment, text=True
        ) as process,
    ):
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(log.read_text("utf-8"))
        try:
            yield process, json.loads(line)["grpc"]
        finally:
            process.terminate()
