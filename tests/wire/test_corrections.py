"""What was reported wrongly: voided or replaced once, by id or by place, with who and why."""

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from tests.running_meter import RunningMeter
from tests.wire.apart import Apart
from tests.wire.correcting import Correction, correct, refusal
from tests.wire.session import columns, event, reason_of, rows, to_columns
from tests.wire.talk import commits_held, info_of, read_metric, wait_until, waiting_count
from tokenworks.meter.v1 import account_service_pb2, meter_service_pb2, outcome_pb2, usage_pb2

INPUT, OUTPUT = usage_pb2.TOKEN_CLASS_INPUT, usage_pb2.TOKEN_CLASS_OUTPUT
DAY_MS = 86_400_000
NOT_FOUND = ("NOT_FOUND", "EVENT_NOT_FOUND")
REFUSED = ("FAILED_PRECONDITION", "CORRECTION_REFUSED")
WRONG = ("INVALID_ARGUMENT", "ARGUMENT_INVALID")


@pytest.fixture
def session(apart: Apart) -> Apart:
    """A session with two accounts of the test's own."""
    apart.create_account("beta")
    return apart


def listed(session: Apart, **changes: Any) -> list[Correction]:  # noqa: ANN401
    """Return a page of all corrections."""
    request = meter_service_pb2.ListCorrectionsRequest(**changes)
    return list(session.call("ListCorrections", request).corrections)


def test_void__takes_an_event_back(session: Apart) -> None:
    """A voided event counts nothing, however often it is sent; who, when and why are kept."""
    wrong = session.event(tokens={INPUT: 100, OUTPUT: 7}, request_id="r-1", finish=2, quality=2)
    session.record(wrong, session.event(tokens={INPUT: 3}))
    assert session.counted() == {("acme", "high", INPUT): 103, ("acme", "high", OUTPUT): 7}
    begin_ns = time.time_ns()
    found = correct(session, event_id=wrong.event_id, reason="reported twice")
    assert session.record(wrong) == [outcome_pb2.OUTCOME_DUPLICATE]
    assert session.counted() == {("acme", "high", INPUT): 3}
    assert not found.HasField("after")
    assert found.before.tokens == wrong.tokens
    assert found.before.end_time == wrong.end_time
    assert (found.before.request_id, found.before.finish, found.before.quality) == ("r-1", 2, 2)
    assert found.before.event_id.replace("-", "") == wrong.event_id
    assert (found.reason, found.place.producer) == ("reported twice", "")
    assert found.key_id.startswith("key_")
    assert begin_ns // 10**6 <= found.correct_time.ToMilliseconds() <= time.time_ns() // 10**6
    assert session.corrections() == [found]


def test_replace__counts_another_event_in_its_place(session: Apart) -> None:
    """A replacement may be another account's, tier's, model's, time's and of other counts."""
    wrong = session.event(tokens={INPUT: 100})
    session.record(wrong)
    month_ago = time.time_ns() // 10**6 - 50 * DAY_MS
    right = session.instead("beta", tier="free", model="n", tokens={OUTPUT: 8}, end_ms=month_ago)
    found = correct(session, event_id=wrong.event_id, replacement=right)
    assert session.counted() == {("beta", "free", OUTPUT): 8}
    assert found.after.tokens == right.tokens
    assert found.after.end_time == right.end_time
    assert found.after.dimensions.account == session.own("beta")
    assert found.after.event_id == found.before.event_id


def test_correct__by_place_however_it_was_sent(session: Apart) -> None:
    """Events without an id are found by producer, number and index, in rows and in columns."""
    sent = [session.event(event_id="", tokens={INPUT: 10**place}) for place in range(6)]
    session.exchange(
        session.opening(), rows(1, *sent[:2]), columns(2, to_columns(sent[2:4])), rows(3, *sent[4:])
    )
    assert correct(session, place=("p1", 2, 1)).before.tokens == sent[3].tokens
    assert correct(session, place=("p1", 1, 0)).before.tokens == sent[0].tokens
    assert session.counted() == {("acme", "high", INPUT): 110_110}
    assert refusal(session, place=("p1", 2, 2))[:2] == NOT_FOUND
    assert refusal(session, place=("p1", 4, 0))[:2] == NOT_FOUND
    assert refusal(session, place=("p2", 1, 0))[:2] == NOT_FOUND


