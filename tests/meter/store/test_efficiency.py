"""Tokens beside energy, read back: by every split, in SQL too, and how well power is known."""

from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine

from meter.domain.errors import InvalidArgument
from meter.domain.interval import INTERVAL_MS
from meter.domain.limits import DEVICE_KNOWN_MS
from meter.energy.counters import Source
from meter.energy.efficiency import EfficiencyGroup, PoolEnergy, PoolPower, SilentDevice
from meter.store.efficiency import EfficiencyStore
from meter.store.energy import EnergyStore
from meter.store.journal import JournalStore
from meter.store.usage import UsageStore
from tests.meter.plain_events import BEGIN_MS
from tests.meter.store.pooled import (
    BOUNDS,
    attribute_all,
    measure,
    pools_of,
    read,
    reading,
    rows_by,
    serve,
)
from tests.meter.store.recording import administrator, ask, follow

POOL, TIER, MODEL = EfficiencyGroup.POOL, EfficiencyGroup.TIER, EfficiencyGroup.MODEL
INTERVAL, HOUR, DAY = EfficiencyGroup.INTERVAL, EfficiencyGroup.HOUR, EfficiencyGroup.DAY
HOUR_MS, DAY_MS = 4 * INTERVAL_MS, 96 * INTERVAL_MS
GAPS_MS = {Source.DCGM: 60_000, Source.REPORTED: 900_000}


@pytest.fixture
def energy(engine: Engine) -> EnergyStore:
    """Records energy."""
    return EnergyStore(engine)


@pytest.fixture
def factory(energy: EnergyStore, usage: UsageStore, journal: JournalStore) -> None:
    """Two pools of which one has energy, two tiers, two intervals of which one is attributed."""
    serve(journal, 0, output=10, others=90)
    serve(journal, 1, output=30)
    serve(journal, 2, output=500)
    serve(journal, 0, output=1, end_ms=BEGIN_MS + INTERVAL_MS)
    follow(usage).count_once()
    measure(energy, 8_000)
    attribute_all(energy)
    measure(energy, 7, start_ms=BEGIN_MS + INTERVAL_MS)


@pytest.mark.usefixtures("factory")
def test_query__by_tier(engine: Engine) -> None:
    """Tokens of all pools, and those of them that energy was attributed to: the ratio's."""
    free, high = rows_by(engine, TIER)
    assert free.keys == {TIER: "free"}
    assert (free.output_tokens, free.total_tokens, free.request_count) == (11, 101, 2)
    assert (free.energy_mj, free.attributed_output_tokens) == (2_000, 10)
    assert (high.output_tokens, high.total_tokens, high.request_count) == (530, 530, 2)
    assert (high.energy_mj, high.attributed_output_tokens) == (6_000, 30)


@pytest.mark.usefixtures("factory")
def test_query__without_energy_is_absent(engine: Engine) -> None:
    """Where no energy is known it is absent, and not 0: nothing is ever divided by it."""
    found = {(row.keys[POOL], row.keys[TIER]): row for row in rows_by(engine, POOL, TIER)}
    assert found["h200", "high"].energy_mj is None
    assert found["h200", "high"].attributed_output_tokens == 0
    assert found["h100", "high"].energy_mj == 6_000


def test_query__share_that_was_taken_back_is_absent(
    engine: Engine,
    energy: EnergyStore,
    usage: UsageStore,
    journal: JournalStore,
    database_url: str,
) -> None:
    """A share that later tokens have made 0 is no energy: its tokens are in no ratio any more."""
    measure(energy, 1)
    for place, output in ((0, 1), (1, 99)):
        serve(journal, place, output=output)
        follow(usage).count_once()
        attribute_all(energy)
    free, high = rows_by(engine, TIER)
    assert (free.energy_mj, free.attributed_output_tokens) == (None, 0)
    assert (high.energy_mj, high.attributed_output_tokens) == (1, 99)
    question = (
        "SELECT tier, energy_mj, attributed_output_tokens FROM efficiency_hourly ORDER BY tier"
    )
    assert ask(database_url, question) == [("free", None, 0), ("high", 1, 99)]


