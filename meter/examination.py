"""The parts that `doctor` needs, joined: a look at the database, and the audit of its sums."""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from meter.counting.auditor import Auditor
from meter.health import Health, Login
from meter.hosting import Host
from meter.lending import open_host
from meter.options import JobOptions
from meter.runtime.engine import make_engine
from meter.store.audit import AuditStore
from meter.store.health import HealthStore, LoginStore
from meter.store.totals import UsageTotals


class AuditHost(NamedTuple):
    """What an audit stands on: the meter's side of a service, its own sums, and usage's totals."""

    host: Host
    auditor: Auditor
    totals: UsageTotals


def look_at_login(database_url: str) -> Login:
    """Return whom the database takes us for; raises StoreRefusal in the driver's words."""
    engine = make_engine(database_url, pool_size=1, as_service=False)
    try:
        return LoginStore(engine).login()
    finally:
        engine.dispose()


def look_at_health(database_url: str, *, silence_ms: int) -> Health:
    """Return how a migrated database stands; raises Unavailable, StoreRefusal."""
    engine = make_engine(database_url, pool_size=1)
    try:
        return HealthStore(engine).read(silence_ms=silence_ms)
    finally:
        engine.dispose()


@contextlib.contextmanager
def open_audit(options: JobOptions) -> Iterator[AuditHost]:
    """Lend what an audit needs, on a live database; raises Unavailable."""
    with open_host(options) as host:
        yield AuditHost(
            host=host,
            auditor=Auditor(AuditStore(host.engine)),
            totals=UsageTotals(host.engine),
        )
