"""What each role may do with each table and view, all of it: what is not here is refused.

The migrations grant it, `doctor` compares it with the database, and a test tries each place. Two
roles write, and neither what is the other's; no fact is in reach of UPDATE or DELETE. That a table
is not here for a role means that it has no right to it.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from meter.runtime.engine import DatabaseRole

READER: Final = "tokenworks_reader"
TENANT: Final = "tokenworks_tenant"
# It owns all that is named here, and whoever migrates acts as it.
MIGRATOR: Final = "tokenworks_migrator"
VERBS: Final[Mapping[str, str]] = {"r": "SELECT", "a": "INSERT", "w": "UPDATE", "d": "DELETE"}

# r SELECT, a INSERT, w UPDATE, d DELETE; c is UPDATE of some columns alone.
_INGEST: Final = {
    "account_parents": "ra",
    "accounts": "raw",
    "alembic_version": "r",
    "api_key_scopes": "ra",
    "api_keys": "raw",
    "archived_segments": "ra",
    "audit_entries": "ra",
    "audit_log": "r",
    "corrections": "ra",
    "counting": "raw",
    "cut_positions": "ra",
    "cuts": "ra",
    "dimensions": "ra",
    "efficiency_hourly": "r",
    "energy_counters": "rawd",
    "energy_intervals": "raw",
    "energy_shares": "ra",
    "engine_counters": "rawd",
    "engine_intervals": "rawd",
    "engine_replicas": "rawd",
    "event_claims": "racd",
    "factory_versions": "ra",
    "installation": "rac",
    "journal": "ra",
    "journal_archives": "ra",
    "journal_parts": "r",
    "journal_segments": "r",
    "observations": "racd",
    "period_totals": "rawd",
    "pool_intervals": "raw",
    "pool_usage": "raw",
    "producer_gaps": "ra",
    "producer_instances": "ra",
    "producer_reports": "ra",
    "producers": "raw",
    "quarantine": "rac",
    "registry": "rw",
    "reports_known": "r",
    "segment_versions": "r",
    "shards": "raw",
    "skus": "ra",
    "software_marks": "ra",
    "task_leases": "rawd",
    "totals_fold": "rw",
    "usage": "raw",
    "usage_corrections": "r",
    "usage_daily": "r",
    "usage_originals": "rad",
}
_BILLING: Final = {
    "account_parents": "r",
    "accounts": "r",
    "archived_segments": "r",
    # It sees the numbers of the entries that it has made, and nothing else of them.
    "audit_entries": "a",
    "billing_periods": "rac",
    "contract_covers": "ra",
    "contracts": "ra",
    "corrections": "r",
    "counting": "r",
    "cut_positions": "r",
    "cuts": "r",
    "dimensions": "r",
    "energy_intervals": "r",
    "energy_shares": "r",
    "engine_intervals": "r",
    "engine_replicas": "r",
    "factory_versions": "r",
    "installation": "r",
    "invoice_credits": "ra",
    "invoice_lines": "r",
    "invoice_numbers": "raw",
    "invoice_papers": "ra",
    "invoice_payments": "r",
    "invoice_voids": "ra",
    "invoices": "r",
    "issued_invoices": "ra",
    "issued_lines": "ra",
    "journal": "r",
    "journal_archives": "r",
    "journal_parts": "r",
    "journal_segments": "r",
    "papers_due": "rawd",
    "payments": "ra",
    "period_approvals": "ra",
    "period_totals": "r",
    "periods": "r",
    "pool_intervals": "r",
    "pool_usage": "r",
    "price_books": "ra",
    "shards": "r",
    "skus": "r",
    "terms": "rw",
    "totals_fold": "r",
    "usage": "r",
}
_READER: Final = dict.fromkeys(
    (
        "audit_log",
        "efficiency_hourly",
        "invoice_lines",
        "invoice_payments",
        "invoices",
        "periods",
        "usage_corrections",
        "usage_daily",
    ),
    "r",
)
RIGHTS: Final[Mapping[str, Mapping[str, str]]] = {
    DatabaseRole.INGEST: _INGEST,
    DatabaseRole.BILLING: _BILLING,
    READER: _READER,
    # Its views are in a schema of their own: see `docs/operating/readers.md`.
    TENANT: {},
}
# What nobody but the owner has anything to do with.
OWN_TABLES: Final = frozenset({"reader_logins", "schema_history"})
# They act as the owner, for whoever may call them.
OWN_FUNCTIONS: Final = frozenset({"drop_journal_part", "make_journal_parts"})


def rights() -> Iterator[tuple[str, str, str, bool]]:
    """Yield role, verb, table and whether it is granted, for each of the tables that are named."""
    tables = sorted({name for held in RIGHTS.values() for name in held})
    for role, held in RIGHTS.items():
        for table in tables:
            for letter, verb in VERBS.items():
                yield role, verb, table, letter in held.get(table, "")
