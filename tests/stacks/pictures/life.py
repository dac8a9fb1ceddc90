"""The made-up factory lives through a quarter of a year, metered and billed by the real service.

The clock is a sandbox's: weeks go by in steps of hours, the last days in steps of a quarter of an
hour, and the last hours minute by minute, each of which is scraped as Prometheus would scrape it.
"""

import contextlib
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.cli.shell import Shell
from tests.running_meter import RunningMeter, running_meter_on
from tests.stacks.pictures.terms import BOOK, contract, describe
from tests.stacks.pictures.world import CUSTOMERS, POOLS, PoolMade, Served, World
from tests.wire.session import Response, Session, event, opening, rows
from tests.wire.talk import Talk, read_http, talking, wait_until
from tokenworks.meter.v1 import usage_pb2
from tokenworks.meter.v1.clock_service_pb2 import AdvanceClockRequest
from tokenworks.meter.v1.clock_service_pb2_grpc import ClockServiceStub
from tokenworks.meter.v1.energy_service_pb2 import (
    ENERGY_BOUNDARY_BOARD,
    ENERGY_BOUNDARY_FACILITY,
    ENERGY_BOUNDARY_HOST,
    EnergyReading,
    MarkSoftwareRequest,
    RecordEnergyRequest,
    SetFactoryRequest,
)
from tokenworks.meter.v1.energy_service_pb2_grpc import EnergyServiceStub
from tokenworks.meter.v1.meter_service_pb2 import RecordUsageRequest
from tokenworks.meter.v1.meter_service_pb2_grpc import MeterServiceStub

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
STREAM_SECONDS_MAX = 900
# Requests of a minute that several report.
OBSERVED_COUNT = 30
# The site that has a meter of its own.
METERED_SITE = "oslo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Calendar:
    """When it lives: energy is read each `step` from `metered` on, each minute from `watched` on.

    A pool goes down for some of those minutes, and comes back with counters that begin anew.
    `months` are closed when they have ended.
    """

    begin: datetime
    metered: datetime
    step: timedelta
    watched: datetime
    end: datetime
    months: tuple[str, ...]
    down: range


LONG = Calendar(
    begin=datetime(2026, 8, 1, tzinfo=UTC),
    metered=datetime(2026, 11, 10, 15, tzinfo=UTC),
    step=timedelta(minutes=15),
    watched=datetime(2026, 11, 12, 13, 30, tzinfo=UTC),
    end=datetime(2026, 11, 12, 15, tzinfo=UTC),
    months=("2026-08", "2026-09", "2026-10"),
    down=range(38, 62),
)
SHORT = Calendar(
    begin=datetime(2026, 10, 30, tzinfo=UTC),
    metered=datetime(2026, 11, 2, 12, tzinfo=UTC),
    # Gauges are held against counters where they are read so often, for most of an hour.
    step=timedelta(minutes=5),
    watched=datetime(2026, 11, 2, 13, tzinfo=UTC),
    end=datetime(2026, 11, 2, 13, 9, tzinfo=UTC),
    months=("2026-10",),
    down=range(0),
)
DOWN = "reno-h200"


class PatientSession(Session):
    """A session whose streams may last for as long as a life does."""

    def stream(self, messages: Iterable[Any]) -> Iterator[Response]:
        """Open a stream that sends these messages."""
        responses: Iterator[Response] = MeterServiceStub(self.channel).StreamUsage(
            iter(messages), metadata=self.metadata, timeout=STREAM_SECONDS_MAX
        )
        return responses


