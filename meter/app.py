"""The one place where the meter's parts are built and joined."""

import asyncio
import contextlib
import logging
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Engine

from meter.counting.aggregate import UsageDelta
from meter.counting.follower import Follower
from meter.domain.account import AccountTree
from meter.domain.clock import Clock
from meter.domain.errors import MeterError, Reason
from meter.domain.limits import CLAIM_KEPT_MS
from meter.domain.tokens import TokenClass
from meter.hosting import Host, MakeResident
from meter.http import HttpServer
from meter.journal.writer import JournalWriter
from meter.metrics import Metrics
from meter.options import Addresses, JobOptions, MeterOptions
from meter.registry import Registry
from meter.runtime.clock import SystemClock
from meter.runtime.engine import make_engine
from meter.runtime.ids import random_bytes
from meter.store.accounts import AccountStore
from meter.store.cuts import CutStore
from meter.store.dimensions import DimensionReader
from meter.store.evidence import EvidenceStore
from meter.store.facts import FactStore
from meter.store.journal import JournalStore
from meter.store.quarantine import QuarantineStore
from meter.store.usage import UsageStore
from meter.usage import CountedRow
from meter.wire.account_servicer import AccountServicer
from meter.wire.auth import RegistryDoor
from meter.wire.intake import Intake
from meter.wire.meter_servicer import MeterServicer
from meter.wire.server import Server
from meter.wire.stream import StreamParts

_log = logging.getLogger(__name__)
# A change of an account or a key reaches every server within twice this.
_REGISTRY_SECONDS = 1.0
# Readiness ends when accounts and keys are older than this.
_REGISTRY_SECONDS_STALE = 10.0
_WATCH_SECONDS = 2.0
_FORGET_SECONDS = 3600.0
_GRACE_SECONDS = 3.0
_SWITCH_SECONDS = 0.0005


async def serve(
    options: MeterOptions,
    *,
    stopping: asyncio.Event,
    ready: Callable[[Addresses], None],
    residents: Sequence[MakeResident] = (),
) -> None:
    """Run a meter until `stopping` is set; `ready` hears the addresses once it listens.

    `residents` make the services that run beside the meter's own.

    Raises `AddressTaken` or OSError when a port is taken and `Unavailable` when the database
    cannot be reached at the start. Later, an absent database is waited for.
    """
    # The committing thread asks the database five times a group, and each answer waits for the
    # loop's turn to end: at the usual 5 ms the commits of single calls would mostly be waiting.
    sys.setswitchinterval(_SWITCH_SECONDS)
    engine = make_engine(options.database_url, pool_size=12)
    try:
        meter = _build(options, engine, residents=residents)
        async with meter.running():
            grpc_address = await meter.server.start(options)
            http_address = meter.http.start(options.http_address)
            ready(Addresses(grpc=grpc_address, http=http_address))
            await _first(stopping, meter.dying)
            # Whoever waits is answered within the grace; nothing more is taken.
            meter.writer.stop()
            await meter.server.stop(grace_seconds=_GRACE_SECONDS)
            meter.http.stop()
            if meter.dying.is_set():
                raise MeterError(Reason.INTERNAL, "A part of the meter has ended; see the log.")
    finally:
        engine.dispose()


async def _first(*events: asyncio.Event) -> None:
    waiting = [asyncio.create_task(event.wait()) for event in events]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()


def create_installation_key(database_url: str, *, key_pepper: bytes, description: str) -> str:
    """Create an API key that may do everything, and return it: the first one of a database."""
    engine = make_engine(database_url, pool_size=1)
    try:
        return AccountStore(engine, SystemClock()).create_installation_key(
            pepper=key_pepper, random_bytes=random_bytes, description=description
        )
    finally:
        engine.dispose()


