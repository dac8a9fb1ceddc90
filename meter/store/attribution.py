"""Attribution in Postgres: whose energy it was, by interval, pool and boundary, in revisions."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection, Engine, text

from meter.domain.boundary import Boundary
from meter.domain.limits import ATTRIBUTE_USAGE_MAX
from meter.domain.times import to_ms, to_time
from meter.energy.attribute import Attribution, attribute
from meter.energy.factory import Factories, Factory, IdlePolicy, Weights
from meter.energy.measured import MeasuredInterval, find_fault
from meter.runtime.engine import driver_connection, refusals, store_faults
from meter.store.factories import FactoryStore

# The rows are locked before anything else is read: what changes later moves the version again.
_LOCK_DUE: Final = text("""
SELECT pool, interval_start
FROM pool_intervals
WHERE version <> attributed_version AND interval_start < :end
  AND (attributed_version = 0 OR NOT :new_only)
ORDER BY pool, interval_start
LIMIT :limit
FOR UPDATE
""")
_USAGE_COUNTS: Final = text("""
SELECT u.pool, u.interval_start, count(*) AS total
FROM pool_usage u
JOIN unnest(CAST(:pools AS text[]), CAST(:starts AS timestamptz[])) AS n (pool, interval_start)
  USING (pool, interval_start)
GROUP BY 1, 2
""")
_MEASURED: Final = text("""
SELECT e.boundary, e.name AS pool, e.interval_start, e.measured_mj, e.gap_mj, e.unmapped_mj,
       e.covered_ms, e.gap_ms, e.begin_count, e.end_count
FROM energy_intervals e
JOIN unnest(CAST(:pools AS text[]), CAST(:starts AS timestamptz[])) AS n (pool, interval_start)
  ON e.name = n.pool AND e.interval_start = n.interval_start
WHERE e.boundary IN ('board', 'host')
ORDER BY 2, 3, 1
""")
_USAGE: Final = text("""
SELECT u.pool, u.interval_start, u.account_id, u.sku_id, s.model, u.input_tokens, u.cached_tokens,
       u.output_tokens
FROM pool_usage u
JOIN unnest(CAST(:pools AS text[]), CAST(:starts AS timestamptz[])) AS n (pool, interval_start)
  USING (pool, interval_start)
JOIN skus s USING (sku_id)
""")
_SHARES: Final = text("""
SELECT s.pool, s.interval_start, s.boundary, s.account_id, s.sku_id, s.reason,
       sum(s.energy_mj) AS energy_mj, max(s.revision) AS revision
FROM energy_shares s
JOIN unnest(CAST(:pools AS text[]), CAST(:starts AS timestamptz[])) AS n (pool, interval_start)
  USING (pool, interval_start)
GROUP BY 1, 2, 3, 4, 5, 6
""")
_MARK_DONE: Final = text("""
UPDATE pool_intervals i
SET attributed_version = i.version, fault = n.fault
FROM unnest(CAST(:pools AS text[]), CAST(:starts AS timestamptz[]), CAST(:faults AS text[]))
  AS n (pool, interval_start, fault)
WHERE i.pool = n.pool AND i.interval_start = n.interval_start
""")
_COPY: Final = (
    "COPY energy_shares (pool, interval_start, boundary, account_id, sku_id, reason, revision,"
    " energy_mj, factory_version) FROM STDIN"
)

# A pool's interval; within it and a boundary whose tokens; and whose share: those, or none and why.
_Place: TypeAlias = tuple[str, datetime]
_Key: TypeAlias = tuple[str, int]
_Owner: TypeAlias = tuple[Boundary, str, int | None, str]


@dataclass(slots=True, kw_only=True)
class _Due:
    """What is known of a pool's interval."""

    measured: dict[Boundary, MeasuredInterval] = field(default_factory=dict)
    weights: dict[_Key, int] = field(default_factory=dict)
    before: dict[_Owner, int] = field(default_factory=dict)
    revision: int = 0


class AttributionStore:
    """Attributes energy; each call is one transaction."""

    def __init__(self, engine: Engine, *, factories: FactoryStore) -> None:
        """Take the engine, and where the factory is described."""
        self._engine = engine
        self._factories = factories

    def attribute(self, *, end_ms: int, intervals_max: int, new_only: bool = False) -> int:
        """Attribute intervals that began before `end_ms` and changed; return how many.

        With `new_only`, those that never were attributed.
        What is attributed otherwise than before is a new revision, of the differences alone.
        Raises Unavailable, StoreRefusal.
        """
        with refusals("energy"), store_faults(), self._engine.begin() as connection:
            factories = self._factories.hold(connection)
            limits = {"end": to_time(end_ms), "limit": intervals_max, "new_only": new_only}
            places = _lock_due(connection, limits)
            if not places:
                return 0
            due = _read_due(connection, places, factories=factories)
            _write(connection, due, factories=factories)
        return len(due)


