"""Whose energy it was, which pool served whom, and PUE, as billing reads them from Postgres."""

from decimal import Decimal

import pytest
from sqlalchemy import Engine

from meter.consumption import EnergyFact, PoolTokens, SitePue
from meter.domain.boundary import Boundary
from meter.domain.event import Dimensions, DimensionTable
from meter.domain.interval import INTERVAL_MS
from meter.domain.tokens import Mode
from meter.journal.commit import Submission, commit_group
from meter.store.consumption import ConsumptionStore
from meter.store.factories import FactoryStore
from meter.store.journal import JournalStore
from meter.store.usage import UsageStore
from tests.meter.plain_events import BEGIN_MS, PlainEvent, to_batch
from tests.meter.store.attributed import attribute_all, describe, put_energy
from tests.meter.store.recording import follow, now_ms, origin_of

NEXT_MS = BEGIN_MS + INTERVAL_MS
SPAN = {"start_ms": BEGIN_MS, "end_ms": BEGIN_MS + 2 * INTERVAL_MS}
INPUT, CACHE_READ, OUTPUT = 1, 2, 7


@pytest.fixture
def consumption(engine: Engine) -> ConsumptionStore:
    """Reads what was attributed."""
    return ConsumptionStore(engine, factories=FactoryStore(engine))


def serve(journal: JournalStore, *served: tuple[str, str, dict[int, int], int]) -> None:
    """Record an event for each account, tier, tokens and time, all on the pool h100."""
    table = DimensionTable()
    events = [
        PlainEvent(
            dimension=table.intern(Dimensions(account, "m", "", tier, 1, "h100", "eu")),
            end_ms=end_ms,
            tokens=tokens,
        )
        for account, tier, tokens, end_ms in served
    ]
    batch = to_batch(events, table=table)
    commit_group(journal, [Submission(origin=origin_of(""), batch=batch)], now_ms=now_ms)


@pytest.fixture
def served(engine: Engine, usage: UsageStore, journal: JournalStore, database_url: str) -> None:
    """Two accounts in two intervals, the second of which is described; hosts have energy too."""
    describe(engine, start_ms=NEXT_MS, site='pue = "1.25"', pool='idle_watts = "0.001"')
    serve(
        journal,
        ("acme", "high", {INPUT: 9, OUTPUT: 10}, BEGIN_MS),
        ("acme", "free", {OUTPUT: 20}, BEGIN_MS),
        ("team", "high", {CACHE_READ: 500, OUTPUT: 70}, BEGIN_MS),
        ("acme", "high", {INPUT: 100}, NEXT_MS),
    )
    follow(usage).count_once()
    put_energy(database_url, 1_000, estimated_mj=333)
    put_energy(database_url, 3_000, boundary=Boundary.HOST)
    put_energy(database_url, 1_000, start_ms=NEXT_MS)
    attribute_all(engine)


@pytest.mark.usefixtures("served")
def test_energy__of_accounts(consumption: ConsumptionStore) -> None:
    """Each account has its energy by interval and pool, with the version that it was shared by."""
    boards = list(consumption.energy(account_ids=["acme"], boundary=Boundary.BOARD, **SPAN))
    first = EnergyFact(
        account_id="acme",
        interval_start_ms=BEGIN_MS,
        pool="h100",
        boundary=Boundary.BOARD,
        factory_version=0,
        energy_mj=300,
        # A third of what was measured is no counter's.
        estimated_mj=99,
        output_tokens=30,
    )
    second = EnergyFact(
        account_id="acme",
        interval_start_ms=NEXT_MS,
        pool="h100",
        boundary=Boundary.BOARD,
        factory_version=1,
        energy_mj=100,
        estimated_mj=0,
        output_tokens=0,
    )
    assert boards == [first, second]
    (host,) = consumption.energy(account_ids=["team"], boundary=Boundary.HOST, **SPAN)
    assert (host.account_id, host.energy_mj, host.output_tokens) == ("team", 2_100, 70)
    both = consumption.energy(account_ids=["team", "acme"], boundary=Boundary.BOARD, **SPAN)
    assert [it.account_id for it in both] == ["acme", "acme", "team"]
    assert not list(consumption.energy(account_ids=["other"], boundary=Boundary.BOARD, **SPAN))


@pytest.mark.usefixtures("served")
def test_energy__what_was_taken_back_is_none(
    engine: Engine,
    consumption: ConsumptionStore,
    usage: UsageStore,
    journal: JournalStore,
) -> None:
    """An account whose tokens were taken back has no energy any more, and no tokens with any."""
    serve(
        journal,
        ("acme", "high", {OUTPUT: -10}, BEGIN_MS),
        ("acme", "free", {OUTPUT: -20}, BEGIN_MS),
    )
    follow(usage).count_once()
    attribute_all(engine)
    found = list(consumption.energy(account_ids=["acme"], boundary=Boundary.HOST, **SPAN))
    assert found == []
    (team,) = consumption.energy(account_ids=["team"], boundary=Boundary.HOST, **SPAN)
    assert team.energy_mj == 3_000


@pytest.mark.usefixtures("served")
def test_pues__by_pool(consumption: ConsumptionStore, database_url: str) -> None:
    """A pool has its site's PUE: as described, and as measured once a meter reads."""
    configured = SitePue(site="oslo", pue=Decimal("1.25"), is_measured=False)
    assert consumption.pues(**SPAN) == {"h100": configured}
    # Before it is described no pool stands anywhere.
    assert consumption.pues(start_ms=BEGIN_MS, end_ms=NEXT_MS) == {}
    put_energy(database_url, 4_000, pool="oslo", boundary=Boundary.FACILITY)
    measured = SitePue(site="oslo", pue=Decimal("1.3333"), is_measured=True)
    assert consumption.pues(**SPAN) == {"h100": measured}
    assert consumption.pues(start_ms=NEXT_MS, end_ms=SPAN["end_ms"]) == {"h100": configured}


@pytest.mark.usefixtures("served")
def test_pool_tokens__of_accounts(consumption: ConsumptionStore) -> None:
    """Tokens of a pool are by account, interval and sku, with the three kinds apart."""
    found = consumption.pool_tokens(**SPAN)
    assert len(found) == 4
    assert found[-1] == PoolTokens(
        account_id="team",
        interval_start_ms=BEGIN_MS,
        pool="h100",
        model="m",
        served_model="m",
        tier="high",
        mode=Mode.ONLINE,
        region="eu",
        input_tokens=0,
        cached_tokens=500,
        output_tokens=70,
    )
