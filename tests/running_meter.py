"""A real meter for the tests: `tokenworks serve` as a process of its own, on free ports.

It is forked off one that has imported all already; see `tests/forks.py`.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

import meter.app
from meter.domain.times import to_ms
from tests import forks

TOKENWORKS = Path(sys.executable).parent / "tokenworks"
PEPPER = bytes(range(32))
STOP_SECONDS_MAX = 30


class RunningMeter:
    """A meter over a database; `target`, `http` and those of OTLP stay the same over restarts.

    `api_key` has every role on everything. Further settings of the process are
    given as `settings`, names without prefix: {"tiers": "free,high"}.
    """

    def __init__(self, database_url: str, *, folder: Path, settings: Mapping[str, str]) -> None:
        self.database_url = database_url
        begin = settings.get("sandbox_clock")
        self.api_key = meter.app.create_installation_key(
            database_url,
            key_pepper=PEPPER,
            description="for tests",
            sandbox_clock_ms=None if begin is None else to_ms(datetime.fromisoformat(begin)),
        )
        self.target = "127.0.0.1:0"
        self.http = "127.0.0.1:0"
        self.otlp_grpc = self.otlp_http = "127.0.0.1:0"
        self.log = folder / "meter.log"
        self._pepper_file = folder / "key-pepper"
        self._pepper_file.touch(mode=0o600)
        self._pepper_file.write_text(PEPPER.hex(), "ascii")
        self._settings = settings
        self._process: forks.Forked | subprocess.Popen[str] | None = None
        self._held = ExitStack()

    @property
    def pid(self) -> int | None:
        """The number of the process; None while there is none."""
        return None if self._process is None else self._process.pid

    @property
    def environment(self) -> dict[str, str]:
        """What a `tokenworks` command needs to reach this meter, and nothing else of ours."""
        return os.environ | {"TOKENWORKS_SERVER": self.target, "TOKENWORKS_API_KEY": self.api_key}

    def start(self) -> None:
        """Start the process; returns when it serves."""
        assert self._process is None
        given = {
            "database_url": self.database_url,
            "key_pepper_file": str(self._pepper_file),
            "grpc_address": self.target,
            "http_address": self.http,
            "otlp_grpc_address": self.otlp_grpc,
            "otlp_http_address": self.otlp_http,
            **self._settings,
        }
        environment = {f"TOKENWORKS_{name.upper()}": value for name, value in given.items()}
        with self.log.open("ab") as log:
            self._process = forks.start(
                [str(TOKENWORKS), "serve", "--json"],
                environment=os.environ | environment,
                stderr=log,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._end()
            raise AssertionError(f"the meter did not start:\n{self.log.read_text('utf-8')}")
        addresses = json.loads(line)
        self.target = addresses["grpc"]
        self.http = addresses["http"]
        self.otlp_grpc = addresses["otlp_grpc"] or self.otlp_grpc
        self.otlp_http = addresses["otlp_http"] or self.otlp_http
        self._held.close()

    def stop(self) -> int:
        """Ask the process to stop, as an operator does; returns its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._end()

    def kill(self) -> None:
        """End the process without notice, as `kill -9` does."""
        assert self._process is not None
        self._process.kill()
        self._end()

    def restart(self) -> None:
        """Start it again on the same ports, after a kill or a stop; a running one is killed."""
        if self._process is not None:
            self.kill()
        self.start()

    def close(self) -> None:
        """End it if it runs."""
        if self._process is not None:
            self.kill()
        self._held.close()

    def _end(self) -> int:
        process, self._process = self._process, None
        assert process is not None
        assert process.stdout is not None
        try:
            return process.wait(timeout=STOP_SECONDS_MAX)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
            self._hold_ports()

    def _hold_ports(self) -> None:
        """Keep other servers from its ports while it is away; nobody listens there."""
        for address in (self.target, self.http, self.otlp_grpc, self.otlp_http):
            host, _, port = address.rpartition(":")
            if port != "0":
                holder = self._held.enter_context(socket.socket())
                holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                holder.bind((host, int(port)))


@contextmanager
def running_meter_on(
    database_url: str, *, folder: Path, settings: Mapping[str, str] | None = None
) -> Iterator[RunningMeter]:
    """A meter for the time of the block; `folder` takes its files."""
    running = RunningMeter(database_url, folder=folder, settings=settings or {})
    running.start()
    try:
        yield running
    finally:
        running.close()
