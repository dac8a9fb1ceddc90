"""Billing: price books, contracts, invoices."""

revision = "0002_pre_billing"
down_revision = "0001_pre_meter"


def upgrade() -> None:
    """Create all of it."""
