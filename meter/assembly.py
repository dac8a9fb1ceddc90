"""How each part of the meter is built; `meter.app` joins them."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version as version_of

from sqlalchemy import Engine

from meter.archive_file import ArchiveFolder
from meter.certificates import CertificateFiles, Certificates, KeptCertificates
from meter.counted import Counted
from meter.counting.aggregate import UsageDelta
from meter.counting.follower import Follower
from meter.domain.clock import Clock
from meter.domain.interval import INTERVAL_MS
from meter.domain.limits import ATTRIBUTE_PAUSE_TIMES, GAP_MS_MIN, GAP_SCRAPES
from meter.energy.described import DescribedFactory
from meter.energy.fleet import FleetServed
from meter.energy.live import LiveEnergy
from meter.energy.reading import Readers, gaps_of
from meter.energy.recorder import EnergyRecorder
from meter.engines.watch import EngineWatch
from meter.hosting import Host
from meter.journal.writer import JournalWriter
from meter.leases import Leases
from meter.metrics import Metrics
from meter.options import EnergySource, MeterOptions
from meter.presence import Roster, ShownProducers
from meter.registry import Registry
from meter.runtime.clock import SystemClock
from meter.runtime.driven_clock import ClockDriver, DrivenClock
from meter.runtime.ids import process_name, random_bytes
from meter.standbys import Standbys
from meter.store.accounts import AccountStore
from meter.store.arbitration import ArbitrationStore
from meter.store.archived_bodies import ArchivedBodies
from meter.store.attribution import AttributionStore
from meter.store.corrections import CorrectionStore
from meter.store.cuts import CutStore
from meter.store.dimensions import DimensionReader
from meter.store.efficiency import EfficiencyStore
from meter.store.energy import EnergyStore
from meter.store.engines import EngineStore
from meter.store.factories import FactoryStore
from meter.store.facts import FactStore
from meter.store.installation import InstallationStore
from meter.store.journal import JournalStore
from meter.store.leases import LeaseStore
from meter.store.marks import SoftwareMarkStore
from meter.store.parts import ArchiveStore, PartStore
from meter.store.pool_served import PoolServedStore
from meter.store.power import PowerStore
from meter.store.producers import ProducerStore
from meter.store.quarantine import QuarantineStore
from meter.store.replication import ReplicationStore
from meter.store.usage import UsageStore
from meter.tasks import ARBITER, energy_task, engines_task, machine_task, tasks_of
from meter.upkeep import Upkeep
from meter.wire.account_servicer import AccountServicer
from meter.wire.arbitration import Arbiter
from meter.wire.bounds import Bounds
from meter.wire.correcting import append_correction
from meter.wire.correction_desk import CorrectionDesk
from meter.wire.door import RegistryDoor
from meter.wire.energy_servicer import EnergyServicer
from meter.wire.factory_messages import FactoryDesk
from meter.wire.intake import Intake
from meter.wire.meter_servicer import MeterServicer
from meter.wire.observation_desk import ObservationDesk
from meter.wire.small_batches import SmallBatches
from meter.wire.software_marks import SoftwareMarkDesk
from meter.wire.stream import StreamParts


def make_described(
    metrics: Metrics,
    *,
    host: Host,
    live: LiveEnergy,
    factories: FactoryStore,
    marks: SoftwareMarkStore,
) -> DescribedFactory:
    """Build what tells the factory as it is described: sites, pools, costs, marks."""
    return DescribedFactory(
        metrics,
        live=live,
        factories=factories.load,
        marks=marks.list_marks,
        pues=host.consumption.pues,
        version=version_of("tokenworks"),
        clock=host.clock,
    )


def make_certificates(options: MeterOptions, metrics: Metrics) -> KeptCertificates | None:
    """Read the server's certificate, if it has one; raises CertificateFault.

    The world's certificates live on the real clock, in a sandbox too.
    """
    if options.tls_certificate is None or options.tls_key is None:
        return None

    def show(found: Certificates) -> None:
        metrics.certificate_expiry.labels("server").set(found.expiry_seconds)
        if found.client_ca_expiry_seconds is not None:
            metrics.certificate_expiry.labels("client_ca").set(found.client_ca_expiry_seconds)

    files = CertificateFiles(
        certificate=options.tls_certificate, key=options.tls_key, client_ca=options.tls_client_ca
    )
    clock = SystemClock()
    return KeptCertificates(files, now_seconds=lambda: clock.now_ms() / 1000, on_read=show)


def make_writer(
    options: MeterOptions,
    journal: JournalStore,
    *,
    metrics: Metrics,
    clock: Clock,
    follower: Follower,
) -> JournalWriter:
    """Build the writer of `journal`; each commit wakes `follower`."""
    return JournalWriter(
        journal,
        observer=metrics,
        now_ms=clock.now_ms,
        monotonic_seconds=clock.monotonic_seconds,
        buffer_bytes_max=options.buffer_bytes_max,
        on_commit=follower.wake,
    )


def make_stream_parts(
    options: MeterOptions,
    writer: JournalWriter,
    *,
    engine: Engine,
    registry: Registry,
    clock: Clock,
    metrics: Metrics,
) -> StreamParts:
    """Build what a stream of usage needs, and what its producers are known by."""
    producers = ProducerStore(engine)
    # A clock that stands still says nothing of silence, and one that leaps would find everyone.
    is_driven = isinstance(clock, DrivenClock)
    intake = Intake(registry=registry, tiers=options.tiers)
    return StreamParts(
        intake=intake,
        batches=SmallBatches(intake),
        bounds=Bounds(
            metrics,
            calls_per_second_max=options.calls_per_second_max,
            monotonic_seconds=clock.monotonic_seconds,
        ),
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
        standbys=make_standbys(options, engine, metrics=metrics),
        clock=clock,
        metrics=metrics,
        life_seconds=options.connection_age_seconds,
    )


def make_standbys(options: MeterOptions, engine: Engine, *, metrics: Metrics) -> Standbys | None:
    """Begin to follow the standbys that must hold a batch; None where none is named."""
    names = options.durable_standbys
    if not names:
        return None
    store = ReplicationStore(engine, standbys=names)
    return Standbys.begin(store, names, on_missing=metrics.standbys_missing.set)


def make_meter_servicer(
    parts: StreamParts,
    *,
    engine: Engine,
    registry: Registry,
    usage: UsageStore,
    leases: Leases,
    door: RegistryDoor,
    archive: ArchivedBodies,
    arbitration: ArbitrationStore,
) -> MeterServicer:
    """Build the service that takes, shows and corrects usage."""
    corrections = CorrectionStore(engine, own_shard=lambda: leases.shard, archive=archive)
    return MeterServicer(
        parts,
        registry=registry,
        reader=usage,
        quarantine=QuarantineStore(engine),
        corrections=CorrectionDesk(parts, store=corrections),
        observations=ObservationDesk(arbitration, corrections=corrections, clock=parts.clock),
        clock=parts.clock,
        door=door,
    )


def make_arbiter(parts: StreamParts, *, store: ArbitrationStore, leases: Leases) -> Arbiter:
    """Build what decides about requests that several reported."""
    append = partial(append_correction, parts)
    return Arbiter(append, store=store, is_ours=lambda: leases.has_task(ARBITER))


def make_upkeep(options: MeterOptions, *, engine: Engine, clock: Clock) -> Upkeep:
    """Build what keeps the journal's parts; raises Unavailable where the archive is not there."""
    step = None
    if options.archive_folder is not None and options.journal_retention_days is not None:
        step = ArchiveStore(engine, ArchiveFolder(options.archive_folder)).archive_step
    return Upkeep(
        PartStore(engine),
        archive_step=step,
        kept_days=options.journal_retention_days,
        now_ms=clock.now_ms,
    )


