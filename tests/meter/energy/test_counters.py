"""Counters: resets, gaps, repetitions, and energy that falls into the right intervals."""

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.domain.interval import INTERVAL_MS, interval_start_ms
from meter.domain.limits import COUNTER_KEPT_MS, COUNTER_SLACK_MS
from meter.energy.counters import (
    Bounds,
    Counter,
    DeviceKey,
    EnergyDelta,
    IntervalEnergy,
    Reading,
    advance,
    highest,
    take,
)

BEGIN_MS = 2_000_000 * INTERVAL_MS
KEY = ("h100", "GPU-1")
BOUNDS = Bounds(watts_max=1_000, gap_ms=60_000)
# Nothing is too much, nothing too far apart.
BOUNDLESS = Bounds(watts_max=10**15, gap_ms=COUNTER_KEPT_MS)


def at(time_ms: int, counter_mj: int, *, key: DeviceKey = KEY) -> Reading:
    """Return a reading so many ms after the begin."""
    return Reading(pool=key[0], device=key[1], time_ms=BEGIN_MS + time_ms, counter_mj=counter_mj)


def counter_at(time_ms: int, counter_mj: int) -> Counter:
    """Return where a counter stood so many ms after the begin."""
    return Counter(time_ms=BEGIN_MS + time_ms, counter_mj=counter_mj)


def sums_of(readings: Sequence[Reading], *, bounds: Bounds = BOUNDS) -> IntervalEnergy:
    """Return what the readings add to the pool, taken one after the other."""
    return take(readings, known={}, bounds=bounds).delta.by_pool().get("h100", IntervalEnergy())


def test_advance__first_reading_has_no_energy() -> None:
    """The first reading says where a counter stands, not what was used."""
    step = advance(None, at(0, 5_000), bounds=BOUNDS)
    assert step is not None
    assert (step.counter, step.energy_mj) == (counter_at(0, 5_000), 0)
    assert sums_of([at(7, 5_000)]) == IntervalEnergy()


@pytest.mark.parametrize(
    ("time_ms", "counter_mj"),
    [
        # The same again; another counter at the same time; an older one.
        (1_000, 5_000),
        (1_000, 6_000),
        (999, 6_000),
        # An exporter repeats what it collected.
        (16_000, 5_000),
    ],
)
def test_advance__nothing_new_adds_nothing(time_ms: int, counter_mj: int) -> None:
    """A reading that is known, older, or of a counter that stands still changes nothing at all."""
    assert advance(counter_at(1_000, 5_000), at(time_ms, counter_mj), bounds=BOUNDS) is None


@pytest.mark.parametrize(
    ("time_ms", "counter_mj", "energy_mj", "is_reset", "is_gap"),
    [
        (1_000, 5_001, 1, False, False),
        # A watt is a millijoule a millisecond: a kilowatt for the time and a minute more.
        (1_000, 5_000 + 1_000 * (1_000 + COUNTER_SLACK_MS), 61_000_000, False, False),
        (1_000, 5_001 + 1_000 * (1_000 + COUNTER_SLACK_MS), 0, True, True),
        # Began anew at 0.
        (1_000, 4_999, 4_999, True, False),
        (1_000, 0, 0, True, False),
        (60_000, 5_001, 1, False, False),
        (60_001, 5_001, 1, False, True),
        (60_001, 4_000, 4_000, True, True),
        (COUNTER_KEPT_MS, 6_000, 1_000, False, True),
        # So long that it is a counter of which nothing is known.
        (COUNTER_KEPT_MS + 1, 6_000, 0, False, False),
        (COUNTER_KEPT_MS + 1, 0, 0, False, False),
    ],
)
def test_advance__of_a_known_counter(
    *, time_ms: int, counter_mj: int, energy_mj: int, is_reset: bool, is_gap: bool
) -> None:
    """What lies between two readings is energy, unless it is more than can be."""
    step = advance(counter_at(0, 5_000), at(time_ms, counter_mj), bounds=BOUNDS)
    assert step is not None
    assert step.counter == counter_at(time_ms, counter_mj)
    assert (step.energy_mj, step.is_reset, step.is_gap) == (energy_mj, is_reset, is_gap)


def test_advance__board_was_changed() -> None:
    """A lower counter that no board can have reached since is no energy, and goes on from there."""
    lifetime_mj = 10**12
    known = counter_at(0, 2 * lifetime_mj)
    step = advance(known, at(15_000, lifetime_mj), bounds=BOUNDS)
    assert step is not None
    assert (step.energy_mj, step.is_reset, step.is_gap) == (0, True, True)
    following = advance(step.counter, at(30_000, lifetime_mj + 7), bounds=BOUNDS)
    assert following is not None
    assert (following.energy_mj, following.is_reset) == (7, False)


def test_take__counter_that_is_repeated_spans_its_whole_time() -> None:
    """Energy belongs to the time since the counter last moved, not since it was last repeated."""
    edge = INTERVAL_MS
    readings = [at(edge - 20_000, 1_000), at(edge - 5_000, 1_000), at(edge + 10_000, 4_000)]
    delta = take(readings, known={}, bounds=BOUNDS).delta
    assert {key: sums.measured_mj for key, sums in delta.intervals.items()} == {
        ("h100", BEGIN_MS): 2_000,
        ("h100", BEGIN_MS + edge): 1_000,
    }


