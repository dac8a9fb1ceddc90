"""Shards of the journal are held for a time, and whoever dies lets go of them."""

from alembic import op

revision = "0009_pre_leases"
down_revision = "0008_pre_periods"

# By the database's clock; without an owner, a shard is anybody's.
_SQL = """
ALTER TABLE shards ADD COLUMN owner text COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN lease_until timestamptz;
-- What one server does for all of them.
CREATE TABLE task_leases (
    task text COLLATE "C" PRIMARY KEY,
    owner text COLLATE "C" NOT NULL,
    lease_until timestamptz NOT NULL
);
GRANT SELECT, INSERT, UPDATE, DELETE ON task_leases TO tokenworks_service;
"""


def upgrade() -> None:
    """Do so."""
    op.execute(_SQL)