@dataclass(slots=True)
class Life:
    """The service and the world beside each other; `scraped` is what Prometheus reads later."""

    meter: RunningMeter
    world: World
    session: Session
    calendar: Calendar
    scraped: list[str] = field(default_factory=list)
    reported_count: int = 0
    # What the counters of the pool that was down had come to, before they began anew.
    before_mj: Sequence[int] = ()

    def set_up(self, folder: Path) -> None:
        """Create accounts, prices, contracts, and the description of the factory."""
        shell = Shell(self.meter.target, self.meter.api_key)
        (folder / "book.toml").write_text(BOOK, "utf-8")
        shell.run("prices", "import", str(folder / "book.toml"))
        for account in CUSTOMERS:
            self.session.create_account(account)
            (folder / "contract.toml").write_text(contract(account), "utf-8")
            shell.run("contracts", "set", str(folder / "contract.toml"))
        self._energy("SetFactory", SetFactoryRequest(toml=describe()))

    def pass_months(self) -> None:
        """Weeks without an energy meter, and the invoices for them."""
        shell = Shell(self.meter.target, self.meter.api_key)
        months = list(self.calendar.months)
        while self.world.now < self.calendar.metered:
            served = list(self.world.live(DAY / 4, request_scale=3_000))
            self._advance()
            self._record(served)
            if months and f"{self.world.now:%Y-%m-%d}" > f"{months[0]}-31":
                shell.run("billing", "close", months.pop(0), "--early")

    def pass_days(self) -> None:
        """Days whose energy is read each quarter of an hour, or more often."""
        for name, pool in POOLS.items():
            self._mark(name, pool.software)
        while self.world.now < self.calendar.watched:
            served = list(self.world.live(self.calendar.step, request_scale=40))
            self._advance()
            self._record(served)
            self._read_energy(skipped=())

    def pass_minutes(self) -> None:
        """Hours that Prometheus watches: a producer a pool reports as it goes."""
        with contextlib.ExitStack() as stack:
            talks = {name: stack.enter_context(talking(self.session)) for name in POOLS}
            for number, (name, talk) in enumerate(talks.items()):
                talk.say(opening(f"node-{name}", instance=bytes([number]) * 16, first_sequence=1))
                talk.hear()
            minute = 0
            while self.world.now < self.calendar.end:
                minute += 1
                down = (DOWN,) if minute in self.calendar.down else ()
                if down:
                    self.before_mj = list(self.world.board_mj[DOWN])
                served = list(self.world.live(MINUTE, request_scale=1, down=down))
                self._advance()
                self._mishap(minute)
                self._stream(talks, served=served, sequence=minute)
                self._observe(served)
                self._read_energy(skipped=down)
                self._wait_until_settled()
                self._scrape()

    def _advance(self) -> None:
        request = AdvanceClockRequest()
        request.to.FromDatetime(self.world.now)
        self._call(ClockServiceStub(self.session.channel).AdvanceClock, request)

    def _record(self, served: Sequence[Served]) -> None:
        events = list(self._events(served))
        for begin in range(0, len(events), 1_000):
            self.session.record(*events[begin : begin + 1_000])
        self._wait_until_counted(len(events))

    def _stream(self, talks: dict[str, Talk], *, served: Sequence[Served], sequence: int) -> None:
        for name, talk in talks.items():
            events = self._events([each for each in served if each.pool == name])
            talk.say(rows(sequence, *events))
        for talk in talks.values():
            talk.hear()
        self._wait_until_counted(sum(each.request_count for each in served))

    def _observe(self, served: Sequence[Served]) -> None:
        """Some more requests, each reported by its engine and by the gateway before it."""
        events = list(islice(self._events(served), OBSERVED_COUNT))
        for each in events:
            each.request_id = each.event_id
        for source in (usage_pb2.SOURCE_SPAN, usage_pb2.SOURCE_ENVOY):
            request = RecordUsageRequest(events=events, source=source)
            self.session.call("RecordUsage", request)
        self._wait_until_counted(len(events))

    def _events(self, served: Sequence[Served]) -> Iterator[usage_pb2.UsageEvent]:
        drawn = random.Random(self.world.now.timestamp())
        now_ms = int(self.world.now.timestamp() * 1000)
        for each in served:
            tokens = {
                usage_pb2.TOKEN_CLASS_INPUT: each.prompt_tokens,
                usage_pb2.TOKEN_CLASS_CACHE_READ: each.cached_tokens,
                usage_pb2.TOKEN_CLASS_OUTPUT: each.output_tokens,
            }
            for _ in range(each.request_count):
                lag_ms = int(drawn.lognormvariate(-0.8, 0.7) * 1000)
                is_cancelled = drawn.random() < 0.02
                yield event(
                    each.account,
                    model=each.model,
                    tier=each.tier,
                    pool=each.pool,
                    tokens=tokens,
                    end_ms=now_ms - min(lag_ms, 50_000),
                    finish=usage_pb2.FINISH_CANCELLED
                    if is_cancelled
                    else usage_pb2.FINISH_COMPLETED,
                )

    def _wait_until_counted(self, event_count: int) -> None:
        self.reported_count += event_count
        wait_until(lambda: sum(self._shown("tokenworks_requests_total")) == self.reported_count)

    def _wait_until_settled(self) -> None:
        """Once the newest sample is shown, its energy has been shared out."""
        now = self.world.now.timestamp()
        wait_until(lambda: now in self._shown("tokenworks_energy_last_sample_timestamp_seconds"))

    def _shown(self, name: str) -> list[float]:
        """The values of a metric now."""
        _, page = read_http(self.meter, "/metrics")
        return [
            float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith(name)
        ]

    def _read_energy(self, *, skipped: Sequence[str]) -> None:
        readings: list[EnergyReading] = []
        for name, pool in POOLS.items():
            if name not in skipped:
                readings += self._readings_of(name, pool)
        readings.append(
            EnergyReading(
                device=f"meter-{METERED_SITE}",
                site=METERED_SITE,
                boundary=ENERGY_BOUNDARY_FACILITY,
                counter_mj=self.world.site_mj[METERED_SITE],
            )
        )
        for reading in readings:
            reading.time.FromDatetime(self.world.now)
        self._energy("RecordEnergy", RecordEnergyRequest(readings=readings))

    def _readings_of(self, name: str, pool: PoolMade) -> Iterator[EnergyReading]:
        for index, counter in enumerate(self.world.board_mj[name]):
            before_mj = self.before_mj[index] if name == DOWN and self.before_mj else 0
            yield EnergyReading(
                pool=name,
                device=f"GPU-{name}-{index}",
                boundary=ENERGY_BOUNDARY_BOARD,
                counter_mj=counter - before_mj,
                power_mw=self.world.board_mw[name][index],
            )
        if pool.site == METERED_SITE:
            yield EnergyReading(
                pool=name,
                device=f"host-{name}",
                boundary=ENERGY_BOUNDARY_HOST,
                counter_mj=self.world.host_mj[name],
            )

    def _mishap(self, minute: int) -> None:
        """Now and then somebody errs: an account that nobody knows, a key that is none."""
        if minute == 5:
            now_ms = int(self.world.now.timestamp() * 1000)
            self.session.record(event("nobody", end_ms=now_ms))
        if minute % 11 == 0:
            stranger = Session(self.meter, api_key="tw_nobody")
            with pytest.raises(grpc.RpcError):
                stranger.record(event())

    def _scrape(self) -> None:
        _, page = read_http(self.meter, "/metrics")
        at = self.world.now.timestamp()
        self.scraped += [
            f"{_with_target(line)} {at:.0f}"
            for line in page.splitlines()
            if line and not line.startswith("#")
        ]

    def _mark(self, pool: str, software: str) -> None:
        request = MarkSoftwareRequest(pool=pool, software=software)
        request.time.FromDatetime(self.world.now)
        self._energy("MarkSoftware", request)

    def _energy(self, name: str, request: Any) -> None:  # noqa: ANN401 - any of its messages
        self._call(getattr(EnergyServiceStub(self.session.channel), name), request)

    def _call(self, method: Callable[..., Any], request: Any) -> None:  # noqa: ANN401
        method(request, metadata=self.session.metadata, timeout=120)


def _with_target(line: str) -> str:
    """A sample as Prometheus keeps it: with the names of what was scraped."""
    name, brace, rest = line.partition("{")
    labels = 'job="tokenworks",instance="meter:7412"'
    if brace:
        return f"{name}{{{labels},{rest}"
    name, _, value = line.partition(" ")
    return f"{name}{{{labels}}} {value}"


@contextlib.contextmanager
def lived_life(database_url: str, *, calendar: Calendar, folder: Path) -> Iterator[Life]:
    """All that a calendar has, after which the service goes on for the time of the block."""
    settings = {
        "sandbox_clock": calendar.begin.isoformat(),
        "customer_metrics_max": "5",
        # How often, by the real clock, energy is shared out: before each scrape here.
        "energy_scrape_seconds": "1",
    }
    with running_meter_on(database_url, folder=folder, settings=settings) as meter:
        life = Life(
            meter=meter,
            world=World(calendar.begin),
            session=PatientSession(meter),
            calendar=calendar,
        )
        life.set_up(folder)
        life.pass_months()
        life.pass_days()
        life.pass_minutes()
        yield life
