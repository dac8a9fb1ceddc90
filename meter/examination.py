"""The parts that `doctor` and `db` need, joined: looks at the database, audits, new totals."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final, NamedTuple

from meter.audit_log import JOB, Action, Change
from meter.counting.auditor import Auditor
from meter.domain.limits import ENGINE_SETTLE_MS
from meter.domain.times import to_iso
from meter.health import Health, Login
from meter.hosting import Host
from meter.lending import clock_at, open_database
from meter.options import JobOptions
from meter.runtime.engine import make_engine
from meter.store.archived_bodies import ArchivedBodies
from meter.store.audit import AuditStore
from meter.store.engines import EngineDriftStore
from meter.store.folding import FoldStore
from meter.store.health import HealthStore, LoginStore
from meter.store.installation import InstallationStore
from meter.store.readers import ReaderStore
from meter.store.totals import UsageTotals

_DAY_MS: Final = 24 * 3600 * 1000


class AuditHost(NamedTuple):
    """What an audit stands on: the meter's side of a service, its own sums, and usage's totals."""

    host: Host
    auditor: Auditor
    totals: UsageTotals


def look_at_login(database_url: str) -> Login:
    """Return whom the database takes us for; raises StoreRefusal in the driver's words."""
    engine = make_engine(database_url, pool_size=1, role=None)
    try:
        return LoginStore(engine).login()
    finally:
        engine.dispose()


def look_at_health(database_url: str, *, silence_ms: int) -> Health:
    """Return how a migrated database stands; raises Unavailable, StoreRefusal."""
    engine = make_engine(database_url, pool_size=1)
    try:
        health = HealthStore(engine).read(silence_ms=silence_ms)
        if not health.engine_count:
            return health
        settled_ms = health.now_ms - ENGINE_SETTLE_MS
        end_ms = settled_ms - settled_ms % _DAY_MS
        drifts = EngineDriftStore(engine).compare(start_ms=end_ms - _DAY_MS, end_ms=end_ms)
        return replace(health, drifts=drifts)
    finally:
        engine.dispose()


def grant_reader(database_url: str, login: str, *, account_id: str | None) -> None:
    """Let a login of the database read views; raises what `ReaderStore.grant` does."""
    engine = make_engine(database_url, pool_size=1, role=None)
    try:
        ReaderStore(engine).grant(login, account_id=account_id)
    finally:
        engine.dispose()


@contextlib.contextmanager
def open_audit(options: JobOptions) -> Iterator[AuditHost]:
    """Lend what an audit needs, on a live database; raises Unavailable."""
    with open_database(options) as (engine, host):
        yield AuditHost(
            host=host,
            auditor=Auditor(AuditStore(engine, archive=ArchivedBodies(options.archive_folder))),
            totals=UsageTotals(engine),
        )


def recount(database_url: str, *, on_progress: Callable[[int], None]) -> int:
    """Add usage up anew for all months, and return until when (ms); `on_progress` hears as much.

    Counting goes on; until it is done, sums are read from usage. Raises Unavailable, StoreRefusal.
    """
    engine = make_engine(database_url, pool_size=1)
    try:
        clock = clock_at(InstallationStore(engine).find_driven_ms())
        store = FoldStore(engine)
        store.forget(
            Change(
                at_ms=clock.now_ms(),
                key_id=JOB,
                action=Action.USAGE_RECOUNT,
                subject="period_totals",
                detail={"folded_until": to_iso(store.folded_until_ms())},
            )
        )
        while store.fold_step(now_ms=clock.now_ms()):
            on_progress(store.folded_until_ms())
        return store.folded_until_ms()
    finally:
        engine.dispose()
