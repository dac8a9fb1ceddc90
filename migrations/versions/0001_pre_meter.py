"""The meter: accounts, keys, journal, producers, claims, quarantine, usage, cuts."""

from alembic import op

revision = "0001_pre_meter"
down_revision = None

_ACCOUNTS = """
CREATE TABLE registry (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    version bigint NOT NULL DEFAULT 1
);
INSERT INTO registry DEFAULT VALUES;
CREATE TABLE accounts (
    account_id text COLLATE "C" PRIMARY KEY,
    handle text NOT NULL,
    create_time timestamptz NOT NULL,
    close_time timestamptz
);
CREATE TABLE account_parents (
    account_id text COLLATE "C" NOT NULL REFERENCES accounts,
    start_time timestamptz NOT NULL,
    parent_id text COLLATE "C" REFERENCES accounts,
    PRIMARY KEY (account_id, start_time),
    CHECK (parent_id <> account_id)
);
CREATE TABLE api_keys (
    key_id text COLLATE "C" PRIMARY KEY,
    account_id text COLLATE "C" REFERENCES accounts,
    prefix text NOT NULL,
    secret_hash bytea NOT NULL UNIQUE,
    create_time timestamptz NOT NULL,
    end_time timestamptz,
    rotated_from text COLLATE "C" REFERENCES api_keys,
    description text NOT NULL DEFAULT ''
);
CREATE TABLE api_key_scopes (
    key_id text COLLATE "C" NOT NULL REFERENCES api_keys,
    permission smallint NOT NULL,
    account_id text COLLATE "C" REFERENCES accounts,
    UNIQUE NULLS NOT DISTINCT (key_id, permission, account_id)
);
"""

_JOURNAL = """
CREATE TABLE skus (
    sku_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model text COLLATE "C" NOT NULL,
    served_model text COLLATE "C" NOT NULL,
    tier text COLLATE "C" NOT NULL,
    mode smallint NOT NULL,
    region text COLLATE "C" NOT NULL,
    UNIQUE (model, served_model, tier, mode, region)
);
CREATE TABLE dimensions (
    dimension_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id text COLLATE "C" NOT NULL REFERENCES accounts,
    sku_id integer NOT NULL REFERENCES skus,
    pool text COLLATE "C" NOT NULL,
    UNIQUE (account_id, sku_id, pool)
);
CREATE TABLE shards (
    shard smallint PRIMARY KEY,
    epoch bigint NOT NULL,
    position bigint NOT NULL
);
CREATE TABLE journal (
    shard smallint NOT NULL REFERENCES shards,
    position bigint NOT NULL CHECK (position > 0),
    epoch bigint NOT NULL,
    event_count integer NOT NULL CHECK (event_count >= 0),
    first_end_time timestamptz NOT NULL,
    last_end_time timestamptz NOT NULL,
    commit_time timestamptz NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (shard, position)
);
ALTER TABLE journal ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE TABLE producers (
    account_id text COLLATE "C" NOT NULL,
    producer text COLLATE "C" NOT NULL,
    instance bytea NOT NULL CHECK (octet_length(instance) = 16),
    sequence bigint NOT NULL,
    digests bytea NOT NULL,
    seen_time timestamptz NOT NULL,
    PRIMARY KEY (account_id, producer)
);
CREATE TABLE producer_instances (
    account_id text COLLATE "C" NOT NULL,
    producer text COLLATE "C" NOT NULL,
    instance bytea NOT NULL,
    open_time timestamptz NOT NULL,
    PRIMARY KEY (account_id, producer, instance)
);
CREATE TABLE producer_gaps (
    account_id text COLLATE "C" NOT NULL,
    producer text COLLATE "C" NOT NULL,
    first_sequence bigint NOT NULL,
    last_sequence bigint NOT NULL CHECK (last_sequence >= first_sequence),
    found_time timestamptz NOT NULL,
    PRIMARY KEY (account_id, producer, first_sequence)
);
CREATE TABLE event_claims (
    event_key uuid PRIMARY KEY,
    content_hash uuid NOT NULL,
    claim_time timestamptz NOT NULL
);
CREATE INDEX event_claims_by_time ON event_claims USING brin (claim_time);
CREATE TABLE quarantine (
    quarantine_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    outcome smallint NOT NULL,
    state smallint NOT NULL DEFAULT 1,
    received_time timestamptz NOT NULL,
    key_id text COLLATE "C" NOT NULL,
    producer text COLLATE "C" NOT NULL,
    sequence bigint NOT NULL,
    event_index integer NOT NULL,
    payload bytea NOT NULL,
    decide_time timestamptz,
    decided_by text COLLATE "C",
    reason text
);
CREATE INDEX quarantine_whole_batches ON quarantine (producer, sequence) WHERE event_index < 0;
CREATE INDEX quarantine_held ON quarantine (quarantine_id) WHERE state = 1;
"""

