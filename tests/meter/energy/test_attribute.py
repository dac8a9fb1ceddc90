"""Attribution: what is shared out is what was measured, to the millijoule."""

from collections.abc import Mapping
from fractions import Fraction
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.energy.attribute import Attribution, Key, Unattributed, apportion, attribute
from meter.energy.factory import IdlePolicy

ENERGY = st.integers(0, 10**16)
WEIGHTS = st.dictionaries(st.integers(1, 10**6), st.integers(0, 10**12), max_size=8)


@pytest.mark.parametrize(
    ("total", "weights", "parts"),
    [
        (10, {"a": 1}, {"a": 10}),
        (10, {"a": 1, "b": 1}, {"a": 5, "b": 5}),
        (10, {"a": 1, "b": 1, "c": 1}, {"a": 4, "b": 3, "c": 3}),
        (10, {"c": 1, "b": 1, "a": 1}, {"a": 4, "b": 3, "c": 3}),
        (2, {"a": 1, "b": 1, "c": 1}, {"a": 1, "b": 1, "c": 0}),
        (5, {"a": 0, "b": 7, "c": 0}, {"a": 0, "b": 5, "c": 0}),
        (0, {"a": 3, "b": 7}, {"a": 0, "b": 0}),
        # 233,333.33 and so on: the largest rest gets what is left over.
        (700_000, {"a": 2_000, "b": 3_000, "c": 4_000}, {"a": 155_556, "b": 233_333, "c": 311_111}),
    ],
)
def test_apportion__by_largest_remainder(
    total: int, weights: dict[str, int], parts: dict[str, int]
) -> None:
    """Whole parts in proportion; what is left over goes to the largest rests, then by key."""
    assert apportion(total, weights) == parts


@given(ENERGY, WEIGHTS.filter(lambda weights: any(weights.values())))
def test_apportion__is_exact_and_near(total: int, weights: dict[int, int]) -> None:
    """The parts add up, each is less than 1 away from its share, and a weight of 0 gets nothing."""
    parts = apportion(total, weights)
    assert sum(parts.values()) == total
    whole = sum(weights.values())
    for key, weight in weights.items():
        assert abs(parts[key] - Fraction(total * weight, whole)) < 1
        assert weight or not parts[key]


def whole(measured_mj: int, weights: Mapping[Key, int]) -> Attribution[Key]:
    """Attribute all of it: no gap, nothing unmapped, no idling."""
    return attribute(
        measured_mj=measured_mj,
        gap_mj=0,
        unmapped_mj=0,
        covered_ms=900_000,
        weights=weights,
        idle_mw=0,
        idle=IdlePolicy.UNATTRIBUTED,
    )