@pytest.mark.usefixtures("factory")
@pytest.mark.parametrize(
    ("group_by", "wanted"),
    [
        ((), {(): 8_000}),
        ((MODEL,), {("m",): 8_000}),
        ((POOL,), {("h100",): 8_000, ("h200",): None}),
        ((INTERVAL,), {(BEGIN_MS,): 8_000, (BEGIN_MS + INTERVAL_MS,): None}),
        ((HOUR,), {(BEGIN_MS - BEGIN_MS % HOUR_MS,): 8_000}),
        ((DAY,), {(BEGIN_MS - BEGIN_MS % DAY_MS,): 8_000}),
        ((TIER, INTERVAL), None),
    ],
)
def test_query__by_every_group(
    engine: Engine,
    group_by: tuple[EfficiencyGroup, ...],
    wanted: dict[tuple[Any, ...], int | None] | None,
) -> None:
    """Each split has its keys in their order, and the same energy in all."""
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
        measured_mj=8_007,
        attributed_mj=8_000,
        unattributed_mj={"pending": 7},
        gap_ms=0,
        reset_count=0,
    )
    assert pools_of(engine) == {"h100": pool}
    assert pools_of(engine, pool="h100") == {"h100": pool}
    assert pools_of(engine, pool="h200") == {}


def test_query__tells_of_gaps_and_resets(engine: Engine, energy: EnergyStore) -> None:
    """A pool without energy whose counters went wrong is told of."""
    read(energy, reading(10**12))
    read(energy, reading(10**11, time_ms=BEGIN_MS + 5_000))
    (pool,) = pools_of(engine).values()
    assert (pool.measured_mj, pool.unattributed_mj) == (0, {})
    assert (pool.gap_ms, pool.reset_count) == (5_000, 1)


def test_query__more_energy_than_a_number_holds(engine: Engine, database_url: str) -> None:
    """A sum that no 64-bit number holds is refused, not shown wrongly."""
    with administrator(database_url) as connection:
        for place in range(3):
            connection.execute(
                "INSERT INTO pool_intervals (pool, interval_start, measured_mj)"
                " VALUES ('h100', to_timestamp(%s), %s)",
                ((BEGIN_MS + place * INTERVAL_MS) / 1000, 2**62),
            )
    with pytest.raises(InvalidArgument):
        pools_of(engine)


@pytest.mark.usefixtures("factory")
def test_view__is_for_readers(database_url: str) -> None:
    """The reader's role sees hours with tokens and energy, and why energy is nobody's."""
    question = (
        "SELECT pool, tier, model, output_tokens, total_tokens, energy_mj, reason,"
        " attributed_output_tokens FROM efficiency_hourly"
        " WHERE hour = date_trunc('hour', to_timestamp(%s), 'UTC')"
        " ORDER BY pool, reason, tier"
    )
    with psycopg.connect(database_url) as connection:
        connection.execute("SET ROLE tokenworks_reader")
        found = connection.execute(question, (BEGIN_MS / 1000,)).fetchall()
    assert found == [
        ("h100", "free", "m", 11, 101, 2_000, "", 10),
        ("h100", "high", "m", 30, 30, 6_000, "", 30),
        ("h100", "", "", 0, 0, 7, "pending", 0),
        ("h200", "high", "m", 500, 500, None, "", 0),
    ]


