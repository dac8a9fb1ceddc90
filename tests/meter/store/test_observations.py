"""One request, several who report it: counted once, everything else kept beside it."""

import zlib

import pytest

from meter.domain.event import Origin
from meter.domain.outcome import Outcome
from meter.domain.times import to_time
from meter.journal.commit import Submission
from meter.sources.identity import observer_of, report_key, request_event_id
from meter.sources.observation import Source
from meter.sources.originals import unpack
from meter.store.journal import JournalStore
from tests.meter.observing import INPUT, OUTPUT, PROFILE, Reporting, outcomes_of, seen
from tests.meter.plain_events import BEGIN_MS
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


def test_observed__several_in_one_group(store: JournalStore, report: Reporting) -> None:
    """Reports of a request that come in one transaction are told apart as if they came in turn."""
    span, again = report(seen("s"), seen("s")), report(seen("s"))
    envoy = report(seen("e"), seen("e"), source=Source.ENVOY)
    assert outcomes(store, span, envoy, again) == [
        [RECORDED, DUPLICATE],
        [OBSERVED, DUPLICATE],
        [DUPLICATE],
    ]


def test_observed__repetition_with_other_counts_is_a_conflict(
    store: JournalStore, report: Reporting, database_url: str
) -> None:
    """A report that comes again and says something else is set aside, be it counted or not."""
    other = {INPUT: 99}
    outcomes(store, report(seen("s")), report(seen("e"), source=Source.ENVOY))
    again = report(seen("s", tokens=other)), report(seen("e", tokens=other), source=Source.ENVOY)
    assert outcomes(store, *again) == [[CONFLICT], [CONFLICT]]
    question = "SELECT outcome, source, is_choice FROM quarantine ORDER BY source"
    assert ask(database_url, question) == [(CONFLICT, 3, False), (CONFLICT, 6, False)]
    assert tokens_in_journal(database_url) == 10


def test_observed__attempts_and_owners_are_apart(store: JournalStore, report: Reporting) -> None:
    """Another try, and another owner of API keys, is another request."""
    other = Origin(account_id="other", key_id="key_2", received_ms=BEGIN_MS)
    found = outcomes(
        store,
        report(seen("s")),
        report(seen("t", attempt=1)),
        report(seen("s"), origin=other),
        report(seen("u", attempt=1), source=Source.LITELLM),
    )
    assert found == [[RECORDED], [RECORDED], [RECORDED], [OBSERVED]]


def test_observed__without_a_request_id_stands_alone(
    store: JournalStore, report: Reporting
) -> None:
    """A report that names no request is counted, and once however often it is sent."""
    alone = report(seen("s", request_id=""), seen("t", request_id=""))
    assert outcomes(store, alone, alone) == [[RECORDED] * 2, [DUPLICATE] * 2]


def test_observed__event_is_found_by_its_request(report: Reporting) -> None:
    """In the journal it has the id that everybody can work out of the request."""
    submission = report(seen("s", request_id="q", attempt=2), seen("t", request_id=""))
    assert submission.batch.event_ids is not None
    assert [row.tobytes() for row in submission.batch.event_ids] == [
        request_event_id("q", attempt=2),
        report_key(observer_of(Source.SPAN, profile=PROFILE), report_id=b"t"),
    ]


def test_observed__originals_are_kept_with_what_is_new(
    store: JournalStore, report: Reporting, database_url: str
) -> None:
    """The usage objects of a call lie in one row, and are not kept again when it is repeated."""
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    late = BEGIN_MS + 5_000
    call = report(
        seen("s", original=usage), seen("t", request_id="q2", end_ms=late), profile="vllm_span/1"
    )
    outcomes(store, call)
    outcomes(store, call)
    question = "SELECT source, profile, event_count, last_end_time, body FROM usage_originals"
    ((source, profile, count, last, body),) = ask(database_url, question)
    assert (source, profile, count, last) == (6, "vllm_span/1", 1, to_time(late))
    (original,) = unpack(body)
    assert original.usage == usage
    assert original.event_id == request_event_id("q1", attempt=0)
    observer = observer_of(Source.SPAN, profile="vllm_span/1")
    assert original.report_key == report_key(observer, report_id=b"s")


def test_observed__originals_of_what_is_set_aside_are_kept(
    store: JournalStore, report: Reporting, database_url: str
) -> None:
    """What a person may release has its usage object, though nothing of its call is counted."""
    outcomes(store, report(seen("s", tier="none", original={"prompt_tokens": 10})))
    (original,) = unpack(ask_one(database_url, "SELECT body FROM usage_originals"))
    assert original.event_id == request_event_id("q1", attempt=0)


def test_observed__whatever_is_wrong_is_set_aside(
    report: Reporting, store: JournalStore, database_url: str
) -> None:
    """No account, tier or text that is no UTF-8, and no number however large, fails a call."""
    wrong = [
        seen("a", request_id="1", account=""),
        seen("b", request_id="2", account="nobody"),
        seen("c", request_id="3", tier="none"),
        seen("d", request_id="\ud800", model="\ud800"),
        seen("e", request_id="5", tokens={INPUT: 2**70}),
        seen("f", request_id="6", end_ms=2**80),
        seen("", request_id="7"),
        seen("h", request_id="8" * 129),
    ]
    submission = report(*wrong, seen("i"))
    assert [Outcome(it.outcome).name for it in submission.set_aside] == [
        "FIELD_INVALID",
        "ACCOUNT_UNKNOWN",
        "TIER_UNKNOWN",
        "FIELD_INVALID",
        "COUNT_ABOVE_LIMIT",
        "TIME_IN_FUTURE",
        "FIELD_INVALID",
        "FIELD_INVALID",
    ]
    assert outcomes(store, submission) == [[RECORDED]]
    assert ask_one(database_url, "SELECT count(*) FROM quarantine WHERE source = 6") == len(wrong)


def test_unpack__of_other_bytes() -> None:
    """Bytes that hold no originals are told from those that do."""
    for body in (b"", b"x", zlib.compress(b"{}")[:-3], zlib.compress(b"no JSON")):
        with pytest.raises(ValueError, match=r".+"):
            list(unpack(body))
