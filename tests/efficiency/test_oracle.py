"""The oracle of energy itself: by hand, and against what devices of random worlds truly drew."""

from collections import Counter
from fractions import Fraction
from itertools import pairwise

import pytest

from tests.efficiency.oracle import (
    INTERVAL_MS,
    Event,
    Measured,
    Meter,
    Owner,
    Place,
    Reading,
    deal,
    describe,
    is_valid,
    measure,
    share,
)
from tests.efficiency.worlds import BEGIN_MS, GAPS_MS, WATTS_MAX, Device, World, random_world

METER = Meter(watts_max=WATTS_MAX, gaps_ms=GAPS_MS)
PLACE = Place("board", "h100", BEGIN_MS)
DESCRIPTION = """
format = 1
from = 2026-10-01T00:00:00Z
[sites.oslo]
contracted_watts = 1000
[pools.h100]
site = "oslo"
hardware = "H100"
idle_watts = "75"
idle = "proportional"
[[weights]]
input = "1"
cached_input = "0"
output = "10"
"""


def _served(account: str, **classes: int) -> Event:
    return Event(account, "h100", "m", "high", BEGIN_MS, classes)


def test_share__worked_vector() -> None:
    """A joule and its idling are dealt out as the worked example has it, to the millijoule."""
    shares = share(
        {PLACE: Measured(measured_mj=1_000_000, covered_ms=4_000)},
        [
            _served("A", input=1_000, output=100),
            _served("B", output=300),
            _served("C", input=4_000, cache_read=9_000),
        ],
        descriptions=describe([DESCRIPTION]),
    )
    assert {(it.account, it.reason): part for it, part in shares[PLACE].items()} == {
        ("A", ""): 155_556,
        ("B", ""): 233_333,
        ("C", ""): 311_111,
        ("A", "idle"): 66_667,
        ("B", "idle"): 100_000,
        ("C", "idle"): 133_333,
    }


def test_share__what_is_taken_back() -> None:
    """Tokens that were taken back weigh nothing; more taken back than given weighs nothing too."""
    shares = share(
        {PLACE: Measured(measured_mj=10)},
        [_served("A", output=5), _served("A", output=-5), _served("B", output=-1)],
        descriptions=(),
    )
    assert shares == {PLACE: {Owner("", "", "", "no_tokens"): 10}}


@pytest.mark.parametrize(
    ("counters", "sums"),
    [
        ((5, 105), Measured(measured_mj=100, covered_ms=60_000, begin_count=1)),
        ((5, 5), None),
        ((500, 40), Measured(measured_mj=40, covered_ms=60_000, reset_count=1, begin_count=1)),
        ((5, 10**13), Measured(gap_ms=60_000, reset_count=1, begin_count=1)),
        ((10**13, 10**13 - 1), Measured(gap_ms=60_000, reset_count=1, begin_count=1)),
    ],
)
def test_measure__two_readings(counters: tuple[int, int], sums: Measured | None) -> None:
    """What a counter gains is energy; one that goes back begins anew; a leap is no energy."""
    readings = [
        Reading("board", "h100", "GPU-1", BEGIN_MS + place * 60_000, counter)
        for place, counter in enumerate(counters)
    ]
    found = measure([readings], meter=METER, descriptions=())
    assert found == ({} if sums is None else {PLACE: sums})


def test_measure__counter_that_wraps() -> None:
    """After the end of its range a counter goes on at 0."""
    readings = [
        Reading("host", "h100", "node-1", BEGIN_MS + place * 60_000, counter, 999)
        for place, counter in enumerate((990, 4))
    ]
    found = measure([readings], meter=METER, descriptions=())
    assert found[Place("host", "h100", BEGIN_MS)].measured_mj == 14


def test_measure__across_an_edge_and_a_gap() -> None:
    """Energy is spread evenly over its time; that of a gap is known to lie in it, and no more."""
    edge_ms = BEGIN_MS + INTERVAL_MS
    times = (edge_ms - 1_000, edge_ms + 2_000, edge_ms + 5_000)
    readings = [
        Reading("board", "h100", "GPU-1", time_ms, counter)
        for time_ms, counter in zip(
            (*times, times[1] + INTERVAL_MS + 1), (0, 3, 3, 13), strict=True
        )
    ]
    found = measure([readings], meter=METER, descriptions=())
    assert [
        found[PLACE._replace(start_ms=start_ms)] for start_ms in sorted(it.start_ms for it in found)
    ] == [
        Measured(measured_mj=1, covered_ms=1_000, end_count=1),
        Measured(
            measured_mj=12,
            gap_mj=10,
            covered_ms=2_000,
            gap_ms=898_000,
            begin_count=1,
            end_count=1,
        ),
        Measured(gap_ms=2_001, begin_count=1),
    ]


