"""The factory: energy by boundary and account, its description, software marks."""

from alembic import op

revision = "0007_pre_factory"
down_revision = "0006_pre_corrections"

# What was measured moves out of `pool_intervals`, which only says what is to be attributed anew: a
# pool has energy of several boundaries, and a site's meter has no pool.
_MEASURED = """
CREATE TABLE energy_intervals (
    boundary text NOT NULL CHECK (boundary IN ('board', 'host', 'facility')),
    name text COLLATE "C" NOT NULL CHECK (name <> ''),
    interval_start timestamptz NOT NULL
        CHECK (extract(epoch FROM interval_start)::bigint % 900 = 0),
    measured_mj bigint NOT NULL DEFAULT 0,
    estimated_mj bigint NOT NULL DEFAULT 0,
    gap_mj bigint NOT NULL DEFAULT 0,
    unmapped_mj bigint NOT NULL DEFAULT 0,
    covered_ms bigint NOT NULL DEFAULT 0,
    gap_ms bigint NOT NULL DEFAULT 0,
    reset_count integer NOT NULL DEFAULT 0,
    PRIMARY KEY (boundary, name, interval_start),
    CHECK (gap_mj >= 0 AND unmapped_mj >= 0 AND gap_mj + unmapped_mj <= measured_mj),
    CHECK (estimated_mj BETWEEN 0 AND measured_mj)
) WITH (fillfactor = 70);
CREATE INDEX energy_intervals_by_time ON energy_intervals (interval_start);
INSERT INTO energy_intervals
    (boundary, name, interval_start, measured_mj, gap_mj, gap_ms, reset_count)
SELECT 'board', pool, interval_start, measured_mj, gap_mj, gap_ms, reset_count
FROM pool_intervals
WHERE measured_mj <> 0 OR gap_ms <> 0 OR reset_count <> 0;
DROP VIEW efficiency_hourly;
ALTER TABLE pool_intervals
    DROP COLUMN measured_mj, DROP COLUMN gap_mj, DROP COLUMN gap_ms, DROP COLUMN reset_count,
    ADD COLUMN fault text NOT NULL DEFAULT '';
"""

# A counter's name is its own everywhere: whoever reads it, in whichever pool.
_COUNTERS = """
DELETE FROM energy_counters c USING energy_counters n
WHERE n.device = c.device AND (n.sample_time, n.pool) > (c.sample_time, c.pool);
ALTER TABLE energy_counters DROP CONSTRAINT energy_counters_pkey, ADD PRIMARY KEY (device);
ALTER TABLE energy_counters RENAME COLUMN pool TO name;
ALTER TABLE energy_counters
    ADD COLUMN boundary text NOT NULL DEFAULT 'board'
        CHECK (boundary IN ('board', 'host', 'facility')),
    DROP CONSTRAINT energy_counters_source_check,
    ADD CHECK (source IN ('dcgm', 'nvml', 'static', 'reported'));
CREATE INDEX energy_counters_by_name ON energy_counters (boundary, name);
"""

# Tokens and shares that were kept before belong to the account '': theirs is not known.
_BY_ACCOUNT = """
ALTER TABLE pool_usage
    ADD COLUMN account_id text COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN input_tokens bigint NOT NULL DEFAULT 0,
    ADD COLUMN cached_tokens bigint NOT NULL DEFAULT 0,
    DROP CONSTRAINT pool_usage_pkey,
    ADD PRIMARY KEY (pool, interval_start, account_id, sku_id);
ALTER TABLE energy_shares
    ADD COLUMN boundary text NOT NULL DEFAULT 'board' CHECK (boundary IN ('board', 'host')),
    ADD COLUMN account_id text COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN factory_version integer NOT NULL DEFAULT 0,
    DROP CONSTRAINT energy_shares_pool_interval_start_sku_id_reason_revision_key,
    ADD UNIQUE NULLS NOT DISTINCT
        (pool, interval_start, boundary, account_id, sku_id, reason, revision),
    DROP CONSTRAINT energy_shares_check,
    ADD CHECK (CASE WHEN sku_id IS NULL
               THEN account_id = '' AND reason IN ('gap', 'idle', 'no_tokens', 'unmapped')
               ELSE reason IN ('', 'idle') END);
CREATE INDEX energy_shares_by_account ON energy_shares (account_id, interval_start)
    WHERE sku_id IS NOT NULL;
"""

_FACTORY = """
CREATE TABLE factory_versions (
    version integer PRIMARY KEY CHECK (version > 0),
    start_time timestamptz NOT NULL UNIQUE
        CHECK (extract(epoch FROM start_time)::bigint % 900 = 0),
    toml text NOT NULL,
    key_id text COLLATE "C" NOT NULL,
    set_time timestamptz NOT NULL
);
CREATE TABLE software_marks (
    pool text COLLATE "C" NOT NULL CHECK (pool <> ''),
    mark_time timestamptz NOT NULL,
    software text COLLATE "C" NOT NULL CHECK (software <> ''),
    key_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (pool, mark_time)
);
"""

