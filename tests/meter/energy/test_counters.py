"""Counters: resets, gaps, repetitions, and energy that falls into the right intervals."""

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meter.domain.boundary import Boundary
from meter.domain.interval import INTERVAL_MS, interval_start_ms
from meter.domain.limits import COUNTER_KEPT_MS, COUNTER_SLACK_MS
from meter.energy.counters import (
    Advance,
    Bounds,
    Conflict,
    Counter,
    Estimate,
    Reading,
    Round,
    Source,
    advance,
    take,
)
from meter.energy.delta import EnergyDelta, IntervalEnergy, Place, Span

BEGIN_MS = 2_000_000 * INTERVAL_MS
GAP_MS = 60_000
H100: Place = (Boundary.BOARD, "h100")
BOUNDS = Bounds(watts_max=dict.fromkeys(Boundary, 1_000), gaps_ms=dict.fromkeys(Source, GAP_MS))
# Nothing is too much, nothing too far apart.
BOUNDLESS = Bounds(
    watts_max=dict.fromkeys(Boundary, 10**15), gaps_ms=dict.fromkeys(Source, COUNTER_KEPT_MS)
)


def at(
    time_ms: int,
    counter_mj: int,
    *,
    device: str = "GPU-1",
    place: Place = H100,
    range_mj: int = 0,
) -> Reading:
    """Return a reading so many ms after the begin."""
    boundary, name = place
    return Reading(
        boundary=boundary,
        name=name,
        device=device,
        time_ms=BEGIN_MS + time_ms,
        counter_mj=counter_mj,
        range_mj=range_mj,
    )


def estimated(since_ms: int, time_ms: int, energy_mj: int) -> Estimate:
    """Return an estimate of a span, by ms after the begin."""
    return Estimate(
        name="h100",
        device="GPU-1",
        since_ms=BEGIN_MS + since_ms,
        time_ms=BEGIN_MS + time_ms,
        energy_mj=energy_mj,
    )


def counter_at(
    time_ms: int, counter_mj: int, *, place: Place = H100, source: Source = Source.DCGM
) -> Counter:
    """Return where a counter stood so many ms after the begin."""
    return Counter(place=place, source=source, time_ms=BEGIN_MS + time_ms, counter_mj=counter_mj)


def advanced(last: Counter | None, reading: Reading, *, bounds: Bounds = BOUNDS) -> Advance | None:
    """Return what a reading by DCGM adds."""
    return advance(last, reading, source=Source.DCGM, bounds=bounds)


def taken(
    readings: Sequence[Reading | Estimate],
    *,
    known: dict[str, Counter] | None = None,
    bounds: Bounds = BOUNDS,
    source: Source = Source.DCGM,
) -> Round:
    """Return what the readings do, taken one after the other."""
    return take(readings, source=source, known=known or {}, bounds=bounds)


def sums_of(readings: Sequence[Reading | Estimate]) -> IntervalEnergy:
    """Return what the readings add to the pool."""
    return taken(readings).delta.by_place().get(H100, IntervalEnergy())


def test_advance__first_reading_has_no_energy() -> None:
    """The first reading says where a counter stands, not what was used."""
    step = advanced(None, at(0, 5_000))
    assert step is not None
    assert (step.counter, step.spans) == (counter_at(0, 5_000), ())
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
    assert advanced(counter_at(1_000, 5_000), at(time_ms, counter_mj)) is None


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
    ],
)
def test_advance__of_a_known_counter(
    *, time_ms: int, counter_mj: int, energy_mj: int, is_reset: bool, is_gap: bool
) -> None:
    """What lies between two readings is energy, unless it is more than can be."""
    step = advanced(counter_at(0, 5_000), at(time_ms, counter_mj))
    span = Span(start_ms=BEGIN_MS, end_ms=BEGIN_MS + time_ms, energy_mj=energy_mj, is_gap=is_gap)
    is_leap = is_reset and is_gap and not energy_mj
    assert step == Advance(
        counter=counter_at(time_ms, counter_mj), spans=(span,), is_reset=is_reset, is_leap=is_leap
    )