def make_account_servicer(
    options: MeterOptions,
    accounts: AccountStore,
    *,
    registry: Registry,
    door: RegistryDoor,
    clock: Clock,
) -> AccountServicer:
    """Build the service of accounts and API keys."""
    return AccountServicer(
        store=accounts,
        registry=registry,
        door=door,
        clock=clock,
        key_pepper=options.key_pepper,
        random_bytes=random_bytes,
    )


def make_energy(
    options: MeterOptions,
    *,
    engine: Engine,
    factories: FactoryStore,
    live: LiveEnergy,
    leases: Leases,
    clock: Clock,
) -> EnergyRecorder:
    """Build what reads the counters of energy, and shares it out."""
    is_driven = isinstance(clock, DrivenClock)
    gaps_ms = gaps_of(
        cadence_ms=INTERVAL_MS if is_driven else options.energy_scrape_seconds * 1000,
        collect_ms=options.energy_collect_seconds * 1000,
    )

    def is_reader(source: EnergySource) -> bool:
        task = machine_task(options) if source.is_nvml else energy_task(options)
        # In a sandbox whoever moves the clock reads, at each edge.
        return is_driven or not task or leases.has_task(task)

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
        is_reader=is_reader,
        served=FleetServed(
            PoolServedStore(engine), now_ms=clock.now_ms, is_alone=lambda: leases.is_alone
        ).look,
    )