def test_correct__index_is_that_of_the_batch_as_sent(session: Apart) -> None:
    """Events that were set aside shift nothing; one of them is refused until it is released."""
    sent = [
        session.event(event_id="", tokens={INPUT: 1}),
        session.event("late", event_id="", tokens={INPUT: 10}),
        session.event("late", event_id="", tokens={INPUT: 100}),
        session.event(event_id="", tokens={INPUT: 1_000}),
    ]
    session.exchange(session.opening(), rows(1, *sent))
    assert correct(session, place=("p1", 1, 3)).before.tokens == sent[3].tokens
    code, reason, said = refusal(session, place=("p1", 1, 1))
    assert (code, reason) == REFUSED
    assert "ACCOUNT_UNKNOWN" in said
    assert "held" in said
    session.create_account("late")
    held = session.quarantine()
    for entry in held[::-1]:
        number = entry.quarantine_id
        session.call(
            "ReleaseQuarantine", meter_service_pb2.ReleaseQuarantineRequest(quarantine_id=number)
        )
    found = correct(session, place=("p1", 1, 1))
    assert found.before.tokens == sent[1].tokens
    assert (found.place.producer, found.place.sequence) == (session.own("p1"), 1)
    assert found.place.index == 1
    assert session.counted() == {("acme", "high", INPUT): 1, ("late", "high", INPUT): 100}


def test_correct__in_a_released_batch(session: Apart) -> None:
    """A batch that was released lies under a number of its own; what both have is two events."""
    session.exchange(
        session.opening(),
        rows(1, session.event(tokens={INPUT: 1}), session.event(tokens={INPUT: 1_000})),
    )
    changed = [
        session.event("late"),
        session.event(tokens={INPUT: 10}),
        session.event(tokens={INPUT: 100}),
    ]
    session.exchange(session.opening(), rows(1, *changed))
    (entry,) = session.quarantine()
    code, reason, said = refusal(session, place=("p1", 1, 2))
    assert (code, reason, "BATCH_CHANGED" in said) == (*REFUSED, True)
    number = entry.quarantine_id
    session.call(
        "ReleaseQuarantine", meter_service_pb2.ReleaseQuarantineRequest(quarantine_id=number)
    )
    assert correct(session, place=("p1", 1, 2)).before.tokens == changed[2].tokens
    assert correct(session, place=("p1", 1, 0)).before.tokens[0].count == 1
    code, reason, said = refusal(session, place=("p1", 1, 1))
    assert (code, reason, "Name it by its event id" in said) == (*REFUSED, True)
    assert correct(session, event_id=changed[1].event_id).place.index == 1
    assert session.counted() == {("acme", "high", INPUT): 1_000}


def test_correct__of_what_was_never_counted(session: Apart) -> None:
    """What was rejected for good, or kept as a whole batch, cannot be taken back: both are told."""
    form = to_columns([session.event(), session.event()])
    form.end_offset_ms.append(1)
    session.exchange(session.opening(), rows(1, session.event("late")), columns(2, form))
    (entry, _) = session.quarantine()
    request = meter_service_pb2.RejectQuarantineRequest(
        quarantine_id=entry.quarantine_id, reason="a test"
    )
    session.call("RejectQuarantine", request)
    for sequence, words in ((1, "rejected"), (2, "BATCH_MALFORMED")):
        code, reason, said = refusal(session, place=("p1", sequence, 0))
        assert (code, reason, words in said) == (*REFUSED, True)


