"""Whose energy it was and which pool served whom, as others read it, in Postgres."""

from collections.abc import Collection, Iterator, Sequence
from typing import Final

from sqlalchemy import Engine, text

from meter.consumption import EnergyFact, PoolTokens, SitePue
from meter.domain.boundary import Boundary
from meter.domain.times import to_ms, to_time
from meter.domain.tokens import Mode
from meter.runtime.engine import SNAPSHOT, store_faults
from meter.store.factories import FactoryStore
from meter.store.site_energy import read_site_energy

# Rows that are held at a time.
_ROWS_AT_ONCE: Final = 10_000
# A share that was taken back whole is none: its tokens have no energy any more. All shares of an
# interval carry one version: none is ever set below what is attributed.
_ENERGY: Final = text("""
WITH shared AS (
    SELECT account_id, interval_start, pool, sku_id, sum(energy_mj) AS energy_mj,
           max(factory_version) AS factory_version
    FROM energy_shares
    WHERE account_id = ANY(CAST(:accounts AS text[])) AND sku_id IS NOT NULL
      AND interval_start >= :start AND interval_start < :end AND boundary = :boundary
    GROUP BY 1, 2, 3, 4
    HAVING sum(energy_mj) <> 0
)
SELECT s.account_id, s.interval_start, s.pool, max(s.factory_version) AS factory_version,
       sum(s.energy_mj) AS energy_mj, sum(u.output_tokens) AS output_tokens,
       max(e.measured_mj) AS measured_mj, max(e.estimated_mj) AS estimated_mj
FROM shared s
JOIN pool_usage u USING (pool, interval_start, account_id, sku_id)
JOIN energy_intervals e
  ON e.boundary = :boundary AND e.name = s.pool AND e.interval_start = s.interval_start
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3
""")
_POOL_TOKENS: Final = text("""
SELECT u.account_id, u.interval_start, u.pool, s.model, s.served_model, s.tier, s.mode, s.region,
       u.input_tokens, u.cached_tokens, u.output_tokens
FROM pool_usage u JOIN skus s USING (sku_id)
WHERE u.interval_start >= :start AND u.interval_start < :end
ORDER BY u.account_id, u.interval_start, u.pool, u.sku_id
""")


class ConsumptionStore:
    """Reads what was attributed to whom; safe to share between threads."""

    def __init__(self, engine: Engine, *, factories: FactoryStore) -> None:
        """Take the engine, and where the factory is described."""
        self._engine = engine
        self._factories = factories

    def energy(
        self, *, account_ids: Collection[str], start_ms: int, end_ms: int, boundary: Boundary
    ) -> Iterator[EnergyFact]:
        """Yield the facts in `[start_ms, end_ms)` by account, time and pool; raises Unavailable.

        They are of boards or hosts: no facility's energy is attributed to anybody.
        """
        assert boundary is not Boundary.FACILITY, "energy of a facility is derived"
        values = {
            "accounts": list(account_ids),
            "start": to_time(start_ms),
            "end": to_time(end_ms),
            "boundary": boundary.value,
        }
        with store_faults(), self._engine.connect() as connection:
            connection.execute(SNAPSHOT)
            streamed = connection.execution_options(yield_per=_ROWS_AT_ONCE)
            # Closed also when whoever asked has seen enough.
            with streamed.execute(_ENERGY, values) as rows:
                for row in rows:
                    energy_mj = int(row.energy_mj)
                    yield EnergyFact(
                        account_id=row.account_id,
                        interval_start_ms=to_ms(row.interval_start),
                        pool=row.pool,
                        boundary=boundary,
                        factory_version=row.factory_version,
                        energy_mj=energy_mj,
                        estimated_mj=energy_mj * row.estimated_mj // row.measured_mj,
                        output_tokens=int(row.output_tokens),
                    )

    def pues(self, *, start_ms: int, end_ms: int) -> dict[str, SitePue]:
        """Return the PUE by pool over `[start_ms, end_ms)`, of the sites whose PUE is known.

        Pools stand where the description says that is in force at the end. Raises Unavailable.
        """
        with store_faults(), self._engine.connect() as connection:
            connection.execute(SNAPSHOT)
            factory = self._factories.load_in(connection).at(end_ms - 1)
            sites = read_site_energy(connection, factory=factory, start_ms=start_ms, end_ms=end_ms)
        known = {it.site: it.pue for it in sites if it.pue is not None}
        return {
            name: known[pool.site] for name, pool in factory.pools.items() if pool.site in known
        }

    def pool_tokens(self, *, start_ms: int, end_ms: int) -> Sequence[PoolTokens]:
        """Return the tokens of named pools in `[start_ms, end_ms)`; raises Unavailable."""
        values = {"start": to_time(start_ms), "end": to_time(end_ms)}
        with store_faults(), self._engine.connect() as connection:
            rows = connection.execute(_POOL_TOKENS, values).all()
        return [
            PoolTokens(
                account_id=row.account_id,
                interval_start_ms=to_ms(row.interval_start),
                pool=row.pool,
                model=row.model,
                served_model=row.served_model or row.model,
                tier=row.tier,
                mode=Mode(row.mode),
                region=row.region,
                input_tokens=row.input_tokens,
                cached_tokens=row.cached_tokens,
                output_tokens=row.output_tokens,
            )
            for row in rows
        ]
