"""A durable Postgres and a meter process, as production has them, on this machine."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import psycopg

import migrations
from benchmarks.workload import ACCOUNTS, account_name
from cli.postgres.programs import find_programs
from cli.postgres.supervisor import Postgres
from meter.app import create_installation_key
from tokenworks.meter.v1 import account_service_pb2, account_service_pb2_grpc

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


@contextmanager
def running_postgres(folder: Path) -> Iterator[str]:
    """Start Postgres in a folder, durable (fsync on), and return its URL."""
    postgres = Postgres(folder / "pg" / "postgres", programs=find_programs(None), durable=True)
    try:
        postgres.start(password="bench")
        yield postgres.url()
    finally:
        postgres.stop()


@contextmanager
def running_plant(
    settings: Mapping[str, str] | None = None,
    *,
    prepare: Callable[[str], None] | None = None,
) -> Iterator[Plant]:
    """Start Postgres (fsync on) and `tokenworks serve`, with the workload's accounts.

    `settings` are further ones of the meter, by their names in the environment. `prepare` is handed
    the database before the meter starts, and makes accounts in the workload's stead.
    """
    with bench_folder() as folder, running_postgres(folder) as url:
        migrations.upgrade(url)
        if prepare is not None:
            prepare(url)
        key = create_installation_key(url, key_pepper=_PEPPER, description="bench")
        pepper = folder / "pepper"
        pepper.touch(mode=0o600)
        pepper.write_text(_PEPPER.hex())
        log = folder / "meter.log"
        with _meter(url, pepper=pepper, log=log, settings=settings or {}) as (process, target):
            plant = Plant(target, key, url, process.pid)
            if prepare is None:
                _create_accounts(plant)
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


# Calls of one connection: fewer than a server takes, for it refuses what comes before it said so.
_AT_ONCE = 100


def _create_accounts(plant: Plant) -> None:
    with grpc.insecure_channel(plant.target) as channel:
        stub = account_service_pb2_grpc.AccountServiceStub(channel)
        for first in range(0, ACCOUNTS, _AT_ONCE):
            calls = [
                stub.CreateAccount.future(
                    account_service_pb2.CreateAccountRequest(
                        account=account_name(number), handle=account_name(number)
                    ),
                    metadata=plant.metadata,
                )
                for number in range(first, min(first + _AT_ONCE, ACCOUNTS))
            ]
            for call in calls:
                call.result()
