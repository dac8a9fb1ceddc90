"""Boards that show what they draw and count nothing: trapezoids to the millijoule, and no guess."""

from fractions import Fraction
from itertools import pairwise
from random import Random

import pytest

from meter.energy.counters import Counter as EnergyCounter
from meter.energy.counters import Source, take
from meter.energy.delta import IntervalEnergy
from meter.energy.integral import PowerIntegral
from tests.efficiency.product import BOUNDS
from tests.efficiency.worlds import BEGIN_MS, GAP_MS


@pytest.mark.parametrize("seed", range(50))
def test_gauge__is_integrated(seed: int) -> None:
    """Between samples the mean of both counts, a millijoule at a time; of a gap nothing is said."""
    random = Random(seed)
    samples = [(BEGIN_MS + random.randrange(10**6), random.randrange(10**6))]
    for _ in range(random.randint(2, 60)):
        step_ms = random.choice((1, 997, 15_000, 60_000, GAP_MS, GAP_MS + 1, 3 * GAP_MS))
        samples.append((samples[-1][0] + step_ms, random.randrange(1_200_000)))
    found = _measure(samples)
    energy_mj, covered_ms, gap_ms = _integrate(samples)
    assert (found.measured_mj, found.covered_ms, found.gap_ms) == (energy_mj, covered_ms, gap_ms)
    assert found.estimated_mj == found.measured_mj
    assert (found.gap_mj, found.unmapped_mj, found.reset_count) == (0, 0, 0)


def _measure(samples: list[tuple[int, int]]) -> IntervalEnergy:
    """Have the product take samples, one after the other, each at once or twice."""
    integral = PowerIntegral()
    known: dict[str, EnergyCounter] = {}
    found = IntervalEnergy()
    for time_ms, power_mw in samples:
        for _ in range(2):
            estimate = integral.take(
                name="p", device="GPU-1", time_ms=time_ms, power_mw=power_mw, gap_ms=GAP_MS
            )
            if estimate is None:
                continue
            done = take([estimate], source=Source.DCGM, known=known, bounds=BOUNDS)
            known.update(done.counters)
            integral.settle(estimate)
            for sums in done.delta.intervals.values():
                found.add(sums)
    return found


def _integrate(samples: list[tuple[int, int]]) -> tuple[int, int, int]:
    """Add up on our own: mJ, and ms that are covered, and that lie in gaps between estimates."""
    energy_mj, covered_ms, gap_ms, silent_ms = 0, 0, 0, 0
    run = Fraction()
    for (before_ms, before_mw), (time_ms, power_mw) in pairwise(samples):
        passed_ms = time_ms - before_ms
        if passed_ms > GAP_MS:
            energy_mj += int(run)
            run = Fraction()
            silent_ms += passed_ms
            continue
        if covered_ms:
            # A gap shows when there is something on both of its sides.
            gap_ms += silent_ms
        silent_ms = 0
        run += Fraction((before_mw + power_mw) * passed_ms, 2_000)
        covered_ms += passed_ms
    return energy_mj + int(run), covered_ms, gap_ms
