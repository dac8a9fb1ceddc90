"""A thousand worlds, and that they reach what they are there for."""

from collections import Counter

from tests.simulation.__main__ import reach_lines, run_worlds
from tests.simulation.world import World

_SEEDS = range(1_000)
# What a thousand worlds must have brought at least: a generator that no longer gets there would
# prove nothing.
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


def test_world__counts_each_event_once() -> None:
    """Whatever happens in a thousand worlds, each event is counted once, kept, or excused."""
    reached, broken = run_worlds(_SEEDS)
    assert broken == []
    short = {name: reached[name] for name, least in _REACHED_MIN.items() if reached[name] < least}
    assert short == {}, "\n".join(reach_lines(reached, seed_count=len(_SEEDS)))


def test_world__is_its_seed() -> None:
    """A seed makes the same world again, or a failure could not be looked at."""
    first, second = Counter[str](), Counter[str]()
    World(7, reached=first).run()
    World(7, reached=second).run()
    assert first == second
