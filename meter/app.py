"""The one place where the meter's parts are built and joined."""

import asyncio
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Engine

from meter.assembly import (
    make_account_servicer,
    make_arbiter,
    make_certificates,
    make_described,
    make_driver,
    make_energy,
    make_energy_servicer,
    make_engines,
    make_follower,
    make_leases,
    make_meter_servicer,
    make_stream_parts,
    make_upkeep,
    make_writer,
)
from meter.certificates import KeptCertificates
from meter.counting.fresh import Fresh
from meter.crew import Crew, joint_registry
from meter.domain.clock import Clock
from meter.domain.errors import MeterError, Reason
from meter.domain.limits import JOURNAL_IDLE_SECONDS_MAX
from meter.energy.live import LiveEnergy
from meter.energy.recorder import EnergyRecorder
from meter.engines.watch import EngineWatch
from meter.hosting import Host, MakeResident, Resident
from meter.http import HttpServer, WsgiApp, make_pages
from meter.leases import Leases
from meter.lending import clock_at, make_host
from meter.metrics import Metrics
from meter.options import Addresses, MeterOptions
from meter.production import Production
from meter.readiness import Readiness, SchemaLook
from meter.receivers import Receivers, make_receivers
from meter.registry import Registry
from meter.running import Meter
from meter.runtime.driven_clock import ClockDriver, DrivenClock
from meter.runtime.engine import DatabaseRole, connection_count, make_engine
from meter.runtime.ids import random_bytes
from meter.store.accounts import AccountStore
from meter.store.arbitration import ArbitrationStore
from meter.store.archived_bodies import ArchivedBodies
from meter.store.audit_log import AuditStore
from meter.store.dimensions import DimensionReader
from meter.store.factories import FactoryStore
from meter.store.folding import FoldStore
from meter.store.installation import InstallationStore
from meter.store.journal import JournalStore
from meter.store.marks import SoftwareMarkStore
from meter.store.quarantine import QuarantineStore
from meter.store.usage import UsageStore
from meter.wire.audit_servicer import AuditServicer
from meter.wire.clock_servicer import ClockServicer
from meter.wire.door import RegistryDoor
from meter.wire.engine_servicer import EngineServicer
from meter.wire.producer_servicer import ProducerServicer
from meter.wire.server import Server
from meter.wire.stream import StreamParts

_GRACE_SECONDS = 3.0
_SWITCH_SECONDS = 0.0005


async def serve(
    options: MeterOptions,
    *,
    stopping: asyncio.Event,
    ready: Callable[[Addresses], None],
    residents: Sequence[MakeResident] = (),
    find_missing: Callable[[], Sequence[str]] = tuple,
    crew: Crew | None = None,
) -> None:
    """Run a meter until `stopping` is set; `ready` hears the addresses once it listens.

    `residents` make the services that run beside the meter's own. `find_missing` returns the
    migrations that the schema lacks, or raises Unavailable; while there are any it is not ready.
    One of several workers has a `crew`, as `options` name it.

    Raises `AddressTaken` or OSError when a port is taken, `CertificateFault`, `Refused` when the
    database lives on the other clock, and `Unavailable` when it cannot be reached at the start.
    Later, an absent database is waited for.
    """
    # The committing thread asks the database twice a group and more, and each answer waits for the
    # loop's turn to end: at the usual 5 ms the commits of single calls would mostly be waiting.
    sys.setswitchinterval(_SWITCH_SECONDS)
    engine = make_engine(options.database_url, pool_size=12)
    journal_engine = make_engine(
        options.database_url, pool_size=4, idle_seconds=JOURNAL_IDLE_SECONDS_MAX
    )
    lent = make_engine(options.database_url, pool_size=8, role=DatabaseRole.BILLING)
    try:
        ground = _lay_ground(options, engine, journal_engine, lent=lent)
        meter = _build(options, ground, residents=residents, find_missing=find_missing, crew=crew)
        async with meter.running():
            ready(await _listen(meter, options, crew=crew))
            await _first(stopping, meter.dying)
            # Whoever waits is answered within the grace; nothing more is taken.
            meter.readiness.stop()
            await meter.server.stop_receiving()
            meter.writer.stop()
            if meter.driver is not None:
                meter.driver.stop()
            await meter.server.stop(grace_seconds=_GRACE_SECONDS)
            for http in (meter.http, *meter.otlp_http):
                await asyncio.to_thread(http.stop)
            if meter.dying.is_set():
                raise MeterError(Reason.INTERNAL, "A part of the meter has ended; see the log.")
    finally:
        for each in (engine, journal_engine, lent):
            each.dispose()