def test_correct__again_gets_the_first_answer(session: Apart) -> None:
    """The same call twice, as after a lost answer, is one correction, counted once."""
    first, second = session.event(tokens={INPUT: 5}), session.event(tokens={INPUT: 6})
    session.record(first, second)
    right = session.instead(tokens={INPUT: 9})
    answers = [correct(session, event_id=first.event_id) for _ in range(2)]
    answers += [correct(session, event_id=second.event_id, replacement=right) for _ in range(2)]
    assert answers[0] == answers[1]
    assert answers[2] == answers[3]
    assert [each.correction_id for each in session.corrections()] == [
        answers[0].correction_id,
        answers[2].correction_id,
    ]
    assert session.counted() == {("acme", "high", INPUT): 9}


def test_correct__follows_what_was_corrected(session: Apart) -> None:
    """Replaced twice, then voided: what counts is what is taken back, and what is void stays so."""
    wrong = session.event(tokens={INPUT: 1})
    session.record(wrong)
    for count in (10, 100):
        right = session.instead(tokens={INPUT: count})
        assert correct(session, event_id=wrong.event_id, replacement=right).after.tokens
        assert session.counted() == {("acme", "high", INPUT): count}
    last = correct(session, event_id=wrong.event_id)
    assert last.before.tokens[0].count == 100
    for changes in ({"reason": "another"}, {"replacement": session.instead(tokens={INPUT: 100})}):
        code, reason, said = refusal(session, event_id=wrong.event_id, **changes)
        assert (code, reason) == REFUSED
        assert f"by correction {last.correction_id}" in said
    assert session.counted() == {}
    kinds = [each.HasField("after") for each in session.corrections()]
    assert kinds == [True, True, False]
    assert [len(listed(session, page_size=1)), len(listed(session, page_size=3))] == [1, 3]


def test_correct__at_the_same_time(session: Apart) -> None:
    """Of corrections of one event at once one wins: its like get its answer, none counts twice."""
    sent = [session.event(tokens={INPUT: 1}) for _ in range(8)]
    session.record(*sent)
    rights = [session.instead(tokens={INPUT: 10}), session.instead(tokens={INPUT: 100})]

    def void(event_id: str) -> int:
        return correct(session, event_id=event_id).correction_id

    def replace(event_id: str, choice: int) -> None:
        # Whoever comes second corrects what the first one left, or is told to look again.
        with contextlib.suppress(grpc.RpcError):
            correct(session, event_id=event_id, replacement=rights[choice])

    with ThreadPoolExecutor(8) as pool:
        voided = list(pool.map(void, [it.event_id for it in sent[:4] for _ in range(3)]))
        choices = [(it.event_id, choice) for it in sent[4:] for choice in (0, 1, 0, 1)]
        list(pool.map(replace, *zip(*choices, strict=True)))
    assert [len(set(voided[place : place + 3])) for place in (0, 3, 6, 9)] == [1, 1, 1, 1]
    found = session.corrections()
    changed = sum(_total(it.after) - _total(it.before) for it in found)
    assert session.counted() == {("acme", "high", INPUT): 8 + changed}


def test_correct__second_of_two_that_differ(session: Apart) -> None:
    """Who comes second while the first is being written is told so, and changes nothing."""
    wrong, meter = session.event(tokens={INPUT: 1}), session.meter
    session.record(wrong)
    right = session.instead(tokens={INPUT: 10})
    voided, replaced = (_corrected(meter, kind) for kind in ("void", "replace"))

    def replace() -> Correction:
        return correct(session, event_id=wrong.event_id, replacement=right)

    def void() -> tuple[str, str, str]:
        return refusal(session, event_id=wrong.event_id)

    def buffered(size_bytes: int) -> bool:
        return read_metric(meter, "tokenworks_buffer_bytes") > size_bytes

    with ThreadPoolExecutor(2) as pool:
        with commits_held(meter.database_url):
            first = pool.submit(replace)
            wait_until(lambda: waiting_count(meter.database_url))
            size_bytes = int(read_metric(meter, "tokenworks_buffer_bytes"))
            second = pool.submit(void)
            # It has found the event as it was, and waits behind the first.
            wait_until(lambda: buffered(size_bytes))
        code, reason, said = second.result()
        number = first.result().correction_id
    assert (code, reason) == REFUSED
    assert f"Correction {number} of the same event came first" in said
    assert session.counted() == {("acme", "high", INPUT): 10}
    assert _corrected(meter, "replace") == replaced + 1
    assert _corrected(meter, "void") == voided


