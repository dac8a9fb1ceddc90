"""What only servers of before needed is taken away."""

from alembic import op

revision = "0012_post_roles"
down_revision = "0011_pre_parts"

_SQL = """
SELECT 1;
"""


def upgrade() -> None:
    """Do so."""
    op.execute(_SQL)
