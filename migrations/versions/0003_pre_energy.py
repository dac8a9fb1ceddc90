"""Energy: counters, energy by interval and pool, its attribution."""

from alembic import op

revision = "0003_pre_energy"
down_revision = "0002_pre_billing"

_TABLES = """
CREATE TABLE energy_counters (
    pool text COLLATE "C" NOT NULL,
    device text COLLATE "C" NOT NULL,
    source text NOT NULL CHECK (source IN ('dcgm', 'reported')),
    counter_mj bigint NOT NULL CHECK (counter_mj >= 0),
    sample_time timestamptz NOT NULL,
    PRIMARY KEY (pool, device)
);
CREATE TABLE pool_intervals (
    pool text COLLATE "C" NOT NULL CHECK (pool <> ''),
    interval_start timestamptz NOT NULL
        CHECK (extract(epoch FROM interval_start)::bigint % 900 = 0),
    measured_mj bigint NOT NULL DEFAULT 0,
    gap_mj bigint NOT NULL DEFAULT 0,
    gap_ms bigint NOT NULL DEFAULT 0,
    reset_count integer NOT NULL DEFAULT 0,
    version bigint NOT NULL DEFAULT 1,
    attributed_version bigint NOT NULL DEFAULT 0 CHECK (attributed_version <= version),
    PRIMARY KEY (pool, interval_start),
    CHECK (gap_mj BETWEEN 0 AND measured_mj)
) WITH (fillfactor = 70);
CREATE INDEX pool_intervals_by_time ON pool_intervals (interval_start);
CREATE INDEX pool_intervals_due ON pool_intervals (interval_start)
    WHERE version <> attributed_version;
CREATE TABLE pool_usage (
    pool text COLLATE "C" NOT NULL CHECK (pool <> ''),
    interval_start timestamptz NOT NULL
        CHECK (extract(epoch FROM interval_start)::bigint % 900 = 0),
    sku_id integer NOT NULL REFERENCES skus,
    output_tokens bigint NOT NULL,
    total_tokens bigint NOT NULL,
    request_count bigint NOT NULL,
    PRIMARY KEY (pool, interval_start, sku_id)
) WITH (fillfactor = 70);
CREATE INDEX pool_usage_by_time ON pool_usage (interval_start);
CREATE TABLE energy_shares (
    pool text COLLATE "C" NOT NULL,
    interval_start timestamptz NOT NULL,
    sku_id integer REFERENCES skus,
    reason text NOT NULL,
    revision integer NOT NULL CHECK (revision > 0),
    energy_mj bigint NOT NULL CHECK (energy_mj <> 0),
    UNIQUE NULLS NOT DISTINCT (pool, interval_start, sku_id, reason, revision),
    FOREIGN KEY (pool, interval_start) REFERENCES pool_intervals,
    CHECK ((sku_id IS NULL) = (reason IN ('gap', 'no_tokens')) AND (sku_id IS NULL OR reason = ''))
);
CREATE INDEX energy_shares_by_time ON energy_shares (interval_start);
"""

# Energy that is not known is NULL and not 0: a ratio of it is NULL too. What is measured and not
# attributed yet is `pending`, so that the sum over all rows is always what was measured.
_VIEW = """
CREATE VIEW efficiency_hourly AS
WITH attributed AS (
    SELECT pool, interval_start, sku_id, nullif(sum(energy_mj), 0) AS energy_mj
    FROM energy_shares
    WHERE sku_id IS NOT NULL
    GROUP BY 1, 2, 3
), parts AS (
    SELECT u.interval_start, u.pool, s.tier, s.model, '' AS reason,
           u.output_tokens, u.total_tokens, a.energy_mj,
           CASE WHEN a.energy_mj IS NULL THEN 0 ELSE u.output_tokens END
               AS attributed_output_tokens
    FROM pool_usage u
    JOIN skus s USING (sku_id)
    LEFT JOIN attributed a USING (pool, interval_start, sku_id)
    UNION ALL
    SELECT interval_start, pool, '', '', reason, 0, 0, energy_mj, 0
    FROM energy_shares WHERE sku_id IS NULL
    UNION ALL
    SELECT interval_start, pool, '', '', 'pending', 0, 0, measured_mj, 0 FROM pool_intervals
    UNION ALL
    SELECT interval_start, pool, '', '', 'pending', 0, 0, -energy_mj, 0 FROM energy_shares
)
SELECT date_trunc('hour', interval_start, 'UTC') AS hour, pool, tier, model,
       sum(output_tokens)::bigint AS output_tokens,
       sum(total_tokens)::bigint AS total_tokens,
       sum(energy_mj)::bigint AS energy_mj,
       reason,
       sum(attributed_output_tokens)::bigint AS attributed_output_tokens
FROM parts
GROUP BY 1, 2, 3, 4, reason
HAVING reason = '' OR sum(energy_mj) <> 0;
"""

_GRANTS = """
GRANT SELECT, INSERT ON energy_shares TO tokenworks_service;
GRANT SELECT, INSERT, UPDATE ON pool_intervals, pool_usage TO tokenworks_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON energy_counters TO tokenworks_service;
GRANT SELECT ON efficiency_hourly TO tokenworks_reader, tokenworks_service;
"""


def upgrade() -> None:
    """Create all of it; what was attributed is append-only by privilege of the service's role."""
    op.execute(_TABLES)
    op.execute(_VIEW)
    op.execute(_GRANTS)
