"""Who reported for whom, pair by pair, as only servers of before noted it, is taken away."""

from alembic import op

revision = "0018_post_reports"
down_revision = "0017_pre_segments"


def upgrade() -> None:
    """Drop it; `producer_reports` has all of it."""
    op.execute("DROP TABLE producer_accounts")
    op.execute("DROP FUNCTION gather_producer_accounts()")