@pytest.mark.parametrize("counter_mj", [6_000, 0])
def test_advance__after_too_long_a_silence(counter_mj: int) -> None:
    """A counter that was silent for more than a week is one of which nothing is known."""
    reading = at(COUNTER_KEPT_MS + 1, counter_mj)
    assert advanced(counter_at(0, 5_000), reading) == Advance(
        counter=counter_at(COUNTER_KEPT_MS + 1, counter_mj)
    )


RANGE_MJ = 262_143_328


@pytest.mark.parametrize(
    ("last_mj", "counter_mj", "range_mj", "energy_mj", "is_reset"),
    [
        # After the end of the range comes 0, which is a millijoule more.
        (RANGE_MJ, 0, RANGE_MJ, 1, False),
        (RANGE_MJ - 5, 3, RANGE_MJ, 9, False),
        (262_000_000, 1_000, RANGE_MJ, 144_329, False),
        # Round once is the same number: nothing is known of it.
        # More than the device can use: it began anew.
        (1_000, 500, RANGE_MJ, 500, True),
        # A counter without a range does not wrap.
        (RANGE_MJ, 0, 0, 0, True),
        # Beyond its range, whoever says that it has one.
        (10**12, 700, RANGE_MJ, 700, True),
        # Forward, a range changes nothing.
        (5, 9, RANGE_MJ, 4, False),
    ],
)
def test_advance__wraps(
    *, last_mj: int, counter_mj: int, range_mj: int, energy_mj: int, is_reset: bool
) -> None:
    """A counter that came to the end of its range goes on from 0, and no energy is lost."""
    step = advanced(counter_at(0, last_mj), at(15_000, counter_mj, range_mj=range_mj))
    assert step is not None
    assert [span.energy_mj for span in step.spans] == [energy_mj]
    assert (step.is_reset, step.is_leap) == (is_reset, False)


def test_advance__board_was_changed() -> None:
    """A lower counter that no board can have reached since is no energy, and goes on from there."""
    lifetime_mj = 10**12
    known = counter_at(0, 2 * lifetime_mj)
    step = advanced(known, at(15_000, lifetime_mj))
    assert step is not None
    assert [(span.energy_mj, span.is_gap) for span in step.spans] == [(0, True)]
    assert (step.is_reset, step.is_leap) == (True, True)
    following = advanced(step.counter, at(30_000, lifetime_mj + 7))
    assert following is not None
    assert [span.energy_mj for span in following.spans] == [7]
    assert not following.is_reset


def test_take__counter_that_is_repeated_spans_its_whole_time() -> None:
    """Energy belongs to the time since the counter last moved, not since it was last repeated."""
    edge = INTERVAL_MS
    readings = [at(edge - 20_000, 1_000), at(edge - 5_000, 1_000), at(edge + 10_000, 4_000)]
    delta = taken(readings).delta
    assert {key: sums.measured_mj for key, sums in delta.intervals.items()} == {
        (H100, BEGIN_MS): 2_000,
        (H100, BEGIN_MS + edge): 1_000,
    }


def test_take__splits_at_edges_by_time() -> None:
    """What crosses edges is split in proportion to time; resets are noted where they are seen."""
    last = counter_at(INTERVAL_MS - 10_000, 10**9)
    reading = at(3 * INTERVAL_MS + 5_000, 100)
    delta = taken([reading], known={"GPU-1": last}).delta
    # 10, 900, 900 and 5 seconds of 100 mJ, of which 2 are left over: the largest rests get them.
    assert delta.intervals == {
        (H100, BEGIN_MS + place * INTERVAL_MS): IntervalEnergy(
            measured_mj=part,
            gap_mj=part,
            gap_ms=length_ms,
            reset_count=resets,
            begin_count=int(place > 0),
            end_count=int(place < 3),
        )
        for place, part, length_ms, resets in [
            (0, 0, 10_000, 0),
            (1, 50, 900_000, 0),
            (2, 50, 900_000, 0),
            (3, 0, 5_000, 1),
        ]
    }


