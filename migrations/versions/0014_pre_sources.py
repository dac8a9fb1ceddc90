"""Several may report one request: which report is counted, what others said, the originals."""

from alembic import op

revision = "0014_pre_sources"
down_revision = "0013_post_migrator"

# What an observed request is counted by: who reported it, how good the report is, a hash of what is
# billed by it, its tokens, and whether it is one answer of several. The segment is the one in which
# the first report lies; the correction is the last that put a better report in its place. Claims of
# events that nobody else reports have none of it.
_CLAIMS = """
ALTER TABLE event_claims
    ADD COLUMN IF NOT EXISTS source smallint,
    ADD COLUMN IF NOT EXISTS report_rank smallint,
    ADD COLUMN IF NOT EXISTS billed_hash uuid,
    ADD COLUMN IF NOT EXISTS token_count bigint,
    ADD COLUMN IF NOT EXISTS is_choice boolean,
    ADD COLUMN IF NOT EXISTS shard smallint,
    ADD COLUMN IF NOT EXISTS position bigint,
    ADD COLUMN IF NOT EXISTS correction_id bigint;
"""

# Reports of requests that were counted by another report. State: 1 to be compared, 2 evidence,
# 3 counted in the other's place.
_OBSERVATIONS = """
CREATE TABLE IF NOT EXISTS observations (
    observation_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_key uuid NOT NULL,
    report_key uuid NOT NULL,
    source smallint NOT NULL,
    report_rank smallint NOT NULL,
    billed_hash uuid NOT NULL,
    token_count bigint NOT NULL,
    is_choice boolean NOT NULL,
    state smallint NOT NULL DEFAULT 1 CHECK (state BETWEEN 1 AND 3),
    receive_time timestamptz NOT NULL,
    key_id text COLLATE "C" NOT NULL,
    profile text COLLATE "C" NOT NULL,
    event bytea NOT NULL,
    UNIQUE (event_key, report_key)
);
CREATE INDEX IF NOT EXISTS observations_waiting ON observations (observation_id) WHERE state = 1;
CREATE INDEX IF NOT EXISTS observations_receive_time ON observations (receive_time);
"""

# Usage objects as they came, a row for each call: JSON, compressed; see
# `meter/sources/originals.py`.
_ORIGINALS = """
CREATE TABLE IF NOT EXISTS usage_originals (
    original_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    receive_time timestamptz NOT NULL,
    source smallint NOT NULL,
    profile text COLLATE "C" NOT NULL,
    event_count integer NOT NULL,
    first_end_time timestamptz NOT NULL,
    last_end_time timestamptz NOT NULL,
    body bytea NOT NULL
);
CREATE INDEX IF NOT EXISTS usage_originals_receive_time ON usage_originals (receive_time);
"""

# Who reported what was set aside: released, it is counted as one report of its request.
_QUARANTINE = """
ALTER TABLE quarantine
    ADD COLUMN IF NOT EXISTS source smallint,
    ADD COLUMN IF NOT EXISTS is_choice boolean;
"""

_RIGHTS = """
GRANT UPDATE (source, report_rank, token_count, is_choice, correction_id)
    ON event_claims TO tokenworks_ingest;
GRANT SELECT, INSERT, DELETE ON observations, usage_originals TO tokenworks_ingest;
GRANT UPDATE (state) ON observations TO tokenworks_ingest;
"""


def upgrade() -> None:
    """Only add: nullable columns, and tables."""
    op.execute(_CLAIMS)
    op.execute(_OBSERVATIONS)
    op.execute(_ORIGINALS)
    op.execute(_QUARANTINE)
    op.execute(_RIGHTS)
