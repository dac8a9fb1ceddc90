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
    begin_count integer NOT NULL DEFAULT 0,
    end_count integer NOT NULL DEFAULT 0,
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
# Each hour or day is added up by itself, found by the indexes of time: of a long history, whoever
# asks for some of it reads no more than that. OFFSET 0 keeps a day's two sums together: beside
# chosen accounts alone, the second might be made once for each row of the first.
_VIEWS = """
CREATE VIEW efficiency_hourly AS
SELECT hour, pool, boundary, tier, model, reason, input_tokens, cached_tokens, output_tokens,
       total_tokens, energy_mj, attributed_output_tokens, valid_energy_mj, valid_output_tokens
FROM (
    SELECT date_trunc('hour', min(interval_start), 'UTC') AS first, max(interval_start) AS last
    FROM pool_intervals
) AS bounds
CROSS JOIN LATERAL generate_series(first, last, interval '1 hour') AS hours (hour)
CROSS JOIN LATERAL (
    SELECT pool, boundary, tier, model, reason,
           sum(input_tokens)::bigint AS input_tokens,
           sum(cached_tokens)::bigint AS cached_tokens,
           sum(output_tokens)::bigint AS output_tokens,
           sum(total_tokens)::bigint AS total_tokens,
           sum(energy_mj)::bigint AS energy_mj,
           sum(attributed_output_tokens)::bigint AS attributed_output_tokens,
           sum(valid_energy_mj)::bigint AS valid_energy_mj,
           sum(valid_output_tokens)::bigint AS valid_output_tokens
    FROM (
        SELECT u.pool, b.boundary, s.tier, s.model, '' AS reason,
               u.input_tokens, u.cached_tokens, u.output_tokens, u.total_tokens, a.energy_mj,
               CASE WHEN a.energy_mj IS NULL THEN 0 ELSE u.output_tokens END
                   AS attributed_output_tokens,
               CASE WHEN i.fault = '' THEN a.energy_mj END AS valid_energy_mj,
               CASE WHEN a.energy_mj IS NULL OR i.fault <> '' THEN 0 ELSE u.output_tokens END
                   AS valid_output_tokens
        FROM pool_usage u
        CROSS JOIN (VALUES ('board'), ('host')) AS b (boundary)
        JOIN skus s USING (sku_id)
        LEFT JOIN (
            SELECT pool, interval_start, boundary, account_id, sku_id,
                   nullif(sum(energy_mj), 0) AS energy_mj
            FROM energy_shares
            WHERE sku_id IS NOT NULL
              AND interval_start >= hour AND interval_start < hour + interval '1 hour'
            GROUP BY 1, 2, 3, 4, 5
        ) AS a USING (pool, interval_start, boundary, account_id, sku_id)
        LEFT JOIN pool_intervals i USING (pool, interval_start)
        WHERE u.interval_start >= hour AND u.interval_start < hour + interval '1 hour'
          -- Tokens whose energy is not known stand under the boards.
          AND (b.boundary = 'board' OR a.energy_mj IS NOT NULL)
        UNION ALL
        SELECT pool, boundary, '', '', reason, 0, 0, 0, 0, energy_mj, 0, NULL, 0
        FROM energy_shares
        WHERE sku_id IS NULL
          AND interval_start >= hour AND interval_start < hour + interval '1 hour'
        UNION ALL
        SELECT name, boundary, '', '', 'pending', 0, 0, 0, 0, measured_mj, 0, NULL, 0
        FROM energy_intervals
        WHERE boundary IN ('board', 'host')
          AND interval_start >= hour AND interval_start < hour + interval '1 hour'
        UNION ALL
        SELECT pool, boundary, '', '', 'pending', 0, 0, 0, 0, -energy_mj, 0, NULL, 0
        FROM energy_shares
        WHERE interval_start >= hour AND interval_start < hour + interval '1 hour'
    ) AS parts
    GROUP BY 1, 2, 3, 4, 5
    HAVING reason = '' OR sum(energy_mj) <> 0
) AS within;
CREATE OR REPLACE VIEW usage_daily AS
SELECT at::date AS day, account_id, handle, model, served_model, tier,
       CASE mode WHEN 1 THEN 'online' WHEN 2 THEN 'batch' END AS mode, region,
       {classes}, request_count, delivered_output_count, estimated_count, energy_mj
FROM (
    SELECT (min(interval_start) AT TIME ZONE 'UTC')::date AS first,
           (max(interval_start) AT TIME ZONE 'UTC')::date AS last
    FROM usage
) AS bounds
CROSS JOIN LATERAL generate_series(first::timestamp, last::timestamp, interval '1 day') AS days (at)
CROSS JOIN LATERAL (
    SELECT used.*, energy_mj
    FROM (
        SELECT account_id, sku_id,
               {sums},
               sum(request_count)::bigint AS request_count,
               sum(delivered_output_count)::bigint AS delivered_output_count,
               sum(estimated_count)::bigint AS estimated_count
        FROM usage
        WHERE interval_start >= at AT TIME ZONE 'UTC'
          AND interval_start < (at + interval '1 day') AT TIME ZONE 'UTC'
        GROUP BY 1, 2
    ) AS used
    LEFT JOIN (
        SELECT account_id, sku_id, nullif(sum(energy_mj), 0)::bigint AS energy_mj
        FROM energy_shares
        WHERE interval_start >= at AT TIME ZONE 'UTC'
          AND interval_start < (at + interval '1 day') AT TIME ZONE 'UTC'
          AND boundary = 'board' AND sku_id IS NOT NULL
        GROUP BY 1, 2
    ) AS energy USING (account_id, sku_id)
    OFFSET 0
) AS within
JOIN accounts USING (account_id)
JOIN skus USING (sku_id);
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
    sums = ",\n               ".join(f"sum({name})::bigint AS {name}" for name in _CLASSES)
    classes = ", ".join(_CLASSES)
    op.execute(_VIEWS.format(sums=sums, classes=classes))
    op.execute(_GRANTS)
