"""A thousand worlds, most of them beside the heavy tests, and that they reach what they are for."""

from collections import Counter

import pytest

from tests.simulation.__main__ import reach_lines, run_worlds
from tests.simulation.world import World

# What a thousand worlds must bring at least, and fewer by their share: a generator that no longer
# gets there would prove nothing.
_REACHED_MIN = {
    "changed batches": 100,
    "clones": 50,
    "commits lost": 500,
    "commits unknown": 500,
    "connections cut": 500,
    "damaged batches": 20,
    "disk faults": 500,
    "disk full": 500,
    "doubtful batches": 100,
    "events": 50_000,
    "events dropped, spool full": 50,
    "fences": 100,
    "gaps": 100,
    "holes": 300,
    "idle streams called back": 50,
    "messages swapped": 20,
    "meter crashes": 300,
    "power losses": 300,
    "producer crashes": 500,
    "reports recovered": 300,
    "rollbacks": 200,
    "spools deleted": 5,
    "torn tails": 20,
}


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "seeds", [range(300), pytest.param(range(300, 1_000), marks=pytest.mark.stacks)], ids=len
)
def test_world__counts_each_event_once(seeds: range) -> None:
    """Whatever happens in a thousand worlds, each event is counted once, kept, or excused."""
    reached, broken = run_worlds(seeds)
    assert broken == []
    share = len(seeds) / 1_000
    short = {
        name: reached[name] for name, least in _REACHED_MIN.items() if reached[name] < least * share
    }
    assert short == {}, "\n".join(reach_lines(reached, seed_count=len(seeds)))


def test_world__is_its_seed() -> None:
    """A seed makes the same world again, or a failure could not be looked at."""
    first, second = Counter[str](), Counter[str]()
    World(7, reached=first).run()
    World(7, reached=second).run()
    assert first == second
