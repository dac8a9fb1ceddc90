"""Random stories: months that are closed, and what comes late, back or otherwise, to the cent."""

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from zoneinfo import ZoneInfo

import pytest

from tests.acceptance.compared_stories import compare
from tests.acceptance.lived_stories import Lived
from tests.acceptance.oracle_terms import month_span_ms
from tests.acceptance.stories import random_story
from tests.acceptance.told_stories import tell
from tests.billing.town import town_on
from tests.postgres import Cluster

PARTS = 10
# What stories are for: each of these is met, or the generator has gone blind.
MEETS = (
    *("issued", "already issued", "held", "held earlier", "carried", "zero", "no usage"),
    *("invoice", "credit_note", "supplementary_invoice", "write_off", "adjustment", "charge"),
    *("tax", "credit", "void", "correct", "take back", "replace", "book", "contract"),
)


def lived(seeds: Iterable[int]) -> tuple[list[str], Counter[str]]:
    """Return the stories in which product and oracle differ, and how, and what all have met."""
    found, met = [], Counter[str]()
    for seed in seeds:
        story = random_story(seed)
        compared = compare(story, tell(story))
        # From the first difference on, everything is.
        fault = next(compared.live(), None)
        if fault is not None:
            found.append(f"seed {seed}, {fault}")
        met.update(compared.met)
    return found, met


@pytest.mark.slow
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("stories", [60, pytest.param(200, marks=pytest.mark.stacks)])
def test_story__documents_are_those_of_the_oracle(stories: int) -> None:
    """Whatever comes late, is taken back, credited, voided or agreed on later: each document is."""
    parts = [range(part, stories, PARTS) for part in range(PARTS)]
    # Spawned, not forked: gRPC, which other tests have used, does not like forks.
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        results = list(pool.map(lived, parts))
    found = [fault for faults, _ in results for fault in faults]
    assert not found, found[:3]
    met = sum((each for _, each in results), Counter[str]())
    assert not set(MEETS) - met.keys(), set(MEETS) - met.keys()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "seeds",
    # Those in between are proved from the journal, too.
    [range(2), pytest.param(range(14, 20), marks=pytest.mark.stacks)],
)
def test_story__lived_on_postgres_as_by_the_oracle(cluster: Cluster, seeds: range) -> None:
    """The stores keep what the rules need: closes, voids and credits are those of the oracle."""
    for seed in seeds:
        story = random_story(seed)
        now_ms = month_span_ms(story.months[-1], zone=ZoneInfo("UTC"))[1] + 40 * 86_400_000
        with cluster.database() as url, town_on(url, now_ms=now_ms) as town:
            fault = next(compare(story, Lived(story, town)).live(), None)
        assert fault is None, f"seed {seed}, {fault}"
