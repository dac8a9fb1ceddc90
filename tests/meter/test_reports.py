"""What counting remembers of who reported for whom: exactly what was not known is new."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import NamedTuple, TypeAlias

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from meter.counting.reports import News, ReportMemory, Reports, month_of
from meter.domain.event import SIGN, Origin, ProducerKey
from meter.domain.times import to_ms
from meter.segment import Segment

# A producer, "" for a call, with the dimensions and times of its events.
Batch: TypeAlias = tuple[str, list[tuple[int, int]]]


class Report(NamedTuple):
    """A producer reported usage of an account in a month."""

    account_id: str
    month: date
    key_account: str
    producer: str


MONTHS_MS = [to_ms(datetime(2027, month, 1, tzinfo=UTC)) for month in range(1, 9)]
# Dimensions by their ids: three of each account.
ACCOUNTS = {dimension: f"a{dimension // 3}" for dimension in range(12)}


def batches_in(months_ms: Sequence[int]) -> st.SearchStrategy[list[list[list[Batch]]]]:
    """Rounds of counting, each of segments, whose events end around the begins of months."""
    event = st.tuples(
        st.sampled_from(sorted(ACCOUNTS)),
        st.sampled_from([start + step for start in months_ms for step in (0, 86_400_000)]),
    )
    batch = st.tuples(st.sampled_from(["", *"abcdefghij"]), st.lists(event, min_size=1, max_size=6))
    part = st.lists(batch, min_size=1, max_size=4)
    return st.lists(st.lists(part, min_size=1, max_size=3), min_size=1, max_size=6)


def accounts_of(dimension_ids: Collection[int]) -> Mapping[int, str]:
    """Return the accounts of dimensions, as the database does."""
    return {it: ACCOUNTS[it] for it in dimension_ids}


def to_segment(batches: Sequence[Batch], *, is_correction: bool = False) -> Segment:
    """Return a segment with these batches."""
    events = [event for _, each in batches for event in each]
    columns = {
        "dimension": np.array([dimension for dimension, _ in events], np.int64),
        "end_ms": np.array([end_ms for _, end_ms in events], np.int64),
    }
    if is_correction:
        columns[SIGN] = np.full(len(events), -1, np.int64)
    origins = [
        (Origin(account_id="k", key_id="key_1", received_ms=0, producer=name), len(each))
        for name, each in batches
    ]
    return Segment(origins=origins, columns=columns, tokens={}, event_ids=b"", request_ids=())


def nothing_written(*_: object) -> list[Reports]:
    """Know of no producer, as a database does that is new."""
    return []


def find(memory: ReportMemory, parts: Iterable[Segment]) -> list[News]:
    """Find what is new, where nothing was written before."""
    return memory.find_new(parts, accounts_of=accounts_of, reports_of=nothing_written)


def spell(memory: ReportMemory, news: Iterable[News]) -> set[Report]:
    """Return what was found one by one; each account of a producer stands there once."""
    reports = list(memory.spell_out(news))
    told = [
        Report(account_id, it.month, it.key_account, it.producer)
        for it in reports
        for account_id in it.account_ids
    ]
    assert len(set(told)) == len(told)
    assert len({it[:3] for it in reports}) == len(reports)
    return set(told)


def reports_in(batches: Sequence[Batch]) -> set[Report]:
    """Return what batches say, one event after the other."""
    return {
        Report(ACCOUNTS[dimension], month_of(end_ms), "k", name)
        for name, events in batches
        for dimension, end_ms in events
        if name
    }


@given(rounds=batches_in(MONTHS_MS[:3]))
def test_find_new__is_what_was_not_known(rounds: list[list[list[Batch]]]) -> None:
    """Each round finds what its events say and no earlier one did: no more, and nothing less."""
    memory, known = ReportMemory(), set[Report]()
    for parts in rounds:
        found = find(memory, map(to_segment, parts))
        said = set().union(*map(reports_in, parts))
        assert spell(memory, found) == said - known
        memory.learn(found)
        known |= said


@given(rounds=batches_in(MONTHS_MS))
def test_find_new__of_more_months_than_are_kept(rounds: list[list[list[Batch]]]) -> None:
    """A month that was forgotten is told again: nothing is ever missed or made up."""
    memory, known = ReportMemory(), set[Report]()
    for parts in rounds:
        found = find(memory, map(to_segment, parts))
        said = set().union(*map(reports_in, parts))
        told = {
            Report(account_id, it.month, it.key_account, it.producer)
            for it in memory.spell_out(found)
            for account_id in it.account_ids
        }
        assert said - known <= told <= said
        memory.learn(found)
        known |= said


def test_find_new__what_was_not_written_is_new_again() -> None:
    """Known is what was learnt, not what was found: a transaction may fail in between."""
    memory, part = ReportMemory(), to_segment([("p", [(0, MONTHS_MS[0])])])
    wanted = {Report("a0", month_of(MONTHS_MS[0]), "k", "p")}
    first = find(memory, [part])
    again = find(memory, [part])
    assert spell(memory, first) == spell(memory, again) == spell(memory, [*first, *again]) == wanted
    memory.learn(first)
    assert find(memory, [part]) == []
    memory.forget()
    assert spell(memory, find(memory, [part])) == wanted


def test_find_new__a_correction_is_no_report() -> None:
    """Who corrects an event is no producer that may have more of them."""
    part = to_segment([("p", [(0, MONTHS_MS[0])])], is_correction=True)
    assert find(ReportMemory(), [part]) == []


@given(rounds=batches_in(MONTHS_MS[:3]), written=batches_in(MONTHS_MS[:3]))
def test_find_new__what_is_written_is_known(
    rounds: list[list[list[Batch]]], written: list[list[list[Batch]]]
) -> None:
    """A producer is asked about when it is met, once a month; what it had reported is not new."""
    memory = ReportMemory()
    before = set().union(*(reports_in(it) for parts in written for it in parts))
    asked: list[tuple[date, ProducerKey]] = []

    def reports_of(month: date, keys: Collection[ProducerKey]) -> list[Reports]:
        asked.extend((month, key) for key in keys)
        # A row for each: what is written may have been added one by one.
        return [
            Reports(it.key_account, it.producer, it.month, [it.account_id])
            for it in before
            if it.month == month and (it.key_account, it.producer) in keys
        ]

    known = set(before)
    for parts in rounds:
        segments = [to_segment(it) for it in parts]
        found = memory.find_new(segments, accounts_of=accounts_of, reports_of=reports_of)
        said = set().union(*map(reports_in, parts))
        assert spell(memory, found) == said - known
        assert all(map(memory.knows, segments)) == (not found)
        memory.learn(found)
        known |= said
    assert len(set(asked)) == len(asked)


def test_find_new__more_accounts_than_there_was_room_for() -> None:
    """Arrays grow with accounts and dimensions, and keep what they had."""
    memory = ReportMemory()
    names = {number: f"a{number}" for number in range(10_000)}
    few, many = ((("p", [(it, MONTHS_MS[0]) for it in range(end)])) for end in (10, 10_000))
    for batch, new_count in ((few, 10), (many, 9_990), (many, 0), (few, 0)):
        found = memory.find_new(
            [to_segment([batch])],
            accounts_of=lambda ids: {it: names[it] for it in ids},
            reports_of=nothing_written,
        )
        assert len(spell(memory, found)) == new_count
        memory.learn(found)