def make_engines(
    options: MeterOptions, *, engine: Engine, host: Host, metrics: Metrics, leases: Leases
) -> EngineWatch:
    """Build what reads engines' own counters, and compares them with usage."""
    scrape_ms = INTERVAL_MS if host.is_driven else options.energy_scrape_seconds * 1000
    return EngineWatch(
        options.engines,
        store=EngineStore(engine),
        drifts=host.engine_drifts,
        metrics=metrics.engines,
        clock=host.clock,
        gap_ms=max(GAP_MS_MIN, GAP_SCRAPES * scrape_ms),
        is_reader=lambda: host.is_driven or leases.has_task(engines_task(options)),
        # Where the clock stands still, what is counted late is shown all the same.
        **({"look_seconds": 0.0} if host.is_driven else {}),
    )


def make_energy_servicer(
    recorder: EnergyRecorder,
    *,
    engine: Engine,
    factories: FactoryStore,
    marks: SoftwareMarkStore,
    door: RegistryDoor,
    clock: Clock,
) -> EnergyServicer:
    """Build the service of energy and of the factory's description."""
    return EnergyServicer(
        recorder,
        reader=EfficiencyStore(engine, factories=factories),
        factory=FactoryDesk(factories, clock=clock),
        marks=SoftwareMarkDesk(marks, clock=clock),
        door=door,
        clock=clock,
    )


def make_driver(
    clock: Clock,
    *,
    engine: Engine,
    wake_counting: Callable[[], None],
    on_edge: Sequence[Callable[[int], None]],
) -> ClockDriver | None:
    """Build what advances a sandbox's clock; None where the clock is the machine's."""
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


def make_follower(
    usage: UsageStore,
    *,
    listeners: Sequence[Callable[[Counted], None]],
    names: DimensionReader,
    clock: Clock,
    dying: asyncio.Event,
) -> Follower:
    """Build what counts the journal; `dying` is set when it ends by itself."""

    def counted(delta: UsageDelta) -> None:
        found = names.counted(delta)
        for listen in listeners:
            listen(found)

    return Follower(
        usage,
        now_ms=clock.now_ms,
        monotonic_seconds=clock.monotonic_seconds,
        on_counted=counted,
        on_death=_teller_of(dying),
    )


def make_leases(
    options: MeterOptions,
    engine: Engine,
    *,
    usage: UsageStore,
    metrics: Metrics,
    clock: Clock,
    dying: asyncio.Event,
) -> Leases:
    """Build what holds a shard of the journal; `dying` is set when it ends by itself."""

    def looked(held_count: int, adopted_count: int) -> None:
        metrics.shard_leases.set(held_count)
        metrics.lease_takeovers.inc(adopted_count)

    return Leases(
        LeaseStore(engine, owner=process_name()),
        shard=options.shard,
        monotonic_seconds=clock.monotonic_seconds,
        tasks=tasks_of(options),
        on_taken=usage.ensure_watermark,
        on_round=looked,
        on_death=_teller_of(dying),
    )


def _teller_of(dying: asyncio.Event) -> Callable[[], None]:
    """Return what sets the event from a thread."""
    loop = asyncio.get_running_loop()

    def tell() -> None:
        loop.call_soon_threadsafe(dying.set)

    return tell
