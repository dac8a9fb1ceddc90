"""Segments of version 3 may be written: no server runs any more that does not read them."""

from alembic import op

revision = "0019_post_segments"
down_revision = "0018_post_reports"


def upgrade() -> None:
    """Say so; servers hear it when they next connect."""
    op.execute("INSERT INTO segment_versions (version) VALUES (3) ON CONFLICT DO NOTHING")
