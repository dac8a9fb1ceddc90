"""A meter while it runs: its writer, its follower and its watchers, from start to end."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass

from meter.certificates import KeptCertificates
from meter.counting.follower import Follower
from meter.domain.clock import Clock
from meter.domain.errors import MeterError
from meter.domain.limits import CLAIM_KEPT_MS
from meter.energy.described import DescribedFactory
from meter.energy.recorder import EnergyRecorder
from meter.engines.watch import EngineWatch
from meter.http import HttpServer
from meter.journal.writer import JournalWriter
from meter.leases import Leases
from meter.metrics import Metrics
from meter.presence import Roster
from meter.readiness import Readiness, SchemaLook
from meter.registry import Registry
from meter.runtime.driven_clock import ClockDriver
from meter.standbys import Standbys
from meter.store.arbitration import ArbitrationStore
from meter.store.folding import FoldStore
from meter.store.journal import JournalStore
from meter.store.quarantine import QuarantineStore
from meter.store.usage import UsageStore
from meter.upkeep import Upkeep
from meter.wire.arbitration import Arbiter
from meter.wire.server import Server

_log = logging.getLogger(__name__)
# A change of an account or a key reaches every server within twice this.
_REGISTRY_SECONDS = 1.0
_WATCH_SECONDS = 2.0
_FORGET_SECONDS = 3600.0
# A better report takes the place of the counted one within this and a commit.
_ARBITER_SECONDS = 1.0
_UPKEEP_SECONDS = 60.0
# Within this a certificate that was renewed is in use.
_CERTIFICATE_SECONDS = 1.0
# How long what is recorded waits at least before it is known to be durable.
_LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """The parts that run, and those that they are watched by."""

    registry: Registry
    leases: Leases
    journal: JournalStore
    writer: JournalWriter
    follower: Follower
    usage: UsageStore
    folding: FoldStore
    upkeep: Upkeep
    quarantine: QuarantineStore
    arbitration: ArbitrationStore
    arbiter: Arbiter
    roster: Roster
    standbys: Standbys | None
    metrics: Metrics
    clock: Clock
    driver: ClockDriver | None
    energy: EnergyRecorder
    engines: EngineWatch
    described: DescribedFactory
    looks: Sequence[Callable[[], None]]
    energy_scrape_seconds: int
    server: Server
    http: HttpServer
    otlp_http: Sequence[HttpServer]
    certificates: KeptCertificates | None
    readiness: Readiness
    schema: SchemaLook
    reachable: threading.Event
    dying: asyncio.Event

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the writer, the follower and the watchers; end them in the order of the flow."""
        writing = asyncio.create_task(self.writer.run())
        watching = [
            asyncio.create_task(_every(_REGISTRY_SECONDS, self._refresh)),
            asyncio.create_task(_every(_WATCH_SECONDS, self._watch)),
            asyncio.create_task(_every(_WATCH_SECONDS, self.roster.round)),
            asyncio.create_task(_every(_ARBITER_SECONDS, self._arbitrate)),
            asyncio.create_task(_every(_FORGET_SECONDS, self._forget)),
            asyncio.create_task(self._measure()),
            asyncio.create_task(self._read_engines()),
            asyncio.create_task(_every(_WATCH_SECONDS, self._attribute)),
            asyncio.create_task(_every(_WATCH_SECONDS, self._fold)),
            asyncio.create_task(_every(_UPKEEP_SECONDS, self._keep_journal)),
            asyncio.create_task(_every(_WATCH_SECONDS, self._look_at_schema)),
        ]
        if self.standbys is not None:
            watching.append(asyncio.create_task(_every(_LOOK_SECONDS, self.standbys.round)))
        if self.certificates is not None:
            look = self.certificates.look
            watching.append(asyncio.create_task(_every_in_thread(_CERTIFICATE_SECONDS, look)))
        for task in (writing, *watching):
            task.add_done_callback(self._ended)
        self.leases.start()
        self.follower.start()
        try:
            yield
        finally:
            self.writer.stop()
            await writing
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
            await asyncio.to_thread(self.energy.stop)
            await asyncio.to_thread(self.engines.stop)
            await asyncio.to_thread(self.follower.stop)
            # Last: until then it is counted by this process, and by no other.
            await asyncio.to_thread(self.leases.stop)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        # A meter without its writer or its watchers would look alive: keys that were revoked
        # would go on, and nothing would be counted. It ends, and is started anew.
        if not task.cancelled() and task.exception() is not None:
            _log.error("part_ended", exc_info=task.exception())
            self.dying.set()

    async def _refresh(self) -> None:
        reached = self.reachable.is_set()
        try:
            await asyncio.to_thread(self.registry.refresh)
            if self.driver is not None:
                await asyncio.to_thread(self.driver.follow)
            self.reachable.set()
        except MeterError as error:
            self.reachable.clear()
            if reached:
                _log.warning("database_lost", extra={"cause": error.cause})
        if reached != self.reachable.is_set():
            if not reached:
                _log.warning("database_reachable")
            await self.server.set_serving(serving=self.reachable.is_set())

    async def _watch(self) -> None:
        with _absent_store():
            lag, oldest_ms = await asyncio.to_thread(self.usage.lag)
            self.metrics.counting_lag.set(lag)
            behind_ms = 0 if oldest_ms is None else max(0, self.clock.now_ms() - oldest_ms)
            self.metrics.counting_behind.set(behind_ms / 1000)
            await self._watch_own_shard()
            held = await asyncio.to_thread(self.quarantine.held_count)
            self.metrics.quarantine_held.set(held)
            waiting = await asyncio.to_thread(self.arbitration.waiting_count)
            self.metrics.observations_waiting.set(waiting)
            await asyncio.to_thread(self.described.look)
            for look in self.looks:
                await asyncio.to_thread(look)

    async def _watch_own_shard(self) -> None:
        # What another server is behind with is no reason to send its producers away from here too.
        oldest_ms = await asyncio.to_thread(self.usage.find_own_oldest_ms)
        # A driven clock leaps: what was recorded before is a day behind for a moment.
        if oldest_ms is None or self.driver is not None:
            self.readiness.note_counting(0.0)
        else:
            self.readiness.note_counting((self.clock.now_ms() - oldest_ms) / 1000)

    async def _look_at_schema(self) -> None:
        with _absent_store():
            self.readiness.note_schema(await asyncio.to_thread(self.schema))

    async def _forget(self) -> None:
        with _absent_store():
            before_ms = self.clock.now_ms() - CLAIM_KEPT_MS
            await asyncio.to_thread(self.journal.forget_claims, before_ms=before_ms)
            await asyncio.to_thread(
                self.arbitration.forget,
                before_ms=before_ms,
                originals_before_ms=max(before_ms, self.upkeep.kept_from_ms()),
            )
            await asyncio.to_thread(self.energy.forget)
            await asyncio.to_thread(self.engines.forget)

    async def _arbitrate(self) -> None:
        with _absent_store():
            await self.arbiter.round()

    async def _measure(self) -> None:
        # Where a sandbox begins; from then on its clock has the sources read, at each edge.
        await self._record_energy(self.energy.read_sources_now)
        is_driven = self.driver is not None
        act = self.energy.settle if is_driven else self.energy.read_sources_now
        while True:
            await asyncio.sleep(self.energy_scrape_seconds)
            await self._record_energy(act)

    async def _read_engines(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self.engines.read_now)
            except MeterError as error:
                _log.warning("engines_wait", extra={"fault": str(error), "cause": error.cause})
            if self.driver is not None:
                # A sandbox begins here; from then on its clock has them read, at each edge.
                return
            await asyncio.sleep(self.energy_scrape_seconds)

    async def _record_energy(self, act: Callable[[], None]) -> None:
        try:
            await asyncio.to_thread(act)
        except MeterError as error:
            _log.warning("energy_waits", extra={"fault": str(error), "cause": error.cause})

    async def _attribute(self) -> None:
        with _absent_store():
            await asyncio.to_thread(self.energy.attribute_due)

    async def _fold(self) -> None:
        with _absent_store():
            while await asyncio.to_thread(self.folding.fold_step, now_ms=self.clock.now_ms()):
                pass

    async def _keep_journal(self) -> None:
        try:
            await asyncio.to_thread(self.upkeep.make_parts)
            for part in await asyncio.to_thread(self.upkeep.due):
                while await asyncio.to_thread(self.upkeep.step, part):
                    pass
        except MeterError as error:
            _log.warning("upkeep_waits", extra={"fault": str(error), "cause": error.cause})


async def _every(seconds: float, act: Callable[[], object]) -> None:
    while True:
        result = act()
        if asyncio.iscoroutine(result):
            await result
        await asyncio.sleep(seconds)


async def _every_in_thread(seconds: float, act: Callable[[], object]) -> None:
    while True:
        await asyncio.to_thread(act)
        await asyncio.sleep(seconds)


@contextlib.contextmanager
def _absent_store() -> Iterator[None]:
    """Let a watcher pass over a round in which the database is away; `_refresh` reports it."""
    try:
        yield
    except MeterError:
        _log.debug("watch_skipped")
