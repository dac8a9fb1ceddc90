"""The one place where the meter's parts are built and joined."""

import asyncio
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.metadata import version as version_of

from sqlalchemy import Engine

from meter.counted import Counted
from meter.counting.aggregate import UsageDelta
from meter.counting.follower import Follower
from meter.domain.clock import Clock
from meter.domain.errors import MeterError, Reason
from meter.domain.interval import INTERVAL_MS
from meter.domain.limits import ATTRIBUTE_PAUSE_TIMES
from meter.energy.described import DescribedFactory
from meter.energy.live import LiveEnergy
from meter.energy.reading import Readers, gaps_of
from meter.energy.recorder import EnergyRecorder
from meter.hosting import Host, MakeResident
from meter.http import HttpServer
from meter.journal.writer import JournalWriter
from meter.lending import clock_at, make_host
from meter.metrics import Metrics
from meter.options import Addresses, MeterOptions
from meter.presence import Roster, ShownProducers
from meter.production import Production
from meter.registry import Registry
from meter.running import Meter
from meter.runtime.driven_clock import ClockDriver, DrivenClock
from meter.runtime.engine import make_engine
from meter.runtime.ids import random_bytes
from meter.standbys import Standbys
from meter.store.accounts import AccountStore
from meter.store.attribution import AttributionStore
from meter.store.audit_log import AuditStore
from meter.store.corrections import CorrectionStore
from meter.store.cuts import CutStore
from meter.store.dimensions import DimensionReader
from meter.store.efficiency import EfficiencyStore
from meter.store.energy import EnergyStore
from meter.store.factories import FactoryStore
from meter.store.facts import FactStore
from meter.store.folding import FoldStore
from meter.store.installation import InstallationStore
from meter.store.journal import JournalStore
from meter.store.marks import SoftwareMarkStore
from meter.store.power import PowerStore
from meter.store.producers import ProducerStore
from meter.store.quarantine import QuarantineStore
from meter.store.replication import ReplicationStore
from meter.store.usage import UsageStore
from meter.wire.account_servicer import AccountServicer
from meter.wire.audit_servicer import AuditServicer
from meter.wire.auth import RegistryDoor
from meter.wire.clock_servicer import ClockServicer
from meter.wire.correction_desk import CorrectionDesk
from meter.wire.energy_servicer import EnergyServicer
from meter.wire.factory_messages import FactoryDesk
from meter.wire.intake import Intake
from meter.wire.meter_servicer import MeterServicer
from meter.wire.producer_servicer import ProducerServicer
from meter.wire.server import Server
from meter.wire.software_marks import SoftwareMarkDesk
from meter.wire.stream import StreamParts

# Readiness ends when accounts and keys are older than this.
_REGISTRY_SECONDS_STALE = 10.0
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

    Raises `AddressTaken` or OSError when a port is taken, `Refused` when the database lives on the
    other clock, and `Unavailable` when it cannot be reached at the start. Later, an absent database
    is waited for.
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
            driven_ms = None if meter.driver is None else meter.clock.now_ms()
            ready(Addresses(grpc=grpc_address, http=http_address, driven_ms=driven_ms))
            await _first(stopping, meter.dying)
            # Whoever waits is answered within the grace; nothing more is taken.
            meter.writer.stop()
            if meter.driver is not None:
                meter.driver.stop()
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


def create_installation_key(
    database_url: str, *, key_pepper: bytes, description: str, sandbox_clock_ms: int | None = None
) -> str:
    """Create an API key that may do everything, and return it: the first one of a database.

    `sandbox_clock_ms` is as in `MeterOptions`. Raises Unavailable, Refused (CLOCK_REFUSED).
    """
    engine = make_engine(database_url, pool_size=1)
    try:
        installation = InstallationStore(engine)
        clock = clock_at(installation.settle(sandbox_clock_ms=sandbox_clock_ms))
        return AccountStore(engine, clock).create_installation_key(
            pepper=key_pepper, random_bytes=random_bytes, description=description
        )
    finally:
        engine.dispose()


