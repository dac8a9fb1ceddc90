"""Random stories on Postgres, proved afterwards: documents replay, and lines are explained."""

from zoneinfo import ZoneInfo

import pytest

from billing.periods import read_month
from tests.acceptance.compared_stories import compare
from tests.acceptance.lived_stories import Lived
from tests.acceptance.oracle_terms import month_span_ms
from tests.acceptance.stories import random_story
from tests.billing.replayed import replay
from tests.billing.town import Town, town_on
from tests.postgres import Cluster


def unexplained(town: Town) -> list[tuple[str, int]]:
    """Return the lines whose intervals, events or lines before do not come to them."""
    found = []
    explaining = town.billing.explaining
    for number, line in town.ask("SELECT number, line FROM issued_lines ORDER BY 1, 2"):
        name, place = str(number), int(str(line))
        explained = explaining.explain_line(name, place)
        tokens = sum(it.token_count for it in explaining.line_events(name, place))
        if not explained.is_closed or tokens != sum(it.token_count for it in explained.segments):
            found.append((name, place))
    return found


@pytest.mark.stacks
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seeds", [range(2, 6), range(6, 10), range(10, 14)])
def test_story__is_proved_from_the_journal(cluster: Cluster, seeds: range) -> None:
    """What was late, void, credited or agreed on later is the oracle's, and the same once more."""
    for seed in seeds:
        story = random_story(seed)
        now_ms = month_span_ms(story.months[-1], zone=ZoneInfo("UTC"))[1] + 40 * 86_400_000
        with cluster.database() as url, town_on(url, now_ms=now_ms) as town:
            assert next(compare(story, Lived(story, town)).live(), None) is None, f"seed {seed}"
            says = [it for month in story.months for it in replay(town, read_month(month))[1]]
            assert says == [], f"seed {seed}"
            assert unexplained(town) == [], f"seed {seed}"
