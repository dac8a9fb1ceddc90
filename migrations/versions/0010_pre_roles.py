"""Roles: who may do what, on the wire and in the database."""

from alembic import op

revision = "0010_pre_roles"
down_revision = "0009_pre_leases"

_SQL = """
ALTER TABLE api_keys ADD COLUMN certificate_name text COLLATE "C" UNIQUE;
"""


def upgrade() -> None:
    """Do so."""
    op.execute(_SQL)
