"""Energy: counters, energy by interval and pool, its attribution."""

revision = "0003_pre_energy"
down_revision = "0002_pre_billing"


def upgrade() -> None:
    """Create all of it."""
