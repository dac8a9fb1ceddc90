"""The audit of energy on a real Postgres: what is attributed is what was measured, by boundary."""

from sqlalchemy import Engine

from meter.counting.auditor import Auditor
from meter.counting.findings import Check
from meter.store.audit import AuditStore
from tests.meter.store.recording import administrator

_POOLS = "INSERT INTO pool_intervals (pool, interval_start, version, attributed_version)"
_ENERGY = "INSERT INTO energy_intervals (boundary, name, interval_start, measured_mj)"
_SHARES = "INSERT INTO energy_shares"


def test_audit__energy_apart(engine: Engine, database_url: str) -> None:
    """Shares that do not come to what was measured are named; what is under way is let be."""
    with administrator(database_url) as connection:
        connection.execute("SET session_replication_role = replica")
        for statement in (
            f"{_POOLS} VALUES ('h', to_timestamp(900), 2, 2)",
            f"{_POOLS} VALUES ('h', to_timestamp(1800), 2, 1)",
            f"{_POOLS} VALUES ('h', to_timestamp(2700), 1, 1)",
            f"{_ENERGY} VALUES ('board', 'h', to_timestamp(900), 50)",
            f"{_ENERGY} VALUES ('board', 'h', to_timestamp(1800), 50)",
            f"{_ENERGY} VALUES ('board', 'h', to_timestamp(2700), 9)",
            # Of another boundary, and of a site's meter, which has no shares.
            f"{_ENERGY} VALUES ('host', 'h', to_timestamp(900), 49)",
            f"{_ENERGY} VALUES ('facility', 'h', to_timestamp(900), 7)",
            f"{_SHARES} VALUES ('h', to_timestamp(900), NULL, 'gap', 1, 49, 'board')",
            f"{_SHARES} VALUES ('h', to_timestamp(900), NULL, 'gap', 1, 50, 'host')",
            f"{_SHARES} VALUES ('h', to_timestamp(2700), NULL, 'gap', 1, 4, 'board')",
            f"{_SHARES} VALUES ('h', to_timestamp(2700), 1, '', 1, 5, 'board')",
        ):
            connection.execute(statement)
    auditor = Auditor(AuditStore(engine))
    found = auditor.audit(since_ms=None, until_ms=None)
    assert [it.says for it in found.findings if it.check is Check.ENERGY] == [
        "1970-01-01T00:15:00Z pool h, board: 50 mJ measured, 49 mJ attributed and unattributed",
        "1970-01-01T00:15:00Z pool h, host: 49 mJ measured, 50 mJ attributed and unattributed",
    ]
    assert found.energy_count == 3
    assert auditor.audit(since_ms=1_800_000, until_ms=None).findings == []