def _build(options: MeterOptions, engine: Engine, *, residents: Sequence[MakeResident]) -> Meter:
    driven_ms = InstallationStore(engine).settle(sandbox_clock_ms=options.sandbox_clock_ms)
    clock = clock_at(driven_ms)
    metrics, reachable, dying = Metrics(), threading.Event(), asyncio.Event()
    accounts = AccountStore(engine, clock)
    registry = Registry(accounts, clock)
    registry.refresh()
    reachable.set()
    journal = JournalStore(engine, shard=options.shard)
    journal.take_ownership()
    usage = UsageStore(engine, shard=options.shard)
    usage.ensure_watermark()
    host = make_host(engine, clock=clock, tiers=options.tiers, tree=lambda: registry.snapshot.tree)
    door = RegistryDoor(registry, clock=clock, key_pepper=options.key_pepper)
    lodged = [make(host, door, metrics.page) for make in residents]
    live = LiveEnergy(metrics, pools=[source.pool for source in options.energy_sources])
    factories = FactoryStore(engine, tiers=options.tiers)
    marks = SoftwareMarkStore(engine)
    described = _make_described(metrics, host=host, live=live, factories=factories, marks=marks)
    energy = _make_energy(options, engine=engine, factories=factories, live=live, clock=clock)
    production = Production(metrics, live=live, now_ms=clock.now_ms)
    listeners = [production.counted, *(resident.on_counted for resident in lodged)]
    names = DimensionReader(engine)
    follower = _make_follower(usage, listeners=listeners, names=names, clock=clock, dying=dying)
    writer = _make_writer(options, journal, metrics=metrics, clock=clock, follower=follower)
    reads = [lambda _: energy.read_sources_now()] if options.energy_sources else []
    driver = _make_driver(clock, engine=engine, wake_counting=follower.wake, on_edge=reads)
    metrics.sandbox.set(0 if driver is None else 1)
    parts = _make_stream_parts(
        options, writer, engine=engine, registry=registry, clock=clock, metrics=metrics
    )
    return Meter(
        registry=registry,
        journal=journal,
        writer=writer,
        follower=follower,
        usage=usage,
        folding=FoldStore(engine),
        quarantine=QuarantineStore(engine),
        roster=parts.roster,
        standbys=parts.standbys,
        metrics=metrics,
        clock=clock,
        driver=driver,
        energy=energy,
        described=described,
        energy_scrape_seconds=options.energy_scrape_seconds,
        server=Server(
            _make_meter_servicer(options, parts, engine=engine, registry=registry, usage=usage),
            accounts=_make_account_servicer(options, accounts, registry=registry, clock=clock),
            clock=ClockServicer(clock, driver=driver, door=door),
            energy=EnergyServicer(
                energy,
                reader=EfficiencyStore(engine, factories=factories),
                factory=FactoryDesk(factories, clock=clock),
                marks=SoftwareMarkDesk(marks, clock=clock),
                door=door,
                clock=clock,
            ),
            producers=ProducerServicer(parts, door=door, registry=registry),
            audit=AuditServicer(AuditStore(engine), door=door),
            metrics=metrics,
            driven=clock if isinstance(clock, DrivenClock) else None,
            residents={resident.name: resident.add_to for resident in lodged},
        ),
        http=_make_http(metrics, registry=registry, reachable=reachable),
        reachable=reachable,
        dying=dying,
    )


def _make_described(
    metrics: Metrics,
    *,
    host: Host,
    live: LiveEnergy,
    factories: FactoryStore,
    marks: SoftwareMarkStore,
) -> DescribedFactory:
    return DescribedFactory(
        metrics,
        live=live,
        factories=factories.load,
        marks=marks.list_marks,
        pues=host.consumption.pues,
        version=version_of("tokenworks"),
        clock=host.clock,
    )


def _make_http(metrics: Metrics, *, registry: Registry, reachable: threading.Event) -> HttpServer:
    def is_ready() -> bool:
        return reachable.is_set() and registry.age_seconds() < _REGISTRY_SECONDS_STALE

    return HttpServer(metrics, is_ready=is_ready)