def test_view__adds_up_to_what_was_measured(
    energy: EnergyStore, usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """Over revisions, gaps and what is pending, the view's energy is what was measured."""
    measured = "SELECT coalesce(sum(measured_mj), 0)::bigint FROM pool_intervals"
    shown = "SELECT coalesce(sum(energy_mj), 0)::bigint FROM efficiency_hourly"
    reasons = "SELECT reason, energy_mj FROM efficiency_hourly ORDER BY reason"
    steps = [
        (lambda: measure(energy, 100), [("pending", 100)]),
        (lambda: attribute_all(energy), [("no_tokens", 100)]),
        (lambda: measure(energy, 11), [("no_tokens", 100), ("pending", 11)]),
        (lambda: serve(journal, 0, output=3), [("no_tokens", 100), ("pending", 11)]),
        (lambda: follow(usage).count_once(), [("", None), ("no_tokens", 100), ("pending", 11)]),
        (lambda: attribute_all(energy), [("", 111)]),
        (
            lambda: read(energy, reading(5, time_ms=BEGIN_MS), reading(9, time_ms=BEGIN_MS + 1)),
            [("", 111), ("pending", 4)],
        ),
        (
            lambda: read(energy, reading(99, time_ms=BEGIN_MS + 2 + BOUNDS.gap_ms)),
            None,
        ),
        (lambda: attribute_all(energy), None),
    ]
    for act, wanted in steps:
        act()  # type: ignore[no-untyped-call]
        assert ask(database_url, shown) == ask(database_url, measured)
        if wanted is not None:
            assert ask(database_url, reasons) == wanted


def power_at(
    engine: Engine, time_ms: int, *, silent_max: int = 9
) -> tuple[list[PoolPower], list[SilentDevice]]:
    """Return how well power is known at a time."""
    pools, silent = EfficiencyStore(engine).power(
        now_ms=time_ms, gaps_ms=GAPS_MS, silent_max=silent_max
    )
    return list(pools), list(silent)


def test_power__while_all_devices_have_fresh_samples(engine: Engine, energy: EnergyStore) -> None:
    """A pool's power is valid while each device that it had of late has a fresh sample."""
    assert power_at(engine, BEGIN_MS) == ([], [])
    read(energy, reading(0, device="GPU-1"), reading(0, device="GPU-2"))
    read(energy, reading(5, device="GPU-1", time_ms=BEGIN_MS + 30_000))
    cases = [
        # As long as a sample is fresh, and a moment longer.
        (60_000, 2, 2, []),
        (60_001, 2, 1, ["GPU-2"]),
        (90_001, 2, 0, ["GPU-2", "GPU-1"]),
        # Who is silent for hours is no part of the pool any more.
        (DEVICE_KNOWN_MS, 2, 0, ["GPU-2", "GPU-1"]),
        (DEVICE_KNOWN_MS + 1, 1, 0, ["GPU-1"]),
        (DEVICE_KNOWN_MS + 30_001, 0, 0, []),
    ]
    for time_ms, device_count, fresh_count, silent in cases:
        (pool,), devices = power_at(engine, BEGIN_MS + time_ms)
        assert pool == PoolPower(
            pool="h100",
            device_count=device_count,
            fresh_count=fresh_count,
            last_sample_ms=BEGIN_MS + 30_000,
        )
        assert pool.is_valid is (device_count == fresh_count == 2)
        assert [it.device for it in devices] == silent


def test_power__counter_that_stands_still_is_not_fresh(engine: Engine, energy: EnergyStore) -> None:
    """An exporter that repeats itself for ever does not make power look known."""
    for time_ms in range(0, 90_001, 15_000):
        read(energy, reading(7, time_ms=BEGIN_MS + time_ms))
    (pool,), _ = power_at(engine, BEGIN_MS + 90_000)
    assert (pool.is_valid, pool.last_sample_ms) == (False, BEGIN_MS)


def test_power__a_device_that_was_taken_out_does_no_harm(
    engine: Engine, energy: EnergyStore
) -> None:
    """Hours after a device was taken out the others' power is valid again."""
    now_ms = BEGIN_MS + DEVICE_KNOWN_MS + 1
    read(energy, reading(0, device="GPU-1"), reading(0, device="GPU-2"))
    read(energy, reading(5, device="GPU-1", time_ms=now_ms))
    (before,), _ = power_at(engine, now_ms - 1)
    (after,), _ = power_at(engine, now_ms)
    assert (before.is_valid, after.is_valid) == (False, True)


def test_power__reported_samples_are_fresh_for_longer(engine: Engine, energy: EnergyStore) -> None:
    """What is reported may come once an interval; silent devices are named so many at most."""
    energy.record([reading(0), reading(0, device="GPU-2")], source=Source.REPORTED, bounds=BOUNDS)
    (pool,), _ = power_at(engine, BEGIN_MS + 900_000)
    assert pool.is_valid
    (pool,), silent = power_at(engine, BEGIN_MS + 900_001, silent_max=1)
    assert not pool.is_valid
    assert silent == [
        SilentDevice(pool="h100", device="GPU-1", source=Source.REPORTED, last_sample_ms=BEGIN_MS)
    ]