def test_take__splits_at_edges_by_time() -> None:
    """What crosses edges is split in proportion to time; resets are noted where they are seen."""
    last = counter_at(INTERVAL_MS - 10_000, 10**9)
    reading = at(3 * INTERVAL_MS + 5_000, 100)
    delta = take([reading], known={KEY: last}, bounds=BOUNDS).delta
    # 10, 900, 900 and 5 seconds of 100 mJ, of which 2 are left over: the largest rests get them.
    assert delta.intervals == {
        ("h100", BEGIN_MS + place * INTERVAL_MS): IntervalEnergy(
            measured_mj=part, gap_mj=part, gap_ms=length_ms, reset_count=resets
        )
        for place, part, length_ms, resets in [
            (0, 0, 10_000, 0),
            (1, 50, 900_000, 0),
            (2, 50, 900_000, 0),
            (3, 0, 5_000, 1),
        ]
    }


def test_highest__of_each_device() -> None:
    """Of readings of one device in one round the highest counts, whichever comes first."""
    readings = [
        at(0, 5, key=("a", "1")),
        at(1, 7, key=("a", "1")),
        at(2, 6, key=("a", "1")),
        at(0, 1, key=("b", "1")),
        at(0, 2, key=("a", "2")),
    ]
    assert highest(readings) == [readings[1], readings[4], readings[3]]
    assert highest(reversed(readings)) == highest(readings)


@st.composite
def histories(draw: st.DrawFn) -> list[Reading]:
    """Readings of some devices: counters run, stand, begin anew; some readings come twice."""
    readings = []
    for device in range(draw(st.integers(1, 3))):
        time_ms, counter_mj = draw(st.integers(0, 10**6)), draw(st.integers(0, 10**9))
        for _ in range(draw(st.integers(1, 8))):
            readings.append(at(time_ms, counter_mj, key=("h100", str(device))))
            time_ms += draw(st.integers(1, 4 * INTERVAL_MS))
            is_anew = draw(st.integers(0, 9)) == 0
            counter_mj = draw(st.integers(0, 10**9)) + (0 if is_anew else counter_mj)
    return readings


def energy_of(readings: Sequence[Reading]) -> int:
    """Return the energy of histories in the plainest way: differences, or since a reset."""
    total, last = 0, dict[DeviceKey, int]()
    for reading in sorted(readings, key=lambda it: it.time_ms):
        before = last.get(reading.key, reading.counter_mj)
        again = reading.counter_mj < before
        total += reading.counter_mj - (0 if again else before)
        last[reading.key] = reading.counter_mj
    return total


@given(histories())
def test_take__keeps_every_millijoule(readings: list[Reading]) -> None:
    """All that the counters say is in the intervals, once, and no interval has less than none."""
    moved = take(readings, known={}, bounds=BOUNDLESS)
    assert sum(it.measured_mj for it in moved.delta.intervals.values()) == energy_of(readings)
    for (_, start_ms), sums in moved.delta.intervals.items():
        assert start_ms == interval_start_ms(start_ms)
        assert 0 <= sums.gap_mj <= sums.measured_mj


@given(histories(), st.integers(0, 30), st.randoms(use_true_random=False))
def test_take__restarts_and_repeats_change_nothing(
    readings: list[Reading], cut: int, random: Random
) -> None:
    """In rounds of any size, with what came before once more and in any order, all is the same."""
    at_once = take(readings, known={}, bounds=BOUNDS)
    ordered = sorted(readings, key=lambda it: it.time_ms)
    delta, known = EnergyDelta(), dict[DeviceKey, Counter]()
    # What is known outlives a restart: it is all that a round starts from.
    for part in (ordered[:cut], ordered[:cut], ordered[max(0, cut - 3) :], ordered):
        random.shuffle(part)
        moved = take(part, known=known, bounds=BOUNDS)
        known.update(moved.counters)
        for key, sums in moved.delta.intervals.items():
            total = delta.intervals.setdefault(key, IntervalEnergy())
            total.measured_mj += sums.measured_mj
            total.gap_mj += sums.gap_mj
            total.gap_ms += sums.gap_ms
            total.reset_count += sums.reset_count
    assert known == at_once.counters
    assert delta == at_once.delta


@given(histories(), st.randoms(use_true_random=False))
def test_highest__parts_of_a_board_count_once(readings: list[Reading], random: Random) -> None:
    """Boards that repeat themselves for each of their parts, in any order, add nothing."""
    rounds: dict[int, list[Reading]] = {}
    for reading in readings:
        rounds.setdefault(reading.time_ms, []).extend([reading] * random.randint(1, 7))
    known: dict[DeviceKey, Counter] = {}
    total = 0
    for time_ms in sorted(rounds):
        random.shuffle(rounds[time_ms])
        moved = take(highest(rounds[time_ms]), known=known, bounds=BOUNDLESS)
        known.update(moved.counters)
        total += sum(it.measured_mj for it in moved.delta.intervals.values())
    assert total == energy_of(readings)