OTHERS = pytest.mark.parametrize(
    ("place", "source"),
    [
        (H100, Source.REPORTED),
        (H100, Source.NVML),
        ((Boundary.BOARD, "h200"), Source.DCGM),
        ((Boundary.HOST, "h100"), Source.DCGM),
        ((Boundary.FACILITY, "h100"), Source.DCGM),
    ],
)


@OTHERS
def test_take__device_of_another(place: Place, source: Source) -> None:
    """While its owner is fresh, what another source or place says of a device is a conflict."""
    known = {"GPU-1": counter_at(0, 1_000, place=place, source=source)}
    for time_ms in (-5_000, 0, 15_000, GAP_MS):
        done = taken([at(time_ms, 9_000)], known=known)
        assert (done.counters, done.delta, done.advance_count) == ({}, EnergyDelta(), 0)
        assert done.conflicts == [Conflict(device="GPU-1", place=H100, owner=place)]


@OTHERS
def test_take__device_whose_owner_is_silent(place: Place, source: Source) -> None:
    """A device that nobody reads any more is of who does: it counts from there, without energy."""
    known = {"GPU-1": counter_at(0, 1_000, place=place, source=source)}
    done = taken([at(GAP_MS + 1, 9_000), at(GAP_MS + 2, 9_005)], known=known)
    assert done.counters == {"GPU-1": counter_at(GAP_MS + 2, 9_005)}
    assert not done.conflicts
    gap_ms = GAP_MS + 1 if place == H100 else 0
    assert done.delta.by_place() == {
        H100: IntervalEnergy(
            measured_mj=5, covered_ms=1, gap_ms=gap_ms, begin_count=int(place == H100)
        )
    }


def test_take__two_pools_at_once() -> None:
    """Of two that show the same device from its first round on, one has it."""
    pools = [(Boundary.BOARD, name) for name in ("a", "b")]
    known: dict[str, Counter] = {}
    for step in range(3):
        readings = [at(step * 15_000 + number, step, place=it) for number, it in enumerate(pools)]
        done = taken(readings, known=known)
        known.update(done.counters)
        assert [it.place[1] for it in done.conflicts] == ["b"]
    assert known["GPU-1"].place == (Boundary.BOARD, "a")


def test_take__estimates_follow_each_other() -> None:
    """Estimates add up where their spans meet; a time between them is a gap without energy."""
    sums = sums_of([estimated(1, 10_000, 40), estimated(10_000, 20_000, 50)])
    assert sums == IntervalEnergy(measured_mj=90, estimated_mj=90, covered_ms=19_999)
    sums = sums_of([estimated(1, 10_000, 40), estimated(13_000, 20_000, 50)])
    assert sums == IntervalEnergy(measured_mj=90, estimated_mj=90, covered_ms=16_999, gap_ms=3_000)


def test_take__estimates_of_two_servers() -> None:
    """Who estimates a time that another has estimated adds nothing: energy is in it once."""
    first, second = estimated(0, 10_000, 40), estimated(7_000, 17_000, 40)
    done = taken([first, second, first])
    assert done.advance_count == 1
    assert done.delta.by_place()[H100].measured_mj == 40


def test_take__counter_that_comes_back_behind_estimates() -> None:
    """A counter that was away holds what was estimated meanwhile: only the difference is new."""
    first, last = at(0, 1_000_000), at(75_000, 1_000_450)
    assert sums_of([first, estimated(0, 60_000, 300), last]).measured_mj == 450