async def _listen(meter: Meter, options: MeterOptions, *, crew: Crew | None) -> Addresses:
    grpc_address, otlp_grpc_address = await meter.server.start(options)
    certificates = meter.certificates if options.http_tls else None
    http_address = meter.http.start(
        options.http_address,
        certificates=certificates,
        listener=None if crew is None else crew.http,
    )
    otlp_http_address = None
    for http in meter.otlp_http:
        otlp_http_address = http.start(
            options.otlp_http_address,
            certificates=certificates,
            listener=None if crew is None else crew.otlp_http,
        )
    return Addresses(
        grpc=grpc_address,
        http=http_address,
        driven_ms=None if meter.driver is None else meter.clock.now_ms(),
        otlp_grpc=otlp_grpc_address,
        otlp_http=otlp_http_address,
    )


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ground:
    """What a meter's parts stand on: its database and clock, who may call, and its shard."""

    engine: Engine
    clock: Clock
    metrics: Metrics
    accounts: AccountStore
    registry: Registry
    certificates: KeptCertificates | None
    door: RegistryDoor
    usage: UsageStore
    leases: Leases
    journal: JournalStore
    host: Host
    archive: ArchivedBodies
    arbitration: ArbitrationStore
    factories: FactoryStore
    marks: SoftwareMarkStore
    dying: asyncio.Event


def _lay_ground(
    options: MeterOptions, engine: Engine, journal_engine: Engine, *, lent: Engine
) -> _Ground:
    driven_ms = InstallationStore(engine).settle(sandbox_clock_ms=options.sandbox_clock_ms)
    clock = clock_at(driven_ms)
    metrics, dying = Metrics(), asyncio.Event()
    certificates = make_certificates(options, metrics)
    accounts = AccountStore(engine, clock)
    registry = Registry(accounts, clock)
    registry.refresh()
    fresh = Fresh()
    usage = UsageStore(engine, own_shard=lambda: leases.shard, fresh=fresh)
    leases = make_leases(
        options, journal_engine, usage=usage, metrics=metrics, clock=clock, dying=dying
    )
    leases.take()
    archive = ArchivedBodies(options.archive_folder)
    return _Ground(
        engine=engine,
        clock=clock,
        metrics=metrics,
        accounts=accounts,
        registry=registry,
        certificates=certificates,
        door=RegistryDoor(
            registry, clock=clock, key_pepper=options.key_pepper, certificates=certificates
        ),
        usage=usage,
        leases=leases,
        journal=JournalStore(journal_engine, leases=leases, fresh=fresh),
        host=make_host(
            engine,
            lent=lent,
            clock=clock,
            tiers=options.tiers,
            tree=lambda: registry.snapshot.tree,
            archive=archive,
            engine_drift_hold_ppm=options.engine_drift_hold_ppm,
        ),
        archive=archive,
        arbitration=ArbitrationStore(engine, own_shard=lambda: leases.shard, archive=archive),
        factories=FactoryStore(engine, tiers=options.tiers),
        marks=SoftwareMarkStore(engine),
        dying=dying,
    )


