"""What sites' meters measured, beside the pools that stand there, in Postgres."""

from typing import Final

from sqlalchemy import Connection, text

from meter.domain.times import to_time
from meter.energy.factory import Factory
from meter.energy.sites import MeteredEnergy, SiteEnergy, settle_sites

# A pool's energy is that of its hosts where they are metered, else of its boards: never both.
_METERED: Final = text("""
WITH described AS (
    SELECT pool, site
    FROM unnest(CAST(:pools AS text[]), CAST(:sites AS text[])) AS n (pool, site)
), facility AS (
    SELECT name AS site, interval_start, measured_mj
    FROM energy_intervals
    WHERE boundary = 'facility' AND measured_mj > 0
      AND interval_start >= :start AND interval_start < :end
), pools AS (
    SELECT name AS pool, interval_start,
           coalesce(max(measured_mj) FILTER (WHERE boundary = 'host'), max(measured_mj)) AS it_mj
    FROM energy_intervals
    WHERE boundary IN ('board', 'host') AND measured_mj > 0
      AND interval_start >= :start AND interval_start < :end
    GROUP BY 1, 2
), used AS (
    SELECT site, interval_start, sum(it_mj) AS it_mj
    FROM pools JOIN described USING (pool)
    GROUP BY 1, 2
)
SELECT site, sum(f.measured_mj) AS facility_mj,
       coalesce(sum(f.measured_mj) FILTER (WHERE u.it_mj IS NOT NULL), 0) AS common_facility_mj,
       coalesce(sum(u.it_mj), 0) AS common_pools_mj
FROM facility f LEFT JOIN used u USING (site, interval_start)
GROUP BY site
""")


def read_site_energy(
    connection: Connection, *, factory: Factory, start_ms: int, end_ms: int
) -> list[SiteEnergy]:
    """Return the sites of a description with what was measured in `[start_ms, end_ms)`."""
    pools = list(factory.pools.values())
    values = {
        "pools": [pool.pool for pool in pools],
        "sites": [pool.site for pool in pools],
        "start": to_time(start_ms),
        "end": to_time(end_ms),
    }
    metered = {
        row.site: MeteredEnergy(
            facility_mj=int(row.facility_mj),
            common_facility_mj=int(row.common_facility_mj),
            common_pools_mj=int(row.common_pools_mj),
        )
        for row in connection.execute(_METERED, values)
    }
    return settle_sites(factory, metered)
