"""Tokens beside energy, read back: by every split, in SQL too, with pools and sites."""

from decimal import Decimal
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine

from meter.consumption import SitePue
from meter.domain.boundary import Boundary
from meter.domain.errors import InvalidArgument
from meter.domain.interval import INTERVAL_MS
from meter.energy.efficiency import EfficiencyGroup, EfficiencyQuery, PoolEnergy
from meter.energy.sites import SiteEnergy
from meter.store.efficiency import EfficiencyStore
from meter.store.factories import FactoryStore
from meter.store.journal import JournalStore
from meter.store.usage import UsageStore
from tests.meter.plain_events import BEGIN_MS
from tests.meter.store.attributed import attribute_all, describe, pools_of, put_energy, rows_by
from tests.meter.store.pooled import serve
from tests.meter.store.recording import administrator, ask, follow

POOL, TIER, MODEL = EfficiencyGroup.POOL, EfficiencyGroup.TIER, EfficiencyGroup.MODEL
INTERVAL, HOUR, DAY = EfficiencyGroup.INTERVAL, EfficiencyGroup.HOUR, EfficiencyGroup.DAY
ACCOUNT = EfficiencyGroup.ACCOUNT
NEXT_MS = BEGIN_MS + INTERVAL_MS
HOUR_MS, DAY_MS = 4 * INTERVAL_MS, 96 * INTERVAL_MS


@pytest.fixture
def factory(engine: Engine, database_url: str, usage: UsageStore, journal: JournalStore) -> None:
    """Two pools of which one has energy, two tiers, two intervals of which one is attributed."""
    serve(journal, 0, output=10, others=90)
    serve(journal, 1, output=30)
    serve(journal, 2, output=500)
    serve(journal, 0, output=1, end_ms=NEXT_MS)
    follow(usage).count_once()
    put_energy(database_url, 8_000)
    attribute_all(engine)
    put_energy(database_url, 7, start_ms=NEXT_MS)


@pytest.mark.usefixtures("factory")
def test_query__by_tier(engine: Engine) -> None:
    """Tokens of all pools, and those of them that energy was attributed to: the ratio's."""
    free, high = rows_by(engine, TIER)
    assert free.keys == {TIER: "free"}
    assert (free.output_tokens, free.total_tokens, free.request_count) == (11, 101, 2)
    assert (free.input_tokens, free.cached_tokens) == (90, 0)
    assert (free.energy_mj, free.attributed_output_tokens) == (2_000, 10)
    assert (free.valid_energy_mj, free.valid_output_tokens, free.valid_total_tokens) == (
        *(2_000, 10, 100),
    )
    assert (high.output_tokens, high.total_tokens, high.request_count) == (530, 530, 2)
    assert (high.energy_mj, high.attributed_output_tokens) == (6_000, 30)


@pytest.mark.usefixtures("factory")
def test_query__without_energy_is_absent(engine: Engine) -> None:
    """Where no energy is known it is absent, and not 0: nothing is ever divided by it."""
    found = {(row.keys[POOL], row.keys[TIER]): row for row in rows_by(engine, POOL, TIER)}
    without = found["h200", "high"]
    assert (without.energy_mj, without.valid_energy_mj) == (None, None)
    assert (without.attributed_output_tokens, without.valid_output_tokens) == (0, 0)
    assert found["h100", "high"].energy_mj == 6_000


