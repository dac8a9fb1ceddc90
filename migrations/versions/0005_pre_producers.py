"""Producers: what is expected of each, and how far it says that it has come."""

from alembic import op

revision = "0005_pre_producers"
down_revision = "0004_pre_installation"

# 1 registered, 2 active, 3 retired. Whoever reported before there were states is active.
_PRODUCERS = """
ALTER TABLE producers
    ADD COLUMN state smallint NOT NULL DEFAULT 2 CHECK (state BETWEEN 1 AND 3),
    ADD COLUMN announced_sequence bigint NOT NULL DEFAULT 0,
    ADD COLUMN key_id text COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN create_time timestamptz NOT NULL DEFAULT now(),
    ALTER COLUMN seen_time DROP NOT NULL;
"""


def upgrade() -> None:
    """Add the columns; the constant defaults rewrite nothing."""
    op.execute(_PRODUCERS)
