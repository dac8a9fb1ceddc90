"""The journal lies in parts by the month, and what is archived is known."""

from alembic import op

revision = "0011_pre_parts"
down_revision = "0010_pre_roles"

# What was applied, by name: a server of an older version sees by it whether what it does not know
# took anything away. Those of before the list have no time.
_HISTORY = """
CREATE TABLE IF NOT EXISTS schema_history (
    name text COLLATE "C" PRIMARY KEY,
    apply_time timestamptz DEFAULT now()
);
INSERT INTO schema_history (name, apply_time)
SELECT name, NULL FROM unnest(ARRAY[
    '0001_pre_meter', '0002_pre_billing', '0003_pre_energy', '0004_pre_installation',
    '0005_pre_producers', '0006_pre_corrections', '0007_pre_factory', '0008_pre_periods',
    '0009_pre_leases', '0010_pre_roles'
]) AS name
ON CONFLICT DO NOTHING;
GRANT SELECT ON schema_history TO tokenworks_service;
"""


def upgrade() -> None:
    """Do so."""
    op.execute(_HISTORY)