def _make_writer(
    options: MeterOptions,
    journal: JournalStore,
    *,
    metrics: Metrics,
    clock: Clock,
    follower: Follower,
) -> JournalWriter:
    return JournalWriter(
        journal,
        observer=metrics,
        now_ms=clock.now_ms,
        monotonic_seconds=clock.monotonic_seconds,
        buffer_bytes_max=options.buffer_bytes_max,
        on_commit=follower.wake,
    )


def _make_stream_parts(
    options: MeterOptions,
    writer: JournalWriter,
    *,
    engine: Engine,
    registry: Registry,
    clock: Clock,
    metrics: Metrics,
) -> StreamParts:
    producers = ProducerStore(engine)
    # A clock that stands still says nothing of silence, and one that leaps would find everyone.
    is_driven = isinstance(clock, DrivenClock)
    return StreamParts(
        intake=Intake(registry=registry, tiers=options.tiers),
        writer=writer,
        producers=producers,
        roster=Roster(
            producers,
            silence_seconds=None if is_driven else options.silence_seconds,
            monotonic_seconds=(
                (lambda: clock.now_ms() / 1000) if is_driven else clock.monotonic_seconds
            ),
            on_summary=ShownProducers(metrics).show,
        ),
        standbys=_make_standbys(options, engine),
        clock=clock,
        metrics=metrics,
    )


def _make_standbys(options: MeterOptions, engine: Engine) -> Standbys | None:
    names = options.durable_standbys
    return Standbys.begin(ReplicationStore(engine, standbys=names), names) if names else None


def _make_meter_servicer(
    options: MeterOptions,
    parts: StreamParts,
    *,
    engine: Engine,
    registry: Registry,
    usage: UsageStore,
) -> MeterServicer:
    return MeterServicer(
        parts,
        registry=registry,
        reader=usage,
        quarantine=QuarantineStore(engine),
        corrections=CorrectionDesk(parts, store=CorrectionStore(engine, shard=options.shard)),
        clock=parts.clock,
        key_pepper=options.key_pepper,
    )


def _make_account_servicer(
    options: MeterOptions, accounts: AccountStore, *, registry: Registry, clock: Clock
) -> AccountServicer:
    return AccountServicer(
        store=accounts,
        registry=registry,
        clock=clock,
        key_pepper=options.key_pepper,
        random_bytes=random_bytes,
    )


def _make_energy(
    options: MeterOptions,
    *,
    engine: Engine,
    factories: FactoryStore,
    live: LiveEnergy,
    clock: Clock,
) -> EnergyRecorder:
    is_driven = isinstance(clock, DrivenClock)
    gaps_ms = gaps_of(
        cadence_ms=INTERVAL_MS if is_driven else options.energy_scrape_seconds * 1000,
        collect_ms=options.energy_collect_seconds * 1000,
    )
    return EnergyRecorder(
        EnergyStore(engine, factories=factories),
        attribution=AttributionStore(engine, factories=factories),
        readers=Readers(options.energy_sources, gaps_ms=gaps_ms, clock=clock),
        live=live,
        power=PowerStore(engine),
        factories=factories.load,
        counted=FactStore(engine),
        clock=clock,
        pause_times=0 if is_driven else ATTRIBUTE_PAUSE_TIMES,
    )


def _make_driver(
    clock: Clock,
    *,
    engine: Engine,
    wake_counting: Callable[[], None],
    on_edge: Sequence[Callable[[int], None]],
) -> ClockDriver | None:
    if not isinstance(clock, DrivenClock):
        return None
    return ClockDriver(
        clock,
        kept=InstallationStore(engine),
        counted=FactStore(engine),
        cuts=CutStore(engine),
        wake_counting=wake_counting,
        on_edge=on_edge,
    )


def _make_follower(
    usage: UsageStore,
    *,
    listeners: Sequence[Callable[[Counted], None]],
    names: DimensionReader,
    clock: Clock,
    dying: asyncio.Event,
) -> Follower:
    loop = asyncio.get_running_loop()

    def counted(delta: UsageDelta) -> None:
        found = names.counted(delta)
        for listen in listeners:
            listen(found)

    def lost() -> None:
        loop.call_soon_threadsafe(dying.set)

    return Follower(
        usage,
        now_ms=clock.now_ms,
        monotonic_seconds=clock.monotonic_seconds,
        on_counted=counted,
        on_death=lost,
    )
