"""What the tests of attribution put down beside usage: energy of intervals, and what is shared."""

from typing import Any, Final

from sqlalchemy import Engine

from meter.domain.boundary import Boundary
from meter.domain.interval import INTERVAL_MS
from meter.domain.times import to_iso, to_time
from meter.energy.efficiency import EfficiencyGroup, EfficiencyQuery, EfficiencyRow, PoolEnergy
from meter.store.attribution import AttributionStore
from meter.store.efficiency import EfficiencyStore
from meter.store.factories import FactoryStore
from tests.meter.plain_events import BEGIN_MS
from tests.meter.store.recording import administrator, ask

END_MS: Final = BEGIN_MS + 1_000 * INTERVAL_MS
_COLUMNS: Final = ("measured_mj", "estimated_mj", "gap_mj", "unmapped_mj", "covered_ms", "gap_ms")


def put_energy(
    database_url: str,
    measured_mj: int,
    *,
    pool: str = "h100",
    boundary: Boundary = Boundary.BOARD,
    start_ms: int = BEGIN_MS,
    **others: int,
) -> None:
    """Add to an interval's energy, as recording does; `others` are its other columns."""
    start = to_time(start_ms)
    added = {"measured_mj": measured_mj, "covered_ms": INTERVAL_MS, **others}
    values = [added.get(name, 0) for name in _COLUMNS]
    with administrator(database_url) as connection, connection.transaction():
        connection.execute(
            f"INSERT INTO energy_intervals AS e (boundary, name, interval_start,"
            f" {', '.join(_COLUMNS)}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)"
            " ON CONFLICT (boundary, name, interval_start) DO UPDATE SET "
            + ", ".join(f"{name} = e.{name} + EXCLUDED.{name}" for name in _COLUMNS),
            (boundary.value, pool, start, *values),
        )
        if boundary is not Boundary.FACILITY:
            connection.execute(
                "INSERT INTO pool_intervals AS i (pool, interval_start) VALUES (%s, %s)"
                " ON CONFLICT (pool, interval_start) DO UPDATE SET version = i.version + 1",
                (pool, start),
            )


FACTORY: Final = """
format = 1
from = {begin}
[sites.oslo]
contracted_watts = 1_000
{site}
[pools.h100]
site = "oslo"
hardware = "H100"
{pool}
[[weights]]
hardware = "H100"
input = "0.1"
cached_input = "0"
output = "1"
"""


def describe(engine: Engine, *, start_ms: int = BEGIN_MS, site: str = "", pool: str = "") -> None:
    """Set a description that is in force from a time on, with more lines of its site and pool."""
    toml = FACTORY.format(begin=to_iso(start_ms), site=site, pool=pool)
    FactoryStore(engine).set(toml, key_id="key_1", now_ms=BEGIN_MS)


def attribute_all(engine: Engine) -> int:
    """Attribute all that is due, however late it is; return how many intervals."""
    store = AttributionStore(engine, factories=FactoryStore(engine))
    return store.attribute(end_ms=END_MS, intervals_max=500)


def shares_of(database_url: str, *, boundary: Boundary = Boundary.BOARD) -> dict[Any, int]:
    """Return the sums of shares by pool and tier, or reason; idling of tiers by all three."""
    question = f"""
        SELECT pool, tier, reason, sum(energy_mj)::bigint FROM energy_shares
        LEFT JOIN skus USING (sku_id) WHERE boundary = '{boundary.value}'
        GROUP BY 1, 2, 3 HAVING sum(energy_mj) <> 0
    """
    return {
        tuple(part for part in (pool, tier, reason) if part): energy_mj
        for pool, tier, reason, energy_mj in ask(database_url, question)
    }


def faults_of(database_url: str) -> dict[tuple[str, int], str]:
    """Return why intervals of pools give no ratio, by pool and place of the interval."""
    question = "SELECT pool, extract(epoch FROM interval_start)::bigint, fault FROM pool_intervals"
    return {
        (pool, (start * 1000 - BEGIN_MS) // INTERVAL_MS): fault
        for pool, start, fault in ask(database_url, question)
    }


def rows_by(
    engine: Engine, *group_by: EfficiencyGroup, boundary: Boundary = Boundary.BOARD
) -> list[EfficiencyRow]:
    """Return the rows of the beginning's thousand intervals."""
    query = EfficiencyQuery(
        start_ms=BEGIN_MS - INTERVAL_MS, end_ms=END_MS, group_by=group_by, boundary=boundary
    )
    store = EfficiencyStore(engine, factories=FactoryStore(engine))
    return list(store.query(query).rows)


def pools_of(
    engine: Engine,
    *group_by: EfficiencyGroup,
    pool: str = "",
    boundary: Boundary = Boundary.BOARD,
) -> list[PoolEnergy]:
    """Return the pools of the same time."""
    query = EfficiencyQuery(
        start_ms=BEGIN_MS - INTERVAL_MS,
        end_ms=END_MS,
        group_by=group_by,
        pool=pool,
        boundary=boundary,
    )
    store = EfficiencyStore(engine, factories=FactoryStore(engine))
    return list(store.query(query).pools)
