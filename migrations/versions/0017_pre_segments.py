"""Which versions of segments may be written: those that every server of the database reads."""

from alembic import op

revision = "0017_pre_segments"
down_revision = "0016_pre_reports"

# Without a row it is what servers of before read: version 1, and 2 of corrections.
_TABLE = """
CREATE TABLE IF NOT EXISTS segment_versions (version smallint PRIMARY KEY CHECK (version > 2));
GRANT SELECT ON segment_versions TO tokenworks_ingest;
"""


def upgrade() -> None:
    """Only add a table, an empty one."""
    op.execute(_TABLE)