def _corrected(meter: RunningMeter, kind: str) -> float:
    return read_metric(meter, "tokenworks_corrections_total", kind=kind)


def _total(message: usage_pb2.UsageEvent) -> int:
    return sum(item.count for item in message.tokens)


def test_correct__of_an_unknown_event(session: Apart) -> None:
    """An id that nobody reported, and one outside the time that was looked at, are not found."""
    known = session.event()
    session.record(known)
    at_ms = known.end_time.ToMilliseconds()
    assert refusal(session, event_id="unknown")[:2] == NOT_FOUND
    assert refusal(session, event_id=known.event_id, start_time=at_ms + 1)[:2] == NOT_FOUND
    assert refusal(session, event_id=known.event_id, end_time=at_ms)[:2] == NOT_FOUND
    found = correct(session, event_id=known.event_id, start_time=at_ms, end_time=at_ms + 1)
    assert found.before.end_time == known.end_time


def test_correct__of_one_of_several(session: Apart) -> None:
    """An id that two producers reported is refused; the answer names the places to choose from."""
    twice = session.event(tokens={INPUT: 4})
    session.exchange(session.opening("p1"), rows(1, session.event(event_id=""), twice))
    session.exchange(session.opening("p2"), rows(1, twice))
    code, reason, said = refusal(session, event_id=twice.event_id)
    assert (code, reason) == REFUSED
    assert f"producer {session.own('p1')}, batch 1, index 1" in said
    assert f"producer {session.own('p2')}, batch 1, index 0" in said
    correct(session, place=("p2", 1, 0))
    assert session.counted() == {("acme", "high", INPUT): 7}


def test_correct__in_the_name_space_of_an_account(session: Apart) -> None:
    """Ids are one name space for the keys of an account: whose is said, and asked for if not."""
    scope = account_service_pb2.Scope(role=account_service_pb2.ROLE_PRODUCER)
    scope.account = session.own("beta")
    request = account_service_pb2.CreateApiKeyRequest(account=scope.account, scopes=[scope])
    key = session.call("CreateApiKey", request)
    other = session.with_key(key.secret)
    other.record(session.event("beta", event_id="same", tokens={INPUT: 4}))
    other.exchange(
        session.opening(), rows(1, session.event("beta", event_id="", tokens={INPUT: 40}))
    )
    code, reason, said = refusal(session, event_id="same")
    assert (code, reason, "beta" in said) == (*REFUSED, True)
    assert refusal(session, place=("p1", 1, 0))[:2] == REFUSED
    session.record(session.event(event_id="same", tokens={INPUT: 5}))
    correct(session, event_id="same")
    correct(session, event_id="same", account="beta")
    correct(session, place=("p1", 1, 0), account="beta")
    assert session.counted() == {}