def test_query__ratios_of_valid_intervals_alone(
    engine: Engine, usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """Energy whose interval is not covered is attributed, and in no ratio."""
    for start_ms, gap_ms in ((BEGIN_MS, 0), (NEXT_MS, INTERVAL_MS)):
        put_energy(database_url, 100, start_ms=start_ms, gap_mj=40, gap_ms=gap_ms)
        serve(journal, 0, output=5, others=7, end_ms=start_ms)
    follow(usage).count_once()
    attribute_all(engine)
    (row,) = rows_by(engine)
    assert (row.energy_mj, row.attributed_output_tokens, row.total_tokens) == (120, 10, 24)
    assert (row.valid_energy_mj, row.valid_output_tokens, row.valid_total_tokens) == (60, 5, 12)
    first, second = pools_of(engine, INTERVAL)
    assert (first.start_ms, first.interval_count, first.valid_interval_count) == (BEGIN_MS, 1, 1)
    assert (second.start_ms, second.interval_count, second.valid_interval_count) == (NEXT_MS, 1, 0)


def test_query__share_that_was_taken_back_is_absent(
    engine: Engine, usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """A share that later tokens have made 0 is no energy: its tokens are in no ratio any more."""
    put_energy(database_url, 1)
    for place, output in ((0, 1), (1, 99)):
        serve(journal, place, output=output)
        follow(usage).count_once()
        attribute_all(engine)
    free, high = rows_by(engine, TIER)
    assert (free.energy_mj, free.attributed_output_tokens) == (None, 0)
    assert (high.energy_mj, high.attributed_output_tokens) == (1, 99)
    question = (
        "SELECT tier, energy_mj, attributed_output_tokens FROM efficiency_hourly ORDER BY tier"
    )
    assert ask(database_url, question) == [("free", None, 0), ("high", 1, 99)]


@pytest.mark.usefixtures("factory")
def test_query__by_every_group(engine: Engine) -> None:
    """Each split has its keys in their order, and the same energy in all."""
    cases: list[tuple[tuple[EfficiencyGroup, ...], dict[tuple[Any, ...], int | None] | None]] = [
        ((), {(): 8_000}),
        ((MODEL,), {("m",): 8_000}),
        ((ACCOUNT,), {("acme",): 8_000}),
        ((POOL,), {("h100",): 8_000, ("h200",): None}),
        ((INTERVAL,), {(BEGIN_MS,): 8_000, (NEXT_MS,): None}),
        ((HOUR,), {(BEGIN_MS - BEGIN_MS % HOUR_MS,): 8_000}),
        ((DAY,), {(BEGIN_MS - BEGIN_MS % DAY_MS,): 8_000}),
        ((TIER, INTERVAL), None),
    ]
    for group_by, wanted in cases:
        found = {tuple(row.keys.values()): row.energy_mj for row in rows_by(engine, *group_by)}
        assert list(found) == sorted(found)
        assert sum(it or 0 for it in found.values()) == 8_000
        if wanted is not None:
            assert found == wanted


@pytest.mark.usefixtures("factory")
def test_query__pools_add_up(engine: Engine) -> None:
    """What was measured is attributed, or not for a reason; what is not done yet is pending."""
    pool = PoolEnergy(
        pool="h100",
        start_ms=None,
        measured_mj=8_007,
        attributed_mj=8_000,
        unattributed_mj={"pending": 7},
        estimated_mj=0,
        covered_ms=2 * INTERVAL_MS,
        gap_ms=0,
        reset_count=0,
        interval_count=2,
        # What is attributed anew is as valid as it was; this one never was attributed.
        valid_interval_count=1,
    )
    assert pools_of(engine) == [pool]
    assert pools_of(engine, pool="h100") == [pool]
    assert pools_of(engine, pool="h200") == []
    by_time = pools_of(engine, INTERVAL)
    assert [(it.start_ms, it.measured_mj) for it in by_time] == [(BEGIN_MS, 8_000), (NEXT_MS, 7)]
    assert [it.unattributed_mj for it in by_time] == [{}, {"pending": 7}]


def test_query__hosts_and_boards_apart(
    engine: Engine, usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """Each boundary has its own energy, with its own idling; they are never added up."""
    idle = 'idle_watts = "0.001"\nidle = "proportional"'
    describe(engine, pool=idle)
    serve(journal, 0, output=1)
    follow(usage).count_once()
    put_energy(database_url, 1_000, estimated_mj=300)
    put_energy(database_url, 5_000, boundary=Boundary.HOST)
    attribute_all(engine)
    for boundary, energy_mj, estimated_mj in (
        (Boundary.BOARD, 1_000, 300),
        (Boundary.HOST, 5_000, 0),
    ):
        (row,) = rows_by(engine, boundary=boundary)
        assert (row.energy_mj, row.idle_mj, row.valid_energy_mj) == (energy_mj, 900, energy_mj)
        (pool,) = pools_of(engine, boundary=boundary)
        assert (pool.attributed_mj, pool.unattributed_mj) == (energy_mj, {})
        assert pool.estimated_mj == estimated_mj


def test_query__tells_of_gaps_and_resets(engine: Engine, database_url: str) -> None:
    """A pool without energy whose counters went wrong is told of."""
    put_energy(database_url, 0, gap_ms=5_000)
    with administrator(database_url) as connection:
        connection.execute("UPDATE energy_intervals SET reset_count = 1")
    (pool,) = pools_of(engine)
    assert (pool.measured_mj, pool.unattributed_mj) == (0, {})
    assert (pool.gap_ms, pool.reset_count, pool.interval_count) == (5_000, 1, 0)


def test_query__more_energy_than_a_number_holds(engine: Engine, database_url: str) -> None:
    """A sum that no 64-bit number holds is refused, not shown wrongly."""
    for place in range(3):
        put_energy(database_url, 2**62, start_ms=BEGIN_MS + place * INTERVAL_MS)
    with pytest.raises(InvalidArgument):
        pools_of(engine)


def test_query__more_energy_of_all_pools_than_a_number_holds(
    engine: Engine, usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """Pools whose energy has a number each, and their tier not, are refused together alone."""
    for place, pool in ((1, "h100"), (2, "h200")):
        put_energy(database_url, 2**62, pool=pool)
        serve(journal, place, output=1)
    follow(usage).count_once()
    attribute_all(engine)
    assert [row.energy_mj for row in rows_by(engine, POOL)] == [2**62, 2**62]
    with pytest.raises(InvalidArgument, match="mJ"):
        rows_by(engine, TIER)


def test_query__more_energy_of_a_site_than_a_number_holds(
    engine: Engine, database_url: str
) -> None:
    """What a site's meter adds up to beyond a 64-bit number is refused too."""
    describe(engine)
    for start_ms in (BEGIN_MS, NEXT_MS):
        put_energy(database_url, 2**62, pool="oslo", boundary=Boundary.FACILITY, start_ms=start_ms)
    with pytest.raises(InvalidArgument):
        sites_of(engine)


def sites_of(engine: Engine) -> list[SiteEnergy]:
    """Return the sites over the two first intervals."""
    query = EfficiencyQuery(start_ms=BEGIN_MS, end_ms=BEGIN_MS + 2 * INTERVAL_MS, group_by=())
    store = EfficiencyStore(engine, factories=FactoryStore(engine))
    return list(store.query(query).sites)


def test_query__sites_are_measured_or_configured(engine: Engine, database_url: str) -> None:
    """A site's PUE is its meter's energy by its machines' of the same time, else as described."""
    assert sites_of(engine) == []
    describe(engine, site='pue = "1.20"')
    configured = SitePue(site="oslo", pue=Decimal("1.20"), is_measured=False)
    put_energy(database_url, 1_000)
    (site,) = sites_of(engine)
    assert site == SiteEnergy(site="oslo", facility_mj=None, pools_mj=0, pue=configured)
    # Where a host is metered, its boards are in its energy.
    put_energy(database_url, 2_000, boundary=Boundary.HOST)
    put_energy(database_url, 3_000, pool="oslo", boundary=Boundary.FACILITY)
    # No machine was metered here.
    put_energy(database_url, 99, pool="oslo", boundary=Boundary.FACILITY, start_ms=NEXT_MS)
    # This pool stands nowhere.
    put_energy(database_url, 10**6, pool="h200")
    (site,) = sites_of(engine)
    measured = SitePue(site="oslo", pue=Decimal("1.5"), is_measured=True)
    assert site == SiteEnergy(site="oslo", facility_mj=3_099, pools_mj=2_000, pue=measured)


def test_query__a_site_takes_no_less_than_its_machines(engine: Engine, database_url: str) -> None:
    """A meter that sees less than the machines took is not believed."""
    describe(engine)
    put_energy(database_url, 1_000)
    put_energy(database_url, 999, pool="oslo", boundary=Boundary.FACILITY)
    (site,) = sites_of(engine)
    assert (site.facility_mj, site.pue) == (999, None)


@pytest.mark.usefixtures("factory")
def test_view__is_for_readers(database_url: str) -> None:
    """The reader's role sees hours with tokens and energy, and why energy is nobody's."""
    question = (
        "SELECT pool, boundary, tier, model, output_tokens, total_tokens, energy_mj, reason,"
        " attributed_output_tokens, valid_energy_mj, valid_output_tokens FROM efficiency_hourly"
        " WHERE hour = date_trunc('hour', to_timestamp(%s), 'UTC')"
        " ORDER BY pool, reason, tier"
    )
    with psycopg.connect(database_url) as connection:
        connection.execute("SET ROLE tokenworks_reader")
        found = connection.execute(question, (BEGIN_MS / 1000,)).fetchall()
    assert found == [
        ("h100", "board", "free", "m", 11, 101, 2_000, "", 10, 2_000, 10),
        ("h100", "board", "high", "m", 30, 30, 6_000, "", 30, 6_000, 30),
        ("h100", "board", "", "", 0, 0, 7, "pending", 0, None, 0),
        ("h200", "board", "high", "m", 500, 500, None, "", 0, None, 0),
    ]


def test_view__adds_up_to_what_was_measured(
    engine: Engine, usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """Over revisions, gaps, boundaries and what is pending, the view's energy is the measured."""
    measured = (
        "SELECT boundary, sum(measured_mj)::bigint FROM energy_intervals GROUP BY 1 ORDER BY 1"
    )
    shown = (
        "SELECT boundary, sum(energy_mj)::bigint FROM efficiency_hourly GROUP BY 1"
        " HAVING sum(energy_mj) <> 0 ORDER BY 1"
    )
    reasons = "SELECT reason, energy_mj FROM efficiency_hourly ORDER BY boundary, reason"
    steps: list[tuple[Any, list[tuple[str, int | None]]]] = [
        (lambda: put_energy(database_url, 100), [("pending", 100)]),
        (lambda: attribute_all(engine), [("no_tokens", 100)]),
        (lambda: put_energy(database_url, 11), [("no_tokens", 100), ("pending", 11)]),
        (lambda: serve(journal, 0, output=3), [("no_tokens", 100), ("pending", 11)]),
        (lambda: follow(usage).count_once(), [("", None), ("no_tokens", 100), ("pending", 11)]),
        (lambda: attribute_all(engine), [("", 111)]),
        (lambda: put_energy(database_url, 9, gap_mj=5), [("", 111), ("pending", 9)]),
        (lambda: attribute_all(engine), [("", 115), ("gap", 5)]),
        (
            lambda: put_energy(database_url, 500, boundary=Boundary.HOST),
            [("", 115), ("gap", 5), ("pending", 500)],
        ),
        (lambda: attribute_all(engine), [("", 115), ("gap", 5), ("", 500)]),
    ]
    for act, wanted in steps:
        act()
        assert ask(database_url, shown) == ask(database_url, measured)
        assert ask(database_url, reasons) == wanted
