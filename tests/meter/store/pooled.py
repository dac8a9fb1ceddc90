"""What the tests of energy record: usage of pools, readings of their devices, and what is kept."""

from typing import Final

from sqlalchemy import Engine

from meter.domain.boundary import Boundary
from meter.domain.event import Dimensions, DimensionTable
from meter.domain.interval import INTERVAL_MS
from meter.energy.counters import Bounds, Reading, Round, Source
from meter.energy.efficiency import EfficiencyGroup, EfficiencyQuery, EfficiencyRow, PoolEnergy
from meter.journal.commit import Submission, commit_group
from meter.store.efficiency import EfficiencyStore
from meter.store.energy import EnergyStore
from meter.store.factories import FactoryStore
from meter.store.journal import JournalStore
from tests.meter.plain_events import BEGIN_MS, PlainEvent, to_batch
from tests.meter.store.recording import ask, now_ms, origin_of

INPUT, OUTPUT, REASONING = 1, 7, 8
GAP_MS: Final = 3_600_000
BOUNDS: Final = Bounds(
    watts_max=dict.fromkeys(Boundary, 10_000), gaps_ms=dict.fromkeys(Source, GAP_MS)
)
FAR_MS: Final = BEGIN_MS + 1000 * INTERVAL_MS
# By number: the pool, and the tier that it served; the last one names no pool.
SERVED: Final = (("h100", "free"), ("h100", "high"), ("h200", "high"), ("", "high"))


def new_table() -> DimensionTable:
    """Return a table with one row for each of what was served."""
    table = DimensionTable()
    for pool, tier in SERVED:
        table.intern(Dimensions("acme", "m", "m", tier, 1, pool, ""))
    return table


TABLE: Final = new_table()


def serve(
    journal: JournalStore, place: int, *, output: int, end_ms: int = BEGIN_MS, others: int = 0
) -> None:
    """Record an event of a pool and a tier, with output tokens and as many others."""
    tokens = {INPUT: others, OUTPUT: output} if others else {OUTPUT: output}
    event = PlainEvent(dimension=place, end_ms=end_ms, tokens=tokens)
    batch = to_batch([event], table=TABLE)
    commit_group(journal, [Submission(origin=origin_of(""), batch=batch)], now_ms=now_ms)


def reading(
    counter_mj: int, *, time_ms: int = BEGIN_MS, pool: str = "h100", device: str = "GPU-1"
) -> Reading:
    """Return a reading."""
    return Reading(name=pool, device=device, time_ms=time_ms, counter_mj=counter_mj)


def read(store: EnergyStore, *readings: Reading, bounds: Bounds = BOUNDS) -> Round:
    """Record readings as our own scrapes do."""
    return store.record(readings, source=Source.DCGM, bounds=bounds)


def measure(
    store: EnergyStore, energy_mj: int, *, start_ms: int = BEGIN_MS, pool: str = "h100"
) -> None:
    """Record so much energy within the first minute of an interval, by a device of its own."""
    device = f"of {pool}, {start_ms} and {energy_mj}"
    for time_ms, counter_mj in ((start_ms, 0), (start_ms + 60_000, energy_mj)):
        read(store, reading(counter_mj, time_ms=time_ms, pool=pool, device=device))


def shares_of(database_url: str) -> dict[tuple[str, str], int]:
    """Return the sums of shares by pool and tier, or reason."""
    question = (
        "SELECT pool, coalesce(tier, reason), sum(energy_mj)::bigint FROM energy_shares"
        " LEFT JOIN skus USING (sku_id) GROUP BY 1, 2 HAVING sum(energy_mj) <> 0"
    )
    return {(pool, owner): energy_mj for pool, owner, energy_mj in ask(database_url, question)}


def rows_by(engine: Engine, *group_by: EfficiencyGroup) -> list[EfficiencyRow]:
    """Return the rows of the beginning's thousand intervals."""
    query = EfficiencyQuery(start_ms=BEGIN_MS - INTERVAL_MS, end_ms=FAR_MS, group_by=group_by)
    return list(EfficiencyStore(engine, factories=FactoryStore(engine)).query(query).rows)


def pools_of(engine: Engine, *, pool: str = "") -> dict[str, PoolEnergy]:
    """Return the pools of the same time."""
    query = EfficiencyQuery(start_ms=BEGIN_MS - INTERVAL_MS, end_ms=FAR_MS, group_by=(), pool=pool)
    return {
        it.pool: it
        for it in EfficiencyStore(engine, factories=FactoryStore(engine)).query(query).pools
    }
