"""What must not matter to the shares of energy: order, scale, repetition, names, company."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.energy.attribute import Attribution, attribute
from meter.energy.factory import IdlePolicy
from tests.efficiency import product
from tests.efficiency.worlds import random_world

ENERGY = st.integers(0, 10**13)
WEIGHTS = st.dictionaries(st.text("abcdef", min_size=1), st.integers(0, 10**12), min_size=1)
IDLE = st.sampled_from(IdlePolicy)


def _share(weights: dict[str, int], *, energy_mj: int, idle: IdlePolicy) -> Attribution[str]:
    """Share out an interval of a board that idles at 75 W, with a gap and an unmapped one."""
    return attribute(
        measured_mj=energy_mj,
        gap_mj=energy_mj // 7,
        unmapped_mj=energy_mj // 11,
        covered_ms=900_000,
        weights=weights,
        idle_mw=75_000,
        idle=idle,
    )


@given(WEIGHTS, ENERGY, IDLE)
def test_share__adds_up(weights: dict[str, int], energy_mj: int, idle: IdlePolicy) -> None:
    """Active, idle and unattributed energy are what was measured."""
    shared = _share(weights, energy_mj=energy_mj, idle=idle)
    parts = (shared.active_mj, shared.idle_mj, shared.unattributed_mj)
    assert sum(sum(part.values()) for part in parts) == energy_mj


@given(WEIGHTS, ENERGY, IDLE)
def test_share__of_no_tokens(weights: dict[str, int], energy_mj: int, idle: IdlePolicy) -> None:
    """Who has no weight gets nothing, and changes nothing for others."""
    shared = _share({**weights, "nobody": 0}, energy_mj=energy_mj, idle=idle)
    assert "nobody" not in {**shared.active_mj, **shared.idle_mj}
    assert shared == _share(weights, energy_mj=energy_mj, idle=idle)


@given(WEIGHTS, ENERGY, IDLE, st.integers(-(10**12), -1))
def test_share__of_fewer_than_no_tokens(
    weights: dict[str, int], energy_mj: int, idle: IdlePolicy, weight: int
) -> None:
    """What a correction leaves below nothing is nothing: nobody pays for it, nobody gains."""
    shared = _share({**weights, "corrected": weight}, energy_mj=energy_mj, idle=idle)
    assert shared == _share(weights, energy_mj=energy_mj, idle=idle)


@given(WEIGHTS, ENERGY, IDLE, st.integers(1, 10**6))
def test_share__of_all_weights_scaled(
    weights: dict[str, int], energy_mj: int, idle: IdlePolicy, factor: int
) -> None:
    """Weights are proportions: all of them larger change nothing."""
    larger = {key: weight * factor for key, weight in weights.items()}
    assert _share(larger, energy_mj=energy_mj, idle=idle) == _share(
        weights, energy_mj=energy_mj, idle=idle
    )


@given(WEIGHTS, ENERGY, IDLE, st.randoms(use_true_random=False))
def test_share__in_another_order(
    weights: dict[str, int], energy_mj: int, idle: IdlePolicy, random: Random
) -> None:
    """In which order tokens came changes nothing."""
    items = list(weights.items())
    random.shuffle(items)
    assert _share(dict(items), energy_mj=energy_mj, idle=idle) == _share(
        weights, energy_mj=energy_mj, idle=idle
    )


@given(WEIGHTS, ENERGY, IDLE, st.integers(0, 10**12), st.integers(0, 10**12))
def test_share__of_two_merged(
    weights: dict[str, int], energy_mj: int, idle: IdlePolicy, first: int, second: int
) -> None:
    """Two customers that become one get together what they got, within a millijoule."""
    apart = _share({**weights, "x": first, "y": second}, energy_mj=energy_mj, idle=idle)
    merged = _share({**weights, "x": first + second}, energy_mj=energy_mj, idle=idle)
    for own, together in (
        (apart.active_mj, merged.active_mj),
        (apart.idle_mj, merged.idle_mj),
    ):
        assert abs(own.get("x", 0) + own.get("y", 0) - together.get("x", 0)) <= 1


@pytest.mark.parametrize("seed", range(40))
def test_measure__of_all_rounds_again(seed: int) -> None:
    """Each round of readings sent twice, and again later, adds nothing."""
    world = random_world(seed)
    factories = product.describe(world.descriptions)
    once = product.measure(world.rounds, factories=factories)
    twice = [again for readings in world.rounds for again in (readings, readings)]
    assert product.measure(twice, factories=factories) == once


@pytest.mark.parametrize("seed", range(40))
def test_measure__of_one_device_alone(seed: int) -> None:
    """What is measured of all devices is the sum of what is measured of each."""
    world = random_world(seed)
    factories = product.describe(world.descriptions)
    alone_mj = 0
    for device in {it.device for it in world.devices}:
        rounds = [[it for it in each if it.device == device] for each in world.rounds]
        found = product.measure(filter(None, rounds), factories=factories)
        alone_mj += sum(it.measured_mj for it in found.values())
    together = product.measure(world.rounds, factories=factories)
    assert sum(it.measured_mj for it in together.values()) == alone_mj