def test_is_valid__where_nobody_described_how_many() -> None:
    """As many as are there at the begin or the end are to be there all the time; one at least."""
    for covered_ms, begin_count, end_count, valid in (
        *((854_999, 0, 0, False), (855_000, 0, 0, True)),
        *((3 * 854_999, 3, 1, False), (3 * 855_000, 3, 1, True)),
        *((3 * 854_999, 0, 3, False), (3 * 855_000, 0, 3, True)),
    ):
        sums = Measured(
            measured_mj=1,
            covered_ms=covered_ms,
            begin_count=begin_count,
            end_count=end_count,
        )
        found = is_valid({PLACE: sums}, pool="h100", start_ms=BEGIN_MS, descriptions=())
        assert found is valid


def test_deal__nearest_parts() -> None:
    """The parts add up, each within one of its exact share; of equal rests the first key's."""
    assert deal(10, {"c": 1, "b": 1, "a": 1}) == {"a": 4, "b": 3, "c": 3}
    assert deal(7, {"a": Fraction(1, 3), "b": Fraction(2, 3), "c": 0}) == {"a": 2, "b": 5, "c": 0}


def test_measure__what_devices_truly_drew() -> None:
    """In random worlds the sum over a device whose counter did not lie is what it drew."""
    devices = 0
    for seed in range(150):
        world = random_world(seed)
        for device in world.devices:
            if device.faults & {"reset", "leap", "claimed"}:
                continue
            rounds = [[it for it in each if it.device == device.device] for each in world.rounds]
            found = measure(rounds, meter=METER, descriptions=())
            drawn = drawn_mj(device, world)
            if drawn is not None:
                assert sum(it.measured_mj for it in found.values()) == drawn, (seed, device.device)
                devices += 1
    assert devices > 200


def test_random_world__same_for_a_seed() -> None:
    """A seed is a world; another seed is another one."""
    assert random_world(7) == random_world(7)
    assert random_world(7) != random_world(8)


def test_random_world__reach() -> None:
    """The worlds meet each thing that can go wrong with a counter, and each fate of energy."""
    met: Counter[str] = Counter()
    for seed in range(200):
        world = random_world(seed)
        descriptions = describe(world.descriptions)
        measured = measure(world.rounds, meter=METER, descriptions=descriptions)
        for owners in share(measured, world.events, descriptions=descriptions).values():
            met.update({it.reason + ("" if it.account else " of nobody") for it in owners})
        met.update(fault for device in world.devices for fault in device.faults)
        met[f"{min(len(descriptions), 3)} versions"] += 1
        met.update(device.boundary for device in world.devices)
        met.update("wraps" for device in world.devices if device.range_mj)
        met.update("taken back" for it in world.events if min(it.classes.values()) < 0)
    assert met.keys() == {
        *("", "idle", "gap of nobody", "idle of nobody", "no_tokens of nobody"),
        *("unmapped of nobody", "reset", "leap", "frozen", "silence", "long silence"),
        *("0 versions", "1 versions", "2 versions", "3 versions", "board", "host", "facility"),
        *("wraps", "taken back", "claimed"),
    }
    assert min(met.values()) >= 5, met.most_common()[-3:]


def drawn_mj(device: Device, world: World) -> int | None:
    """Return what a device drew from the first of its readings that came to the last that is news.

    None where a counter wrapped more than once between two of them, which nobody can see.
    """
    drawn = {
        reading.time_ms: mj for reading, mj in zip(device.readings, device.drawn_mj, strict=True)
    }
    taken: list[int] = []
    for readings in world.rounds:
        for reading in sorted(readings, key=lambda it: it.time_ms):
            is_own = reading.device == device.device
            if is_own and (not taken or reading.time_ms > taken[-1]):
                taken.append(reading.time_ms)
    if len(taken) < 2:
        return 0
    steps = [drawn[after] - drawn[before] for before, after in pairwise(taken)]
    if device.range_mj and max(steps) > device.range_mj:
        return None
    return sum(steps)