# Energy that is not known is NULL and not 0: a ratio of it is NULL too. What is measured and not
# attributed yet is `pending`, so that the sum over all rows of a boundary is what was measured.
# Ratios are made of the valid columns: those of intervals whose power is.
_VIEWS = """
CREATE VIEW efficiency_hourly AS
WITH boundaries (boundary) AS (VALUES ('board'), ('host')),
attributed AS (
    SELECT pool, interval_start, boundary, account_id, sku_id,
           nullif(sum(energy_mj), 0) AS energy_mj
    FROM energy_shares
    WHERE sku_id IS NOT NULL
    GROUP BY 1, 2, 3, 4, 5
), parts AS (
    SELECT u.interval_start, u.pool, b.boundary, s.tier, s.model, '' AS reason,
           u.input_tokens, u.cached_tokens, u.output_tokens, u.total_tokens, a.energy_mj,
           CASE WHEN a.energy_mj IS NULL THEN 0 ELSE u.output_tokens END
               AS attributed_output_tokens,
           CASE WHEN i.fault = '' THEN a.energy_mj END AS valid_energy_mj,
           CASE WHEN a.energy_mj IS NULL OR i.fault <> '' THEN 0 ELSE u.output_tokens END
               AS valid_output_tokens
    FROM pool_usage u
    CROSS JOIN boundaries b
    JOIN skus s USING (sku_id)
    LEFT JOIN attributed a USING (pool, interval_start, boundary, account_id, sku_id)
    LEFT JOIN pool_intervals i USING (pool, interval_start)
    -- Tokens whose energy is not known stand under the boards.
    WHERE b.boundary = 'board' OR a.energy_mj IS NOT NULL
    UNION ALL
    SELECT interval_start, pool, boundary, '', '', reason, 0, 0, 0, 0, energy_mj, 0, NULL, 0
    FROM energy_shares WHERE sku_id IS NULL
    UNION ALL
    SELECT interval_start, name, boundary, '', '', 'pending', 0, 0, 0, 0, measured_mj, 0, NULL, 0
    FROM energy_intervals WHERE boundary IN ('board', 'host')
    UNION ALL
    SELECT interval_start, pool, boundary, '', '', 'pending', 0, 0, 0, 0, -energy_mj, 0, NULL, 0
    FROM energy_shares
)
SELECT date_trunc('hour', interval_start, 'UTC') AS hour, pool, boundary, tier, model, reason,
       sum(input_tokens)::bigint AS input_tokens,
       sum(cached_tokens)::bigint AS cached_tokens,
       sum(output_tokens)::bigint AS output_tokens,
       sum(total_tokens)::bigint AS total_tokens,
       sum(energy_mj)::bigint AS energy_mj,
       sum(attributed_output_tokens)::bigint AS attributed_output_tokens,
       sum(valid_energy_mj)::bigint AS valid_energy_mj,
       sum(valid_output_tokens)::bigint AS valid_output_tokens
FROM parts
GROUP BY 1, 2, 3, 4, 5, 6
HAVING reason = '' OR sum(energy_mj) <> 0;
CREATE OR REPLACE VIEW usage_daily AS
WITH used AS (
    SELECT (interval_start AT TIME ZONE 'UTC')::date AS day, account_id, sku_id,
           {sums},
           sum(request_count)::bigint AS request_count,
           sum(delivered_output_count)::bigint AS delivered_output_count,
           sum(estimated_count)::bigint AS estimated_count
    FROM usage
    GROUP BY 1, 2, 3
), energy AS (
    SELECT (interval_start AT TIME ZONE 'UTC')::date AS day, account_id, sku_id,
           nullif(sum(energy_mj), 0)::bigint AS energy_mj
    FROM energy_shares
    WHERE boundary = 'board' AND sku_id IS NOT NULL
    GROUP BY 1, 2, 3
)
SELECT u.day, u.account_id, a.handle, s.model, s.served_model, s.tier,
       CASE s.mode WHEN 1 THEN 'online' WHEN 2 THEN 'batch' END AS mode, s.region,
       {classes}, u.request_count, u.delivered_output_count, u.estimated_count, e.energy_mj
FROM used u
JOIN accounts a USING (account_id)
JOIN skus s USING (sku_id)
LEFT JOIN energy e USING (day, account_id, sku_id);
"""

_CLASSES = (
    "input",
    "cache_read",
    "cache_write_5m",
    "cache_write_30m",
    "cache_write_1h",
    "cache_write_12h",
    "output",
    "reasoning",
    "audio_input",
    "audio_cache_read",
    "audio_output",
    "image_input",
    "image_cache_read",
    "image_output",
    "video_input",
    "video_output",
)

_GRANTS = """
GRANT SELECT, INSERT ON factory_versions, software_marks TO tokenworks_service;
GRANT SELECT, INSERT, UPDATE ON energy_intervals TO tokenworks_service;
GRANT SELECT ON efficiency_hourly TO tokenworks_reader, tokenworks_service;
"""


def upgrade() -> None:
    """Create all of it; descriptions, marks and shares are append-only by privilege."""
    op.execute(_MEASURED)
    op.execute(_COUNTERS)
    op.execute(_BY_ACCOUNT)
    op.execute(_FACTORY)
    sums = ",\n           ".join(f"sum({name})::bigint AS {name}" for name in _CLASSES)
    classes = ", ".join(f"u.{name}" for name in _CLASSES)
    op.execute(_VIEWS.format(sums=sums, classes=classes))
    op.execute(_GRANTS)