def test_take__devices_that_nobody_described() -> None:
    """Boards that a description does not name are unmapped, energy and time, but for gaps."""
    readings = [
        at(place, value, device=device)
        for device in ("GPU-1", "GPU-9")
        for place, value in ((0, 0), (60_000, 10), (120_001, 30))
    ]
    asked = set()

    def is_mapped(device: str, pool: str, start_ms: int) -> bool:
        asked.add((pool, start_ms))
        return device == "GPU-1"

    done = take(readings, source=Source.DCGM, known={}, bounds=BOUNDS, is_mapped=is_mapped)
    assert done.delta.by_place()[H100] == IntervalEnergy(
        measured_mj=60,
        gap_mj=40,
        unmapped_mj=10,
        covered_ms=60_000,
        gap_ms=120_002,
        begin_count=2,
    )
    assert asked == {("h100", BEGIN_MS)}


def test_take__hosts_have_no_description() -> None:
    """What holds boards, and what holds hosts, is asked for in no description."""
    for boundary in (Boundary.HOST, Boundary.FACILITY):
        place = (boundary, "h100")
        readings = [at(0, 0, place=place), at(60_000, 10, place=place)]
        done = take(
            readings,
            source=Source.REPORTED,
            known={},
            bounds=BOUNDS,
            is_mapped=lambda *_: False,
        )
        assert done.delta.by_place()[place].unmapped_mj == 0


@st.composite
def histories(draw: st.DrawFn) -> list[Reading]:
    """Readings of some devices: counters run, stand, begin anew; some readings come twice."""
    readings = []
    for device in range(draw(st.integers(1, 3))):
        time_ms, counter_mj = draw(st.integers(0, 10**6)), draw(st.integers(0, 10**9))
        for _ in range(draw(st.integers(1, 8))):
            readings.append(at(time_ms, counter_mj, device=str(device)))
            time_ms += draw(st.integers(1, 4 * INTERVAL_MS))
            is_anew = draw(st.integers(0, 9)) == 0
            counter_mj = draw(st.integers(0, 10**9)) + (0 if is_anew else counter_mj)
    return readings


def energy_of(readings: Sequence[Reading]) -> int:
    """Return the energy of histories in the plainest way: differences, or since a reset."""
    total, last = 0, dict[str, int]()
    for reading in sorted(readings, key=lambda it: it.time_ms):
        before = last.get(reading.device, reading.counter_mj)
        again = reading.counter_mj < before
        total += reading.counter_mj - (0 if again else before)
        last[reading.device] = reading.counter_mj
    return total


@settings(max_examples=1_000)
@given(histories())
def test_take__keeps_every_millijoule(readings: list[Reading]) -> None:
    """All that the counters say is in the intervals, once, and no interval has less than none."""
    moved = taken(readings, bounds=BOUNDLESS)
    assert sum(it.measured_mj for it in moved.delta.intervals.values()) == energy_of(readings)
    for (_, start_ms), sums in moved.delta.intervals.items():
        assert start_ms == interval_start_ms(start_ms)
        assert 0 <= sums.gap_mj <= sums.measured_mj


@given(histories(), st.integers(0, 30), st.randoms(use_true_random=False))
def test_take__restarts_and_repeats_change_nothing(
    readings: list[Reading], cut: int, random: Random
) -> None:
    """In rounds of any size, with what came before once more and in any order, all is the same."""
    at_once = taken(readings)
    ordered = sorted(readings, key=lambda it: it.time_ms)
    delta, known = EnergyDelta(), dict[str, Counter]()
    # What is known outlives a restart: it is all that a round starts from.
    for part in (ordered[:cut], ordered[:cut], ordered[max(0, cut - 3) :], ordered):
        random.shuffle(part)
        moved = taken(part, known=known)
        known.update(moved.counters)
        for key, sums in moved.delta.intervals.items():
            delta.intervals.setdefault(key, IntervalEnergy()).add(sums)
    assert known == at_once.counters
    assert delta == at_once.delta
