"""The installation: whether it lives on the real clock or on a driven one."""

from alembic import op

revision = "0004_pre_installation"
down_revision = "0003_pre_energy"

# Whether the clock is driven is decided once: the service may only move it.
_INSTALLATION = """
CREATE TABLE installation (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    driven boolean NOT NULL,
    driven_time timestamptz,
    CHECK (driven = (driven_time IS NOT NULL))
);
GRANT SELECT, INSERT, UPDATE (driven_time) ON installation TO tokenworks_service;
"""

# Whoever was served before there was a driven clock has lived on the real one.
_MARK = """
INSERT INTO installation (driven)
SELECT false
WHERE EXISTS (SELECT FROM accounts) OR EXISTS (SELECT FROM api_keys) OR EXISTS (SELECT FROM shards);
"""


def upgrade() -> None:
    """Create all of it, and mark a database that is in use."""
    op.execute(_INSTALLATION)
    op.execute(_MARK)