def _build(
    options: MeterOptions,
    ground: _Ground,
    *,
    residents: Sequence[MakeResident],
    find_missing: Callable[[], Sequence[str]],
    crew: Crew | None,
) -> Meter:
    engine, clock, metrics = ground.engine, ground.clock, ground.metrics
    registry, leases, usage, dying = ground.registry, ground.leases, ground.usage, ground.dying
    lodged = [make(ground.host, ground.door, metrics.page) for make in residents]
    live = LiveEnergy(metrics, pools=[source.pool for source in options.energy_sources])
    energy = make_energy(
        options, engine=engine, factories=ground.factories, live=live, leases=leases, clock=clock
    )
    engines = make_engines(options, engine=engine, host=ground.host, metrics=metrics, leases=leases)
    production = Production(
        metrics, live=live, now_ms=clock.now_ms, is_alone=lambda: leases.is_alone
    )
    listeners = [production.counted, *(resident.on_counted for resident in lodged)]
    names = DimensionReader(engine)
    follower = make_follower(usage, listeners=listeners, names=names, clock=clock, dying=dying)
    writer = make_writer(options, ground.journal, metrics=metrics, clock=clock, follower=follower)
    on_edge = _edge_reads(options, energy=energy, engines=engines)
    driver = make_driver(clock, engine=engine, wake_counting=follower.wake, on_edge=on_edge)
    metrics.sandbox.set(0 if driver is None else 1)
    parts = make_stream_parts(
        options, writer, engine=engine, registry=registry, clock=clock, metrics=metrics
    )
    # The registry is asked each second; what it is asked of is the database.
    readiness = Readiness(database_seconds=registry.age_seconds)
    reachable = threading.Event()
    reachable.set()
    receivers = make_receivers(options, parts, door=ground.door)
    return Meter(
        registry=registry,
        leases=leases,
        journal=ground.journal,
        writer=writer,
        follower=follower,
        usage=usage,
        folding=FoldStore(engine),
        upkeep=make_upkeep(options, engine=engine, clock=clock),
        quarantine=QuarantineStore(engine),
        arbitration=ground.arbitration,
        arbiter=make_arbiter(parts, store=ground.arbitration, leases=leases),
        roster=parts.roster,
        standbys=parts.standbys,
        metrics=metrics,
        clock=clock,
        driver=driver,
        energy=energy,
        engines=engines,
        described=make_described(
            metrics, host=ground.host, live=live, factories=ground.factories, marks=ground.marks
        ),
        looks=[engines.look, *(resident.on_watch for resident in lodged)],
        energy_scrape_seconds=options.energy_scrape_seconds,
        server=_make_server(
            options, ground, parts, driver=driver, energy=energy, lodged=lodged, receivers=receivers
        ),
        http=HttpServer({**_make_pages(metrics, readiness, crew=crew), **receivers.all_routes}),
        otlp_http=[HttpServer(receivers.otlp_routes)] if options.otlp else [],
        readiness=readiness,
        schema=SchemaLook(find_missing, connection_count=partial(connection_count, engine)),
        certificates=ground.certificates,
        reachable=reachable,
        dying=dying,
    )


def _make_pages(metrics: Metrics, readiness: Readiness, *, crew: Crew | None) -> dict[str, WsgiApp]:
    """Return the pages about this meter, or, of a worker, about all of its crew."""
    if crew is None:
        return make_pages(metrics.registry, find_obstacles=readiness.obstacles)
    crew.attend(collect=metrics.registry.collect, find_obstacles=readiness.obstacles)
    return make_pages(joint_registry(crew), find_obstacles=crew.obstacles, find_silent=crew.silent)


def _edge_reads(
    options: MeterOptions, *, energy: EnergyRecorder, engines: EngineWatch
) -> list[Callable[[int], None]]:
    """Return what a driven clock has read at each edge."""
    found: list[Callable[[int], None]] = []
    if options.energy_sources:
        found.append(lambda _: energy.read_sources_now())
    if options.engines:
        found.append(lambda _: engines.read_now())
    return found


def _make_server(
    options: MeterOptions,
    ground: _Ground,
    parts: StreamParts,
    *,
    driver: ClockDriver | None,
    energy: EnergyRecorder,
    lodged: Sequence[Resident],
    receivers: Receivers,
) -> Server:
    engine, clock, door, registry = ground.engine, ground.clock, ground.door, ground.registry
    return Server(
        make_meter_servicer(
            parts,
            engine=engine,
            registry=registry,
            usage=ground.usage,
            leases=ground.leases,
            door=door,
            archive=ground.archive,
            arbitration=ground.arbitration,
        ),
        accounts=make_account_servicer(
            options, ground.accounts, registry=registry, door=door, clock=clock
        ),
        clock=ClockServicer(clock, driver=driver),
        energy=make_energy_servicer(
            energy,
            engine=engine,
            factories=ground.factories,
            marks=ground.marks,
            door=door,
            clock=clock,
        ),
        engines=EngineServicer(ground.host.engine_drifts),
        producers=ProducerServicer(parts, door=door, registry=registry),
        audit=AuditServicer(AuditStore(engine)),
        metrics=ground.metrics,
        driven=clock if isinstance(clock, DrivenClock) else None,
        certificates=ground.certificates,
        connection_age_seconds=options.connection_age_seconds,
        shares_ports=options.crew is not None,
        door=door,
        bounds=parts.bounds,
        residents={resident.name: resident.add_to for resident in lodged},
        receivers=receivers.services,
        access={name: rule for it in lodged for name, rule in it.access.items()},
    )