@given(
    st.tuples(ENERGY, ENERGY, ENERGY),
    st.dictionaries(st.integers(1, 10**6), st.integers(-(10**6), 10**18), max_size=8),
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.sampled_from(IdlePolicy),
)
def test_attribute__adds_up(
    parts_mj: tuple[int, int, int],
    weights: dict[int, int],
    covered_ms: int,
    idle_mw: int,
    idle: IdlePolicy,
) -> None:
    """Active, idle and unattributed are what was measured, whatever there was."""
    known_mj, gap_mj, unmapped_mj = parts_mj
    shared = attribute(
        measured_mj=sum(parts_mj),
        gap_mj=gap_mj,
        unmapped_mj=unmapped_mj,
        covered_ms=covered_ms,
        weights=weights,
        idle_mw=idle_mw,
        idle=idle,
    )
    shares = [*shared.active_mj.values(), *shared.idle_mj.values()]
    parts = [*shares, *shared.unattributed_mj.values()]
    assert sum(parts) == sum(parts_mj)
    assert all(part > 0 for part in parts)
    assert shared.unattributed_mj.get(Unattributed.GAP, 0) == gap_mj
    assert shared.unattributed_mj.get(Unattributed.UNMAPPED, 0) == unmapped_mj
    idling_mj = sum(shared.idle_mj.values()) + shared.unattributed_mj.get(Unattributed.IDLE, 0)
    assert idling_mj == min(known_mj, idle_mw * covered_ms // 1_000)
    if any(weight > 0 for weight in weights.values()):
        assert Unattributed.NO_TOKENS not in shared.unattributed_mj
        assert bool(shared.idle_mj) == (idle is IdlePolicy.PROPORTIONAL and idling_mj > 0)
    else:
        assert not shares
    assert all(weights[key] > 0 for key in (*shared.active_mj, *shared.idle_mj))


@pytest.mark.parametrize(
    ("weights", "idle", "active_mj", "idle_mj", "unattributed_mj"),
    [
        # Ten devices that idle at 50 W for 20 s are 10 kJ of the 95 kJ that are known.
        ({"a": 1, "b": 3}, "unattributed", (21_250_000, 63_750_000), (), {"idle": 10_000_000}),
        ({"a": 1, "b": 3}, "proportional", (21_250_000, 63_750_000), (2_500_000, 7_500_000), {}),
        ({"a": 0, "b": -3}, "unattributed", (), (), {"idle": 10**7, "no_tokens": 85_000_000}),
        ({}, "proportional", (), (), {"idle": 10_000_000, "no_tokens": 85_000_000}),
        ({"a": 5, "b": -3}, "proportional", (85_000_000,), (10_000_000,), {}),
    ],
)
def test_attribute__idling_by_its_policy(
    weights: dict[str, int],
    idle: str,
    active_mj: tuple[int, ...],
    idle_mj: tuple[int, ...],
    unattributed_mj: dict[str, int],
) -> None:
    """What devices take for idling belongs to nobody, or goes as the rest does."""
    shared = attribute(
        measured_mj=100_000_000,
        gap_mj=3_000_000,
        unmapped_mj=2_000_000,
        covered_ms=10 * 20_000,
        weights=weights,
        idle_mw=50_000,
        idle=IdlePolicy(idle),
    )
    assert tuple(shared.active_mj.values()) == active_mj
    assert tuple(shared.idle_mj.values()) == idle_mj
    nobodys = {"gap": 3_000_000, "unmapped": 2_000_000}
    assert shared.unattributed_mj == {**nobodys, **unattributed_mj}


def test_attribute__idling_is_no_more_than_was_measured() -> None:
    """A board that took less than it is said to idle at was idle, and no more."""
    shared = attribute(
        measured_mj=10,
        gap_mj=4,
        unmapped_mj=0,
        covered_ms=900_000,
        weights={"a": 1},
        idle_mw=10**6,
        idle=IdlePolicy.UNATTRIBUTED,
    )
    assert (shared.active_mj, shared.unattributed_mj) == ({}, {"gap": 4, "idle": 6})


@given(ENERGY, WEIGHTS, st.randoms(use_true_random=False), st.integers(1, 1000))
def test_attribute__depends_on_proportions_alone(
    measured_mj: int, weights: dict[int, int], random: Random, factor: int
) -> None:
    """Neither the order of the keys nor the scale of the weights changes a share."""
    items = [(key, count * factor) for key, count in weights.items()]
    random.shuffle(items)
    assert whole(measured_mj, dict(items)) == whole(measured_mj, weights)


@given(ENERGY, st.integers(1, 10**9), st.integers(1, 10**9), st.integers(0, 10**9))
def test_attribute__of_two_together_is_the_sum(
    measured_mj: int, first: int, second: int, other: int
) -> None:
    """Two keys taken as one get what they get apart, within a millijoule."""
    apart = whole(measured_mj, {"a": first, "b": second, "c": other}).active_mj
    together = whole(measured_mj, {"a": first + second, "c": other}).active_mj
    assert abs(apart.get("a", 0) + apart.get("b", 0) - together.get("a", 0)) <= 1
