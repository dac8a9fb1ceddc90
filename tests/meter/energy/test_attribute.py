"""Attribution: what is shared out is what was measured, to the millijoule."""

from fractions import Fraction
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.energy.attribute import Unattributed, apportion, attribute

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


@given(ENERGY, ENERGY, WEIGHTS)
def test_attribute__adds_up(known_mj: int, gap_mj: int, output_tokens: dict[int, int]) -> None:
    """Attributed and unattributed are what was measured, whatever there was."""
    measured_mj = known_mj + gap_mj
    shared = attribute(measured_mj=measured_mj, gap_mj=gap_mj, output_tokens=output_tokens)
    parts = [*shared.attributed_mj.values(), *shared.unattributed_mj.values()]
    assert sum(parts) == measured_mj
    assert all(part > 0 for part in parts)
    assert shared.unattributed_mj.get(Unattributed.GAP, 0) == gap_mj
    if any(output_tokens.values()):
        assert Unattributed.NO_TOKENS not in shared.unattributed_mj
    else:
        assert not shared.attributed_mj


@given(ENERGY, WEIGHTS, st.randoms(use_true_random=False), st.integers(1, 1000))
def test_attribute__depends_on_proportions_alone(
    measured_mj: int, output_tokens: dict[int, int], random: Random, factor: int
) -> None:
    """Neither the order of the keys nor the scale of the tokens changes a share."""
    items = [(key, count * factor) for key, count in output_tokens.items()]
    random.shuffle(items)
    plain = attribute(measured_mj=measured_mj, gap_mj=0, output_tokens=output_tokens)
    assert attribute(measured_mj=measured_mj, gap_mj=0, output_tokens=dict(items)) == plain


@given(ENERGY, st.integers(1, 10**9), st.integers(1, 10**9), st.integers(0, 10**9))
def test_attribute__of_two_together_is_the_sum(
    measured_mj: int, first: int, second: int, other: int
) -> None:
    """Two keys taken as one get what they get apart, within a millijoule."""
    apart = attribute(
        measured_mj=measured_mj, gap_mj=0, output_tokens={"a": first, "b": second, "c": other}
    ).attributed_mj
    together = attribute(
        measured_mj=measured_mj, gap_mj=0, output_tokens={"a": first + second, "c": other}
    ).attributed_mj
    assert abs(apart.get("a", 0) + apart.get("b", 0) - together.get("a", 0)) <= 1
