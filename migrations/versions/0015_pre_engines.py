"""What inference engines counted themselves: where their counters stand, and tokens by interval."""

from alembic import op

revision = "0015_pre_engines"
down_revision = "0014_pre_sources"

# A replica is the URL of its page. Its row is the lock of whoever records what it shows. What is
# known of it lies between the two times; before the first nothing was compared.
_TABLES = """
CREATE TABLE IF NOT EXISTS engine_replicas (
    replica text COLLATE "C" PRIMARY KEY,
    pool text COLLATE "C" NOT NULL CHECK (pool <> ''),
    profile text COLLATE "C" NOT NULL,
    first_time timestamptz NOT NULL,
    read_time timestamptz NOT NULL CHECK (read_time >= first_time)
);
CREATE INDEX IF NOT EXISTS engine_replicas_pool ON engine_replicas (pool);
CREATE TABLE IF NOT EXISTS engine_counters (
    replica text COLLATE "C" NOT NULL,
    series text COLLATE "C" NOT NULL,
    tokens bigint NOT NULL CHECK (tokens >= 0),
    PRIMARY KEY (replica, series)
);
CREATE TABLE IF NOT EXISTS engine_intervals (
    pool text COLLATE "C" NOT NULL CHECK (pool <> ''),
    interval_start timestamptz NOT NULL
        CHECK (extract(epoch FROM interval_start)::bigint % 900 = 0),
    replica text COLLATE "C" NOT NULL,
    model text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('prompt', 'uncached_prompt', 'output')),
    tokens bigint NOT NULL,
    gap_tokens bigint NOT NULL,
    reset_count integer NOT NULL,
    PRIMARY KEY (pool, interval_start, replica, model, kind),
    CHECK (gap_tokens BETWEEN 0 AND tokens)
) WITH (fillfactor = 70);
"""

_RIGHTS = """
GRANT SELECT, INSERT, UPDATE, DELETE ON engine_replicas, engine_intervals, engine_counters
    TO tokenworks_ingest;
GRANT SELECT ON engine_replicas, engine_intervals TO tokenworks_billing;
"""


def upgrade() -> None:
    """Only add tables."""
    op.execute(_TABLES)
    op.execute(_RIGHTS)