UNFIT: list[tuple[dict[str, Any], tuple[str, str, str]]] = [
    ({"account": "nobody"}, (*REFUSED, "ACCOUNT_UNKNOWN")),
    ({"tier": "hihg"}, (*REFUSED, "TIER_UNKNOWN")),
    ({"tokens": {INPUT: -1}}, (*WRONG, "COUNT_NEGATIVE")),
    ({"reported_input_count": 4}, (*WRONG, "COUNT_MISMATCH")),
    ({"model": ""}, (*WRONG, "FIELD_INVALID")),
    ({"request_id": "r" * 129}, (*WRONG, "FIELD_INVALID")),
    ({"tokens": {number + 100: 1 for number in range(65)}}, (*WRONG, "BATCH_TOO_LARGE")),
    ({"end_ms": time.time_ns() // 10**6 + DAY_MS}, (*WRONG, "TIME_IN_FUTURE")),
]


def test_replace__is_checked_as_any_event(session: Apart) -> None:
    """A replacement that would be set aside is refused by its outcome, and nothing is changed."""
    wrong = session.event()
    session.record(wrong)
    for changes, found in UNFIT:
        with pytest.raises(grpc.RpcError) as failure:
            correct(session, event_id=wrong.event_id, replacement=session.instead(**changes))
        code, reason, _ = reason_of(failure.value)
        outcome = info_of(failure.value).metadata["outcome"]
        assert (code.name, reason, outcome) == found
    assert session.corrections() == []
    assert session.counted() == {("acme", "high", INPUT): 3}


WRONG_REQUESTS: list[tuple[dict[str, Any], str]] = [
    ({}, "event"),
    ({"event_id": ""}, "event_id"),
    ({"event_id": "0" * 32}, "event_id"),
    ({"event_id": "e" * 65}, "event_id"),
    ({"event_id": "e", "reason": ""}, "reason"),
    ({"event_id": "e", "reason": "r" * 201}, "reason"),
    ({"event_id": "e", "reason": "\n"}, "reason"),
    ({"event_id": "e", "account": "a" * 65}, "account"),
    ({"place": ("p", 1, 0), "account": "a\0"}, "account"),
    ({"event_id": "e", "start_time": 5, "end_time": 5}, "end_time"),
    ({"event_id": "e", "start_time": -5}, "start_time"),
    ({"event_id": "e", "replacement": event()}, "replacement.event_id"),
    ({"event_id": "e", "replacement": usage_pb2.UsageEvent()}, "replacement.end_time"),
    ({"place": ("", 1, 0)}, "place.producer"),
    ({"place": ('p"', 1, 0)}, "place.producer"),
    ({"place": ("p", 0, 0)}, "place.sequence"),
    ({"place": ("p", 1, -1)}, "place.index"),
]


def test_correct__of_a_wrong_request(session: Apart) -> None:
    """Each field that is wrong is named; pages are of at most 1,000, from the answer before."""
    for changes, field in WRONG_REQUESTS:
        with pytest.raises(grpc.RpcError) as failure:
            correct(session, **changes)
        assert reason_of(failure.value)[0].name == "INVALID_ARGUMENT"
        assert info_of(failure.value).metadata["field"] == field
    for page in ({"page_size": 1_001}, {"page_size": -1}, {"page_token": "x"}):
        with pytest.raises(grpc.RpcError) as failure:
            listed(session, **page)
        assert reason_of(failure.value)[1] == "ARGUMENT_INVALID"


def test_correct__is_the_operators(session: Apart) -> None:
    """Whoever is no operator of the whole installation corrects and sees nothing."""
    session.record(session.event(event_id="e"))
    scopes = [
        account_service_pb2.Scope(role=role, account=account)
        for role, account in [
            (account_service_pb2.ROLE_PRODUCER, ""),
            (account_service_pb2.ROLE_READER, ""),
            (account_service_pb2.ROLE_ADMIN, ""),
            (account_service_pb2.ROLE_OPERATOR, session.own("acme")),
        ]
    ]
    key = session.call("CreateApiKey", account_service_pb2.CreateApiKeyRequest(scopes=scopes))
    other = session.with_key(key.secret)
    assert refusal(other, event_id="e")[:2] == ("PERMISSION_DENIED", "SCOPE_MISSING")
    with pytest.raises(grpc.RpcError) as failure:
        listed(other)
    assert reason_of(failure.value)[1] == "SCOPE_MISSING"
    scope = account_service_pb2.Scope(role=account_service_pb2.ROLE_OPERATOR)
    key = session.call("CreateApiKey", account_service_pb2.CreateApiKeyRequest(scopes=[scope]))
    office = session.with_key(key.secret)
    assert (
        correct(office, event_id="e", replacement=session.instead("beta")).key_id == key.key.key_id
    )
