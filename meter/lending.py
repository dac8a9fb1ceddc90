"""What a meter lends, made: to the services in its process, and to jobs on its database."""

import contextlib
from collections.abc import Callable, Iterator

from sqlalchemy import Engine

from meter.domain.account import AccountTree
from meter.domain.clock import Clock
from meter.hosting import Host
from meter.options import JobOptions
from meter.runtime.clock import SystemClock
from meter.runtime.driven_clock import DrivenClock
from meter.runtime.engine import make_engine
from meter.runtime.sessions import refuse_shared_sessions
from meter.store.accounts import AccountStore
from meter.store.archived_bodies import ArchivedBodies
from meter.store.audit_log import ChangeLog
from meter.store.consumption import ConsumptionStore
from meter.store.cuts import CutStore
from meter.store.evidence import EvidenceStore
from meter.store.factories import FactoryStore
from meter.store.facts import FactStore
from meter.store.installation import InstallationStore
from meter.store.reporters import ReporterStore
from meter.store.sums import SumStore


@contextlib.contextmanager
def open_host(options: JobOptions) -> Iterator[Host]:
    """Lend what a job on the meter's database needs, without a server.

    Raises Unavailable, and Refused where a pooler shares sessions.
    """
    refuse_shared_sessions(options.database_url)
    engine = make_engine(options.database_url, pool_size=4)
    try:
        clock = clock_at(InstallationStore(engine).find_driven_ms())
        tree = AccountStore(engine, clock).load().tree
        archive = ArchivedBodies(options.archive_folder)
        yield make_host(
            engine, clock=clock, tiers=options.tiers, tree=lambda: tree, archive=archive
        )
    finally:
        engine.dispose()


def make_host(
    engine: Engine,
    *,
    clock: Clock,
    tiers: tuple[str, ...],
    tree: Callable[[], AccountTree],
    archive: ArchivedBodies,
) -> Host:
    """Return what is lent to whoever reads through an engine, and what left the database."""
    return Host(
        engine=engine,
        clock=clock,
        is_driven=isinstance(clock, DrivenClock),
        tiers=tiers,
        tree=tree,
        facts=FactStore(engine),
        sums=SumStore(engine),
        change_log=ChangeLog(),
        reporters=ReporterStore(engine),
        cuts=CutStore(engine),
        evidence=EvidenceStore(engine, archive=archive),
        consumption=ConsumptionStore(engine, factories=FactoryStore(engine)),
    )


def clock_at(driven_ms: int | None) -> Clock:
    """Return a sandbox's clock that stands at an instant (ms); None is for the real one."""
    return SystemClock() if driven_ms is None else DrivenClock(driven_ms)
