"""One request, several who report it: counted once, everything else kept beside it."""

import pytest

from meter.domain.outcome import Outcome
from meter.journal.commit import Submission
from meter.sources.observation import Source
from meter.sources.originals import unpack
from meter.store.journal import JournalStore
from tests.meter.observing import INPUT, OUTPUT, Reporting, outcomes_of, seen
from tests.meter.store.recording import ask, ask_one, commit, tokens_in_journal

RECORDED, DUPLICATE, OBSERVED, CONFLICT = (
    Outcome.RECORDED,
    Outcome.DUPLICATE,
    Outcome.OBSERVED,
    Outcome.CONFLICT,
)
KEPT = "SELECT source, report_rank, token_count, state, profile FROM observations ORDER BY source"


@pytest.fixture
def report() -> Reporting:
    """Makes submissions of reports."""
    return Reporting()


def outcomes(store: JournalStore, *group: Submission) -> list[list[int]]:
    """Record a group and return the outcomes of each submission."""
    return [list(outcomes_of(result)) for result in commit(store, *group)]


def test_observed__first_report_is_counted_and_others_are_evidence(
    store: JournalStore, report: Reporting, database_url: str
) -> None:
    """Of three who report a request the first is in the journal, the others are rows beside it."""
    span = report(seen("s"), source=Source.SPAN)
    envoy = report(seen("e", tokens={INPUT: 10, OUTPUT: 6}), source=Source.ENVOY)
    proxy = report(seen("p"), source=Source.PROXY)
    assert outcomes(store, span) == [[RECORDED]]
    ((kept, differing),) = [(it.outcomes, it.differing_count) for it in commit(store, envoy)]
    assert (list(kept), differing) == ([OBSERVED], 1)
    assert outcomes(store, proxy) == [[OBSERVED]]
    assert tokens_in_journal(database_url) == 10
    assert ask(database_url, KEPT) == [(1, 53, 15, 1, "test/1"), (3, 49, 16, 1, "test/1")]
