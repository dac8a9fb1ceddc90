"""Shards of the journal are held for a time, and whoever dies lets go of them."""

from alembic import op

revision = "0009_pre_leases"
down_revision = "0008_pre_periods"

# By the database's clock; without an owner, a shard is anybody's.
_SQL = """
ALTER TABLE shards ADD COLUMN owner text COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN lease_until timestamptz;
"""


def upgrade() -> None:
    """Do so."""
    op.execute(_SQL)