_USAGE = """
CREATE TABLE counting (
    shard smallint PRIMARY KEY REFERENCES shards,
    position bigint NOT NULL,
    counted_until timestamptz NOT NULL
);
CREATE TABLE cuts (
    cut_id integer PRIMARY KEY CHECK (cut_id > 0),
    cut_time timestamptz NOT NULL
);
CREATE TABLE cut_positions (
    cut_id integer NOT NULL REFERENCES cuts,
    shard smallint NOT NULL REFERENCES shards,
    position bigint NOT NULL,
    PRIMARY KEY (cut_id, shard)
);
CREATE TABLE usage (
    account_id text COLLATE "C" NOT NULL REFERENCES accounts,
    interval_start timestamptz NOT NULL
        CHECK (extract(epoch FROM interval_start)::bigint % 900 = 0),
    sku_id integer NOT NULL REFERENCES skus,
    band smallint NOT NULL,
    finish_class smallint NOT NULL,
    cut_id integer NOT NULL,
    {classes},
    request_count bigint NOT NULL,
    delivered_output_count bigint NOT NULL,
    estimated_count bigint NOT NULL,
    PRIMARY KEY (account_id, interval_start, sku_id, band, finish_class, cut_id)
) WITH (fillfactor = 70);
CREATE INDEX usage_by_interval ON usage (interval_start);
CREATE VIEW usage_daily AS
SELECT (u.interval_start AT TIME ZONE 'UTC')::date AS day, u.account_id, a.handle,
       s.model, s.served_model, s.tier,
       CASE s.mode WHEN 1 THEN 'online' WHEN 2 THEN 'batch' END AS mode, s.region,
       {sums},
       sum(u.request_count)::bigint AS request_count,
       sum(u.delivered_output_count)::bigint AS delivered_output_count,
       sum(u.estimated_count)::bigint AS estimated_count
FROM usage u JOIN accounts a USING (account_id) JOIN skus s USING (sku_id)
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8;
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

# Roles live in the cluster, not in the database: another database may have made them.
_ROLES = """
DO $$ BEGIN
    BEGIN CREATE ROLE tokenworks_service NOLOGIN;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END;
    BEGIN CREATE ROLE tokenworks_reader NOLOGIN;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END;
    EXECUTE format('GRANT tokenworks_service TO %I', current_user);
EXCEPTION WHEN OTHERS THEN
    IF SQLERRM LIKE '%concurrently%' THEN NULL; ELSE RAISE; END IF;
END $$;
GRANT USAGE ON SCHEMA public TO tokenworks_service, tokenworks_reader;
GRANT SELECT, INSERT ON account_parents, api_key_scopes, skus, dimensions, journal,
    producer_instances, producer_gaps, cuts, cut_positions TO tokenworks_service;
GRANT SELECT, INSERT, UPDATE ON accounts, api_keys, shards, producers, counting, usage
    TO tokenworks_service;
GRANT SELECT, UPDATE ON registry TO tokenworks_service;
GRANT SELECT, INSERT, UPDATE (state, decide_time, decided_by, reason) ON quarantine
    TO tokenworks_service;
GRANT SELECT, INSERT, DELETE ON event_claims TO tokenworks_service;
GRANT SELECT ON alembic_version TO tokenworks_service;
GRANT SELECT ON usage_daily TO tokenworks_reader, tokenworks_service;
"""


def upgrade() -> None:
    """Create all of it; facts are append-only by privilege of the service's role."""
    op.execute(_ACCOUNTS)
    op.execute(_JOURNAL)
    classes = ",\n    ".join(f"{name} bigint NOT NULL" for name in _CLASSES)
    sums = ",\n       ".join(f"sum(u.{name})::bigint AS {name}" for name in _CLASSES)
    op.execute(_USAGE.format(classes=classes, sums=sums))
    op.execute(_ROLES)