@contextlib.contextmanager
def open_host(options: JobOptions) -> Iterator[Host]:
    """Lend what a job on the meter's database needs, without a server; raises Unavailable."""
    engine = make_engine(options.database_url, pool_size=4)
    try:
        accounts = AccountStore(engine, SystemClock())
        tree = accounts.load().tree
        yield _make_host(engine, clock=SystemClock(), tiers=options.tiers, tree=lambda: tree)
    finally:
        engine.dispose()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Meter:
    registry: Registry
    journal: JournalStore
    writer: JournalWriter
    follower: Follower
    usage: UsageStore
    quarantine: QuarantineStore
    metrics: Metrics
    clock: SystemClock
    server: Server
    http: HttpServer
    reachable: threading.Event
    dying: asyncio.Event

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the writer, the follower and the watchers; end them in the order of the flow."""
        writing = asyncio.create_task(self.writer.run())
        watching = [
            asyncio.create_task(_every(_REGISTRY_SECONDS, self._refresh)),
            asyncio.create_task(_every(_WATCH_SECONDS, self._watch)),
            asyncio.create_task(_every(_FORGET_SECONDS, self._forget)),
        ]
        for task in (writing, *watching):
            task.add_done_callback(self._ended)
        self.follower.start()
        try:
            yield
        finally:
            self.writer.stop()
            await writing
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
            await asyncio.to_thread(self.follower.stop)

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
            self.reachable.set()
        except MeterError:
            self.reachable.clear()
        if reached != self.reachable.is_set():
            _log.warning("database_reachable" if not reached else "database_lost")
            await self.server.set_serving(serving=self.reachable.is_set())

    async def _watch(self) -> None:
        with _absent_store():
            lag, oldest_ms = await asyncio.to_thread(self.usage.lag)
            self.metrics.counting_lag.set(lag)
            behind_ms = 0 if oldest_ms is None else max(0, self.clock.now_ms() - oldest_ms)
            self.metrics.counting_behind.set(behind_ms / 1000)
            held = await asyncio.to_thread(self.quarantine.held_count)
            self.metrics.quarantine_held.set(held)
            missing = await asyncio.to_thread(self.journal.missing_batch_count)
            self.metrics.batches_missing.set(missing)

    async def _forget(self) -> None:
        with _absent_store():
            before_ms = self.clock.now_ms() - CLAIM_KEPT_MS
            await asyncio.to_thread(self.journal.forget_claims, before_ms=before_ms)


def _make_host(
    engine: Engine, *, clock: Clock, tiers: tuple[str, ...], tree: Callable[[], AccountTree]
) -> Host:
    return Host(
        engine=engine,
        clock=clock,
        is_driven=False,
        tiers=tiers,
        tree=tree,
        facts=FactStore(engine),
        cuts=CutStore(engine),
        evidence=EvidenceStore(engine),
    )


def _build(options: MeterOptions, engine: Engine, *, residents: Sequence[MakeResident]) -> _Meter:
    clock, metrics, reachable = SystemClock(), Metrics(), threading.Event()
    dying = asyncio.Event()
    accounts = AccountStore(engine, clock)
    registry = Registry(accounts, clock)
    registry.refresh()
    reachable.set()
    journal = JournalStore(engine, shard=options.shard)
    journal.take_ownership()
    usage = UsageStore(engine, shard=options.shard)
    usage.ensure_watermark()
    quarantine = QuarantineStore(engine)
    host = _make_host(engine, clock=clock, tiers=options.tiers, tree=lambda: registry.snapshot.tree)
    door = RegistryDoor(registry, clock=clock, key_pepper=options.key_pepper)
    lodged = [make(host, door, metrics.registry) for make in residents]
    follower = _make_follower(
        usage,
        listeners=[
            _count_tokens(metrics),
            *(resident.on_counted for resident in lodged),
        ],
        names=DimensionReader(engine),
        clock=clock,
        dying=dying,
    )
    writer = JournalWriter(
        journal,
        observer=metrics,
        now_ms=clock.now_ms,
        monotonic_seconds=clock.monotonic_seconds,
        buffer_bytes_max=options.buffer_bytes_max,
        on_commit=follower.wake,
    )
    parts = StreamParts(
        intake=Intake(registry=registry, tiers=options.tiers),
        writer=writer,
        producers=journal,
        clock=clock,
        metrics=metrics,
    )
    meter_servicer = MeterServicer(
        parts,
        registry=registry,
        reader=usage,
        quarantine=quarantine,
        clock=clock,
        key_pepper=options.key_pepper,
    )
    account_servicer = AccountServicer(
        store=accounts,
        registry=registry,
        clock=clock,
        key_pepper=options.key_pepper,
        random_bytes=random_bytes,
    )
    return _Meter(
        registry=registry,
        journal=journal,
        writer=writer,
        follower=follower,
        usage=usage,
        quarantine=quarantine,
        metrics=metrics,
        clock=clock,
        server=Server(
            meter_servicer,
            account_servicer,
            metrics=metrics,
            residents={resident.name: resident.add_to for resident in lodged},
        ),
        http=HttpServer(
            metrics,
            is_ready=lambda: (
                reachable.is_set() and registry.age_seconds() < _REGISTRY_SECONDS_STALE
            ),
        ),
        reachable=reachable,
        dying=dying,
    )


def _make_follower(
    usage: UsageStore,
    *,
    listeners: Sequence[Callable[[Sequence[CountedRow]], None]],
    names: DimensionReader,
    clock: Clock,
    dying: asyncio.Event,
) -> Follower:
    loop = asyncio.get_running_loop()

    def counted(delta: UsageDelta) -> None:
        rows = names.counted_rows(delta)
        for listen in listeners:
            listen(rows)

    def lost() -> None:
        loop.call_soon_threadsafe(dying.set)

    return Follower(
        usage,
        now_ms=clock.now_ms,
        monotonic_seconds=clock.monotonic_seconds,
        on_counted=counted,
        on_death=lost,
    )


def _count_tokens(metrics: Metrics) -> Callable[[Sequence[CountedRow]], None]:
    def count(rows: Sequence[CountedRow]) -> None:
        sums: Counter[tuple[str, str, str, TokenClass]] = Counter()
        for row in rows:
            for token_class, tokens in row.fact.tokens.items():
                sums[row.fact.tier, row.fact.model, row.pool, token_class] += tokens
        for (tier, model, pool, token_class), tokens in sums.items():
            metrics.tokens.labels(tier, model, pool, token_class.name).inc(tokens)

    return count


async def _every(seconds: float, act: Callable[[], object]) -> None:
    while True:
        result = act()
        if asyncio.iscoroutine(result):
            await result
        await asyncio.sleep(seconds)


@contextlib.contextmanager
def _absent_store() -> Iterator[None]:
    """Let a watcher pass over a round in which the database is away; `_refresh` reports it."""
    try:
        yield
    except MeterError:
        _log.debug("watch_skipped")
