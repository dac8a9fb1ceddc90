"""What counting remembers of who reported for whom: exactly what was not known is new."""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeAlias

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from meter.counting.reports import Report, ReportMemory, month_of
from meter.domain.event import SIGN, Origin
from meter.domain.times import to_ms
from meter.segment import Segment

# A producer, "" for a call, with the dimensions and times of its events.
Batch: TypeAlias = tuple[str, list[tuple[int, int]]]

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
        found = memory.find_new([to_segment(it) for it in parts], accounts_of=accounts_of)
        said = set().union(*map(reports_in, parts))
        assert sorted(found) == sorted(said - known)
        memory.learn(found)
        known |= said


@given(rounds=batches_in(MONTHS_MS))
def test_find_new__of_more_months_than_are_kept(rounds: list[list[list[Batch]]]) -> None:
    """A month that was forgotten is told again: nothing is ever missed or made up."""
    memory, known = ReportMemory(), set[Report]()
    for parts in rounds:
        found = set(memory.find_new([to_segment(it) for it in parts], accounts_of=accounts_of))
        said = set().union(*map(reports_in, parts))
        assert said - known <= found <= said
        memory.learn(found)
        known |= said


def test_find_new__what_was_not_written_is_new_again() -> None:
    """Known is what was learnt, not what was found: a transaction may fail in between."""
    memory, part = ReportMemory(), to_segment([("p", [(0, MONTHS_MS[0])])])
    first = memory.find_new([part], accounts_of=accounts_of)
    assert memory.find_new([part], accounts_of=accounts_of) == first
    memory.learn(first)
    assert memory.find_new([part], accounts_of=accounts_of) == []
    memory.forget()
    assert memory.find_new([part], accounts_of=accounts_of) == first


def test_find_new__a_correction_is_no_report() -> None:
    """Who corrects an event is no producer that may have more of them."""
    part = to_segment([("p", [(0, MONTHS_MS[0])])], is_correction=True)
    assert ReportMemory().find_new([part], accounts_of=accounts_of) == []


def test_find_new__more_accounts_than_there_was_room_for() -> None:
    """Arrays grow with accounts and dimensions, and keep what they had."""
    memory = ReportMemory()
    names = {number: f"a{number}" for number in range(10_000)}
    few, many = ((("p", [(it, MONTHS_MS[0]) for it in range(end)])) for end in (10, 10_000))
    for batch, new_count in ((few, 10), (many, 9_990), (many, 0), (few, 0)):
        found = memory.find_new(
            [to_segment([batch])], accounts_of=lambda ids: {it: names[it] for it in ids}
        )
        assert len(found) == new_count
        memory.learn(found)
