"""Energy beside usage on a real Postgres: of whose tokens it is, and absent where none is known."""

import pytest

from meter.domain.errors import InvalidArgument
from meter.domain.interval import INTERVAL_MS
from meter.store.journal import JournalStore
from meter.store.usage import UsageStore
from meter.usage import GroupBy, UsageQuery
from tests.meter.plain_events import BEGIN_MS
from tests.meter.store.recording import administrator, ask, follow, record

pytestmark = pytest.mark.usefixtures("energy")
LATER_MS = BEGIN_MS + INTERVAL_MS


@pytest.fixture
def energy(usage: UsageStore, journal: JournalStore, database_url: str) -> None:
    """Usage of three accounts, and energy of two of them: in two revisions, of two kinds."""
    record(journal, 5)
    record(journal, 7, dimension=1)
    record(journal, 9, dimension=1, end_ms=LATER_MS)
    record(journal, 11, dimension=2)
    follow(usage).count_once()
    with administrator(database_url) as connection:
        connection.execute(
            "INSERT INTO pool_intervals (pool, interval_start) VALUES"
            " ('h100', to_timestamp(%(start)s)), ('h100', to_timestamp(%(later)s)),"
            " ('h200', to_timestamp(%(start)s))",
            {"start": BEGIN_MS // 1000, "later": LATER_MS // 1000},
        )
        connection.execute(
            "INSERT INTO energy_shares (pool, interval_start, boundary, account_id, sku_id, reason,"
            " revision, energy_mj)"
            " SELECT pool, to_timestamp(at), boundary, account, s.sku_id, reason, revision, mj"
            " FROM (VALUES"
            " ('h100', %(start)s, 'board', 'acme', '', 1, 1000),"
            " ('h100', %(start)s, 'board', 'acme', '', 2, -100),"
            " ('h100', %(start)s, 'board', 'acme', 'idle', 1, 20),"
            " ('h200', %(start)s, 'board', 'acme', '', 1, 3),"
            " ('h100', %(start)s, 'host', 'acme', '', 1, 7777777),"
            " ('h100', %(later)s, 'board', 'team', '', 1, 50000),"
            # What later revisions took back altogether is as if it never was.
            " ('h100', %(start)s, 'board', 'team', '', 1, 40),"
            " ('h100', %(start)s, 'board', 'team', '', 2, -40)"
            ") AS shares (pool, at, boundary, account, reason, revision, mj) CROSS JOIN skus s",
            {"start": BEGIN_MS // 1000, "later": LATER_MS // 1000},
        )
        connection.execute(
            "INSERT INTO energy_shares (pool, interval_start, boundary, account_id, reason,"
            " revision, energy_mj) VALUES ('h100', to_timestamp(%s), 'board', '', 'idle', 1, 66)",
            [BEGIN_MS // 1000],
        )


def energy_by(usage: UsageStore, *groups: GroupBy, account_id: str | None = None) -> list[object]:
    """Return the keys and energy of each row."""
    query = UsageQuery(
        account_id=account_id,
        start_ms=BEGIN_MS,
        end_ms=BEGIN_MS + 2 * INTERVAL_MS,
        group_by=groups,
    )
    rows, _ = usage.query(query)
    return [(*row.keys.values(), row.energy_mj) for row in rows]


def test_query__energy_by_account(usage: UsageStore) -> None:
    """Each account has the energy of boards over all revisions; one without any has none."""
    assert energy_by(usage, GroupBy.ACCOUNT) == [("acme", 923), ("other", None), ("team", 50_000)]


def test_query__energy_by_time(usage: UsageStore) -> None:
    """Energy stands in the interval of its tokens."""
    assert energy_by(usage, GroupBy.INTERVAL, GroupBy.ACCOUNT) == [
        (BEGIN_MS, "acme", 923),
        (BEGIN_MS, "other", None),
        (BEGIN_MS, "team", None),
        (LATER_MS, "team", 50_000),
    ]


def test_query__energy_of_a_subtree(usage: UsageStore) -> None:
    """Who asks for an account gets the energy of its tokens alone, in one sum too."""
    assert energy_by(usage, account_id="acme") == [(923,)]
    assert energy_by(usage, account_id="other") == [(None,)]
    assert energy_by(usage, GroupBy.TIER, GroupBy.MODEL) == [("high", "m", 50_923)]


def test_query__no_energy_by_band(usage: UsageStore) -> None:
    """Energy is not known by the length of prompts, and is not guessed."""
    assert energy_by(usage, GroupBy.BAND) == [(0, None)]


def test_query__more_energy_than_a_number_holds(usage: UsageStore, database_url: str) -> None:
    """A sum of energy that no 64-bit number holds is refused, not shown wrongly."""
    with administrator(database_url) as connection:
        connection.execute(
            "UPDATE energy_shares SET energy_mj = 9223372036854775807 WHERE energy_mj > 900"
        )
    acme, *_ = energy_by(usage, GroupBy.INTERVAL, GroupBy.ACCOUNT)
    assert acme == (BEGIN_MS, "acme", 2**63 - 78)
    with pytest.raises(InvalidArgument, match="mJ"):
        energy_by(usage)


def test_usage_daily__energy(database_url: str) -> None:
    """The view has each account's energy of boards by day, and null where none is known."""
    found = ask(database_url, "SELECT account_id, energy_mj FROM usage_daily ORDER BY 1")
    assert found == [("acme", 923), ("other", None), ("team", 50_000)]