def _lock_due(connection: Connection, limits: Mapping[str, object]) -> list[_Place]:
    """Return what is due and locked: as many intervals as together have not too much usage."""
    places = [(row.pool, row.interval_start) for row in connection.execute(_LOCK_DUE, limits)]
    counts = {
        (row.pool, row.interval_start): row.total
        for row in (connection.execute(_USAGE_COUNTS, _arrays(places)) if places else ())
    }
    total = 0
    for index, place in enumerate(places):
        total += counts.get(place, 0)
        if total > ATTRIBUTE_USAGE_MAX:
            return places[: max(1, index)]
    return places


def _read_due(
    connection: Connection, places: Sequence[_Place], *, factories: Factories
) -> dict[_Place, _Due]:
    due = {place: _Due() for place in places}
    for row in connection.execute(_MEASURED, _arrays(places)):
        due[row.pool, row.interval_start].measured[Boundary(row.boundary)] = MeasuredInterval(
            measured_mj=row.measured_mj,
            gap_mj=row.gap_mj,
            unmapped_mj=row.unmapped_mj,
            covered_ms=row.covered_ms,
            gap_ms=row.gap_ms,
            begin_count=row.begin_count,
            end_count=row.end_count,
        )
    found: defaultdict[_Place, dict[str, Weights]] = defaultdict(dict)
    for row in connection.execute(_USAGE, _arrays(places)):
        place = (row.pool, row.interval_start)
        weights = found[place].get(row.model)
        if weights is None:
            factory = factories.at(to_ms(row.interval_start))
            weights = found[place][row.model] = factory.weights_of(pool=row.pool, model=row.model)
        due[place].weights[row.account_id, row.sku_id] = weights.weigh(
            input_tokens=row.input_tokens,
            cached_tokens=row.cached_tokens,
            output_tokens=row.output_tokens,
        )
    for row in connection.execute(_SHARES, _arrays(places)):
        each = due[row.pool, row.interval_start]
        owner = (Boundary(row.boundary), row.account_id, row.sku_id, row.reason)
        each.before[owner] = int(row.energy_mj)
        each.revision = max(each.revision, row.revision)
    return due


def _write(connection: Connection, due: Mapping[_Place, _Due], *, factories: Factories) -> None:
    faults = []
    with (
        driver_connection(connection).cursor() as cursor,
        cursor.copy(_COPY) as copy,
    ):
        for (pool, start), each in due.items():
            factory = factories.at(to_ms(start))
            described = factory.pools.get(pool)
            faults.append(find_fault(each.measured, described=described) or "")
            shares = _shares_of(each, pool=pool, factory=factory)
            for owner, energy_mj in _changes(shares, before=each.before):
                boundary, account_id, sku_id, reason = owner
                copy.write_row(
                    (
                        *(pool, start, boundary.value, account_id, sku_id, reason),
                        *(each.revision + 1, energy_mj, factory.version),
                    )
                )
    connection.execute(_MARK_DONE, {**_arrays(list(due)), "faults": faults})


def _shares_of(due: _Due, *, pool: str, factory: Factory) -> dict[_Owner, int]:
    described = factory.pools.get(pool)
    shares: dict[_Owner, int] = {}
    for boundary, it in due.measured.items():
        shared: Attribution[_Key] = attribute(
            measured_mj=it.measured_mj,
            gap_mj=it.gap_mj,
            unmapped_mj=it.unmapped_mj,
            covered_ms=it.covered_ms,
            weights=due.weights,
            idle_mw=0 if described is None else described.idle_mw,
            idle=IdlePolicy.UNATTRIBUTED if described is None else described.idle,
        )
        for (account_id, sku_id), share in shared.active_mj.items():
            shares[boundary, account_id, sku_id, ""] = share
        for (account_id, sku_id), share in shared.idle_mj.items():
            shares[boundary, account_id, sku_id, "idle"] = share
        for reason, share in shared.unattributed_mj.items():
            shares[boundary, "", None, reason.value] = share
    return shares


def _changes(
    shares: Mapping[_Owner, int], *, before: Mapping[_Owner, int]
) -> Iterator[tuple[_Owner, int]]:
    for owner in {**before, **shares}:
        difference = shares.get(owner, 0) - before.get(owner, 0)
        if difference:
            yield owner, difference


def _arrays(places: Sequence[_Place]) -> dict[str, Any]:
    return {"pools": [pool for pool, _ in places], "starts": [start for _, start in places]}
