"""Random factories: every millijoule that was measured is somebody's or has a reason, as it says.

Counters reset, wrap, freeze, leap and fall silent; readings come late, twice, and of two sources;
tokens come late and are taken back; boards, hosts and sites are measured beside each other.
"""

import pytest

from tests.efficiency import oracle, product
from tests.efficiency.oracle import Meter
from tests.efficiency.worlds import GAPS_MS, WATTS_MAX, World, random_world

METER = Meter(watts_max=WATTS_MAX, gaps_ms=GAPS_MS)
WORLDS = 1_000
WORLDS_OF_STACKS = 4_000


@pytest.mark.slow
def test_world__to_the_millijoule() -> None:
    """In a thousand worlds the product's sums and shares are the oracle's, and add up."""
    for seed in range(WORLDS):
        _compare(random_world(seed))


@pytest.mark.stacks
@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("part", range(4))
def test_world__of_four_thousand(part: int) -> None:
    """So are they in four thousand others."""
    for seed in range(WORLDS + part, WORLDS + WORLDS_OF_STACKS, 4):
        _compare(random_world(seed))


def _compare(world: World) -> None:
    descriptions = oracle.describe(world.descriptions)
    factories = product.describe(world.descriptions)
    own = oracle.measure(world.rounds, meter=METER, descriptions=descriptions)
    measured = product.measure(world.rounds, factories=factories)
    assert measured == own, f"seed {world.seed}"
    shares = product.share(measured, world.events, factories=factories)
    assert shares == oracle.share(own, world.events, descriptions=descriptions), world.seed
    for place, owners in shares.items():
        assert sum(owners.values()) == measured[place].measured_mj, (world.seed, place)
        assert min(owners.values(), default=1) > 0, (world.seed, place)
