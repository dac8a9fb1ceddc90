"""The demo's installation: a `tokenworks up` that is started, killed, taken up again and stopped.

The demo knows of it what an operator's shell does: the command, its output, its folder.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import grpc

from cli.connection import Client, Target, explain, open_channel
from cli.demo.world import BEGIN
from cli.process import CommandError
from tokenworks.billing.v1.billing_service_pb2_grpc import BillingServiceStub
from tokenworks.meter.v1.account_service_pb2_grpc import AccountServiceStub
from tokenworks.meter.v1.audit_service_pb2_grpc import AuditServiceStub
from tokenworks.meter.v1.clock_service_pb2_grpc import ClockServiceStub
from tokenworks.meter.v1.energy_service_pb2_grpc import EnergyServiceStub
from tokenworks.meter.v1.engine_service_pb2_grpc import EngineServiceStub
from tokenworks.meter.v1.meter_service_pb2_grpc import MeterServiceStub
from tokenworks.meter.v1.producer_service_pb2_grpc import ProducerServiceStub

TOKENWORKS: Final = Path(sys.executable).with_name("tokenworks")
# A small fixed environment: settings of whoever runs the demo are for other installations.
_ENVIRONMENT: Final = {"PATH": os.defpath, "PYTHONUTF8": "1", "TZ": "UTC"}
_ANY_PORT: Final = "127.0.0.1:0"
_STOP_SECONDS_MAX: Final = 60.0
_COMMAND_SECONDS_MAX: Final = 300.0
_POLL_SECONDS: Final = 0.02


class Installation:
    """A folder that `up` runs in; `log` takes what it says."""

    def __init__(self, folder: Path, *, energy_sources: Mapping[str, str], log: Path) -> None:
        """Take where it is to be, and the page of each pool's exporter."""
        self.folder = folder
        self._log = log
        self._settings = {
            "TOKENWORKS_SANDBOX_CLOCK": BEGIN.isoformat().replace("+00:00", "Z"),
            "TOKENWORKS_ENERGY_SOURCES": ",".join(
                f"{pool}={url}" for pool, url in energy_sources.items()
            ),
        }
        self._process: subprocess.Popen[str] | None = None
        self._told: dict[str, Any] = {}

    @property
    def target(self) -> str:
        """Where it listens for gRPC, host:port; the same after a restart."""
        return str(self._told["grpc"])

    @property
    def api_key(self) -> str:
        """The key that may do everything."""
        path = self.folder / "credentials.json"
        return str(json.loads(path.read_text("utf-8"))["api_key"])

    @property
    def database(self) -> tuple[str, str]:
        """The URL of its Postgres, without the password, and the password."""
        password = (self.folder / "postgres" / "password").read_text("ascii").strip()
        return str(self._told["postgres"]), password

    def start(self) -> float:
        """Start it, on the ports of before if there were any; returns the seconds that it took.

        Raises CommandError when it does not come up.
        """
        assert self._process is None
        begin = time.monotonic()
        flags = ("--dir", str(self.folder), "--json")
        grpc_address = ("--grpc-address", self._told.get("grpc", _ANY_PORT))
        http_address = ("--http-address", self._told.get("http", _ANY_PORT))
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [TOKENWORKS, "up", *flags, *grpc_address, *http_address],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=_ENVIRONMENT | self._settings,
                text=True,
                # Ctrl-C reaches the demo alone, which then stops everything in order.
                start_new_session=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._wait()
            raise CommandError(f"the installation does not start; it said why in {self._log}")
        self._told = json.loads(line)
        return time.monotonic() - begin

    def freeze(self) -> None:
        """Stop the process of the meter where it is, as `kill -STOP` does: it answers no more."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """End the process of the meter without notice, as `kill -9` does; Postgres lives on."""
        assert self._process is not None
        self._process.kill()
        self._wait()

    def stop(self) -> None:
        """Stop all of it, Postgres included; harmless when nothing runs."""
        if self._process is not None:
            # One that is frozen could not hear it.
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            self._wait()
        self._stop_orphan()

    def run(self, *words: str) -> tuple[str, str | None]:
        """Run `tokenworks WORDS…` here; returns what it printed, and why it failed, if it did."""
        environment = {"TOKENWORKS_CREDENTIALS_FILE": str(self.folder / "credentials.json")}
        result = subprocess.run(
            [TOKENWORKS, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=_ENVIRONMENT | environment,
            text=True,
            timeout=_COMMAND_SECONDS_MAX,
            check=False,
        )
        if result.returncode:
            said = result.stderr.strip().splitlines()
            why = said[-1] if said else f"exit code {result.returncode}"
            return result.stdout, f"tokenworks {' '.join(words)}: {why}"
        return result.stdout, None

    @contextmanager
    def connected(self) -> Iterator[Client]:
        """A client that may do everything; failed calls in the block become a CommandError."""
        target = Target(address=self.target, api_key=self.api_key, tls=False)
        with open_channel(target) as channel:
            try:
                yield Client(
                    meter=MeterServiceStub(channel),
                    accounts=AccountServiceStub(channel),
                    clock=ClockServiceStub(channel),
                    billing=BillingServiceStub(channel),
                    energy=EnergyServiceStub(channel),
                    engines=EngineServiceStub(channel),
                    producers=ProducerServiceStub(channel),
                    audit=AuditServiceStub(channel),
                    as_json=False,
                )
            except grpc.RpcError as error:
                raise explain(error, address=self.target) from error

    def _wait(self) -> None:
        process, self._process = self._process, None
        assert process is not None
        assert process.stdout is not None
        try:
            process.wait(_STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def _stop_orphan(self) -> None:
        """Stop the Postgres of an `up` that was killed and not taken up again."""
        pid_file = self.folder / "postgres" / "data" / "postmaster.pid"
        try:
            pid = int(pid_file.read_text("ascii").split("\n", 1)[0])
            os.kill(pid, signal.SIGINT)
        except (FileNotFoundError, ProcessLookupError):
            return
        give_up_time = time.monotonic() + _STOP_SECONDS_MAX
        while pid_file.exists() and time.monotonic() < give_up_time:
            time.sleep(_POLL_SECONDS)
