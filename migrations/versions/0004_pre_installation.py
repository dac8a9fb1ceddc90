"""The installation: whether it lives on the real clock or on a driven one."""

revision = "0004_pre_installation"
down_revision = "0003_pre_energy"


def upgrade() -> None:
    """Create all of it."""
