"""What a meter lends, made: to the services in its process, and to jobs on its database."""

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from sqlalchemy import Engine

from meter.domain.account import AccountTree
from meter.domain.clock import Clock
from meter.hosting import Host
from meter.options import JobOptions
from meter.runtime.clock import SystemClock
from meter.runtime.driven_clock import DrivenClock
from meter.runtime.engine import DatabaseRole, make_engine
from meter.runtime.sessions import refuse_shared_sessions
from meter.store.accounts import AccountStore
from meter.store.archived_bodies import ArchivedBodies
from meter.store.audit_log import ChangeLog
from meter.store.consumption import ConsumptionStore
from meter.store.cuts import CutStore
from meter.store.engines import EngineDriftStore
from meter.store.evidence import EvidenceStore
from meter.store.factories import FactoryStore
from meter.store.facts import FactStore
from meter.store.installation import InstallationStore
from meter.store.reporters import ReporterStore
from meter.store.sums import SumStore


class Opened(NamedTuple):
    """A database that a job works on: by the meter's own engine, and what is lent beside it."""

    engine: Engine
    host: Host


@contextlib.contextmanager
def open_host(options: JobOptions) -> Iterator[Host]:
    """Lend what a job on the meter's database needs, without a server; see `open_database`."""
    with open_database(options) as opened:
        yield opened.host


@contextlib.contextmanager
def open_database(options: JobOptions) -> Iterator[Opened]:
    """Open the meter's database for a job.

    Raises Unavailable, and Refused where a pooler shares sessions.
    """
    refuse_shared_sessions(options.database_url)
    engine = make_engine(options.database_url, pool_size=4)
    lent = make_engine(options.database_url, pool_size=4, role=DatabaseRole.BILLING)
    try:
        clock = clock_at(InstallationStore(engine).find_driven_ms())
        tree = AccountStore(engine, clock).load().tree
        archive = ArchivedBodies(options.archive_folder)
        host = make_host(
            engine,
            lent=lent,
            clock=clock,
            tiers=options.tiers,
            tree=lambda: tree,
            archive=archive,
            engine_drift_hold_ppm=options.engine_drift_hold_ppm,
        )
        yield Opened(engine=engine, host=host)
    finally:
        lent.dispose()
        engine.dispose()


def make_host(
    engine: Engine,
    *,
    lent: Engine,
    clock: Clock,
    tiers: tuple[str, ...],
    tree: Callable[[], AccountTree],
    archive: ArchivedBodies,
    engine_drift_hold_ppm: int | None = None,
) -> Host:
    """Return what is lent to services, and what left the database.

    From `engine_drift_hold_ppm` on, drift of engines holds invoices. They ask by `lent`, in their
    own role; what is the meter's to write goes by its own engine.
    """
    return Host(
        engine=lent,
        clock=clock,
        is_driven=isinstance(clock, DrivenClock),
        tiers=tiers,
        tree=tree,
        facts=FactStore(lent),
        sums=SumStore(lent),
        change_log=ChangeLog(),
        reporters=ReporterStore(engine),
        cuts=CutStore(engine),
        evidence=EvidenceStore(lent, archive=archive),
        consumption=ConsumptionStore(lent, factories=FactoryStore(lent)),
        engine_drifts=EngineDriftStore(lent, hold_ppm=engine_drift_hold_ppm),
    )


def clock_at(driven_ms: int | None) -> Clock:
    """Return a sandbox's clock that stands at an instant (ms); None is for the real one."""
    return SystemClock() if driven_ms is None else DrivenClock(driven_ms)
