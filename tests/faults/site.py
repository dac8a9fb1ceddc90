"""Where one row takes place: Postgres, meter, proxies and reporting processes of its own."""

import inspect
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import psycopg

from tests.faults import bills, verdict
from tests.faults.fleet import Sender
from tests.faults.plant import (
    BOOK,
    ROOT_ACCOUNT,
    TOKENWORKS,
    Database,
    MeterProcess,
    Template,
    run_command,
)
from tests.faults.proxy import Proxy
from tests.faults.reporter import Orders
from tests.faults.row import Skipped
from tests.faults.waiting import TookTooLong, wait_until
from tokenworks.client import Meter

SECONDS_DEFAULT: Final = 6.0
DRAIN_SECONDS_MAX: Final = 90.0
_COUNT_SECONDS_MAX: Final = 60.0
_RATE: Final = 2_000
_CALLER_RATE: Final = 200
HAS_SPOOL: Final = "spool" in inspect.signature(Meter).parameters
_BEHIND: Final = (
    "SELECT count(*) FROM shards s LEFT JOIN counting c USING (shard)"
    " WHERE s.position > coalesce(c.position, 0)"
)


class Site:
    """A running meter behind a proxy, and what reports to it."""

    def __init__(
        self, template: Template, *, folder: Path, seconds: float, behind_proxy: bool
    ) -> None:
        """Copy the template and prepare; nothing runs before `start`."""
        self.folder = folder
        self.seconds = seconds
        self.api_key = template.api_key
        self.senders: list[Sender] = []
        self.killed: set[str] = set()
        """Names of other truths whose sender was killed in the midst."""
        self._stack = ExitStack()
        self._template = template
        self._behind_proxy = behind_proxy
        folder.mkdir(parents=True)
        (folder / "truth").mkdir()
        (folder / "said").mkdir()
        self.pepper_folder = template.folder
        self.database = Database.copied(template, folder=folder)
        self.later = self._stack.callback
        """Registers what has to be undone at the end."""

    def start(self, *, meter_environment: Mapping[str, str] | None = None) -> None:
        """Start Postgres, the proxies and the meter."""
        self.later(self.database.close)
        self.database.start()
        url = self.database.url
        if self._behind_proxy:
            self.database_proxy = Proxy(f"127.0.0.1:{self.database.port}")
            self.later(self.database_proxy.close)
            parts = urlsplit(url)
            place = f"{parts.username}:{parts.password}@{self.database_proxy.address}"
            url = urlunsplit(parts._replace(netloc=place))
        self.meter = self.make_meter("meter", url=url, environment=meter_environment)
        self.meter.start()
        self.proxy = Proxy(self.meter.grpc)
        self.later(self.proxy.close)

    def make_meter(
        self, name: str, *, url: str | None = None, environment: Mapping[str, str] | None = None
    ) -> MeterProcess:
        """Make a meter over the database; it is not started."""
        meter = MeterProcess(
            url or self.database.url,
            folder=self.folder,
            pepper=self.pepper_folder / "key-pepper",
            name=name,
            environment=environment,
        )
        self.later(meter.close)
        return meter

    def close(self) -> None:
        """Leave nothing running and nothing mounted."""
        for sender in self.senders:
            sender.close()
        self._stack.close()

    def spool(self, **changes: object) -> dict[str, Any]:
        """Return the client's arguments that make it keep a spool, where it can."""
        if not HAS_SPOOL:
            return {}
        return {"spool": str(self.folder / "spool"), "fsync": "batch", **changes}

    def need_spool(self) -> None:
        """Raise Skipped where the client has no spool."""
        if not HAS_SPOOL:
            raise Skipped("the client has no spool")

    def remove_spool(self, producer: str) -> int:
        """Delete a producer's spool; returns how many files it had."""
        folder = self.folder / "spool" / producer
        count = sum(1 for path in folder.rglob("*") if path.is_file())
        shutil.rmtree(folder)
        return count

    def copy_spool(self) -> Path:
        """Copy the folder of all spools, as a cloned machine would have it; returns the copy."""
        return shutil.copytree(self.folder / "spool", self.folder / "cloned" / "spool")

    def report(
        self,
        name: str,
        *,
        producer: str | None = None,
        client: Mapping[str, object] | None = None,
        rate: int = _RATE,
        target: str | None = None,
        environment: Mapping[str, str] | None = None,
        program: str = "reporter",
    ) -> Sender:
        """Start a process that reports with the client, by default with a spool where it can.

        The truth of a `runner` lies apart: only some of what it says is to be counted.
        """
        place = "truth" if program == "reporter" else "said"
        orders = Orders(
            target=target or self.proxy.address,
            # A certificate that is shown is what the sender's key is bound to.
            api_key=None if "client_certificate" in (client or {}) else self.api_key,
            producer=producer or name,
            truth=str(self.folder / place / f"{name}.jsonl"),
            latencies=str(self.folder / f"{name}.latencies"),
            rate=rate,
            client=dict(self.spool() if client is None else client),
        )
        return self._add(Sender(program, orders, environment=environment))

    def call(self, name: str, *, rate: int = _CALLER_RATE, naive: bool = False) -> Sender:
        """Start a process that reports by unary calls; `naive` repeats them under new ids."""
        orders = Orders(
            target=self.proxy.address,
            api_key=self.api_key,
            producer=name,
            truth=str(self.folder / "truth" / f"{name}.jsonl"),
            latencies=str(self.folder / f"{name}.latencies"),
            rate=rate,
            client={"naive": naive},
        )
        return self._add(Sender("caller", orders))

    def start_fleet(self, *, spool: bool = True) -> list[Sender]:
        """Start what most rows have: two reporters and one that calls."""
        client: dict[str, object] | None = None if spool else {}
        senders = [self.report("east", client=client), self.report("west", client=client)]
        return [*senders, self.call("unary")]

    def load(self, seconds: float | None = None) -> None:
        """Let the fleet report: half of the load, or some seconds of the default length."""
        time.sleep(self.seconds / 2 if seconds is None else self.scaled(seconds))

    def hold(self) -> None:
        """Have the fleet make up no more events; what it has, it delivers."""
        for sender in self.senders:
            if sender.is_running:
                sender.say("hold")
        # A chunk that is under way is written down within moments.
        time.sleep(0.3)

    def scaled(self, seconds: float) -> float:
        """Return a length of the full run, as long as this run's lengths are."""
        return seconds * self.seconds / SECONDS_DEFAULT

    def position(self) -> int:
        """Return how many segments the journal has."""
        return self.database.question("SELECT coalesce(sum(position), 0) FROM shards")

    def wait_for_progress(self, *, seconds_max: float = 30) -> None:
        """Wait until the journal grows."""
        begin = self.position()
        wait_until(
            lambda: self.position() > begin, seconds_max=seconds_max, what="the journal grows"
        )

    def wait_for_progress_after_restart(self) -> None:
        """Wait until Postgres, which restarts itself, answers, and then until the journal grows."""

        def answers() -> bool:
            try:
                return self.position() >= 0
            except psycopg.OperationalError:
                return False

        wait_until(answers, seconds_max=60, what="Postgres answers")
        self.wait_for_progress(seconds_max=60)

    @contextmanager
    def commits_held(self) -> Iterator[None]:
        """Keep the journal's transactions waiting, for the time of the block, to claim event ids.

        A commit is sent with what comes behind that, and done by whoever has received it.
        """
        with psycopg.connect(self.database.url, connect_timeout=10) as holder:
            holder.execute("LOCK TABLE event_claims IN SHARE MODE")
            yield

    @contextmanager
    def counting_held(self, shard: int) -> Iterator[None]:
        """Keep the counting of a shard waiting for the time of the block."""
        with psycopg.connect(self.database.url, connect_timeout=10) as holder:
            holder.execute("SELECT 1 FROM counting WHERE shard = %s FOR UPDATE", (shard,))
            yield

    def drain(self, *, seconds_max: float = DRAIN_SECONDS_MAX) -> str:
        """Have all senders deliver what they hold; returns what went wrong, or nothing."""
        running = [sender for sender in self.senders if sender.is_running and sender.told is None]
        for sender in running:
            sender.begin_draining(seconds_max)
        wrong = []
        for sender in running:
            told = sender.finish(seconds_max + 15)
            if not told["flushed"] and told.get("state") != "taken_over":
                wrong.append(f"{sender.name} did not deliver all: {told}")
        return "; ".join(wrong)

    def read_truth(self) -> verdict.Truth:
        """Read all that was sent."""
        killed = [sender.name for sender in self.senders if sender.was_killed and _spools(sender)]
        paths = sorted((self.folder / "truth").glob("*.jsonl"))
        return verdict.read_truth(paths, killed=[*killed, *self.killed])

    def judge(self) -> verdict.Verdict:
        """Compare truth, journal, usage and invoices once all is counted."""
        wait_until(
            lambda: self.database.question(_BEHIND) == 0,
            seconds_max=_COUNT_SECONDS_MAX,
            what="all is counted",
        )
        truth = self.read_truth()
        found = verdict.read_database(self.database.url)
        judged = verdict.judge(truth, found=found)
        if judged.difference is not None or judged.doubled:
            return judged
        return verdict.with_difference(
            judged, self._find_wrong_bill(verdict.counted_events(truth, found=found))
        )

    def audit(self, *, seconds_max: float) -> str:
        """Have the product's own audit look at the same data; returns what it finds wrong."""
        done = subprocess.run(
            [TOKENWORKS, "doctor", "--audit"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=os.environ | {"TOKENWORKS_DATABASE_URL": self.database.url},
            text=True,
            check=False,
            timeout=seconds_max,
        )
        if done.returncode == 0:
            return ""
        told = (done.stdout + done.stderr).strip().splitlines()
        failed = [line for line in told if "fail" in line.lower()] or told[-1:]
        return f"doctor --audit ended with {done.returncode}: {' · '.join(failed)[:500]}"

    def _find_wrong_bill(self, events: Iterable[Mapping[str, Any]]) -> str | None:
        prices = bills.read_prices(BOOK)
        known = list(events)
        for month in sorted({bills.month_of(event["end_time_ms"]) for event in known}):
            printed = run_command(
                "invoices", "preview", ROOT_ACCOUNT, "--month", month, "--json",
                server=self.meter.grpc, api_key=self.api_key,
            )  # fmt: skip
            previews = json.loads(printed)
            if len(previews) != 1:
                return f"invoice: {len(previews)} previews of {month}, not one"
            expected = bills.bill(known, prices=prices, month=month)
            difference = bills.find_difference(expected, previews[0])
            if difference is not None:
                return difference
        return None

    def _add(self, sender: Sender) -> Sender:
        self.senders.append(sender)
        return sender


def latencies_ms(sender: Sender, *, begin: float, end: float) -> list[float]:
    """Return how long chunks recorded in a span (monotonic seconds) took to be acknowledged."""
    path = Path(sender.orders.latencies)
    pairs = [line.split() for line in path.read_text("ascii").splitlines()]
    return [float(ms) for at, ms in pairs if begin <= float(at) < end]


def p99(values: list[float]) -> float:
    """Return the value that 99 of 100 do not exceed; raises TookTooLong where there are none."""
    if not values:
        raise TookTooLong("nothing was acknowledged in the span that is asked for")
    return sorted(values)[min(len(values) * 99 // 100, len(values) - 1)]


def _spools(sender: Sender) -> bool:
    return "spool" in sender.orders.client
