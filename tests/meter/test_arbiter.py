"""Which report is counted: cases, and an oracle that adds up in plain Python."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.arbiter import Report, Standing, choose, is_billed_alike
from meter.corrections import CorrectableEvent
from meter.domain.event import Dimensions
from meter.domain.limits import TOKEN_COUNT_MAX
from meter.sources.observation import RANK_MAX, Source, rank

INPUT: Final = 1
CACHE_READ: Final = 2
OUTPUT: Final = 7
REASONING: Final = 8
FINAL, PARTIAL, ESTIMATED = 1, 2, 3


def event(tokens: Mapping[int, int], **extra: int) -> CorrectableEvent:
    """Return an event of one account."""
    return CorrectableEvent(
        dimensions=Dimensions("acme", "m", "m", "high", 1, "", ""),
        end_ms=1_000,
        tokens=tokens,
        extra=extra,
    )


def report(
    number: int,
    source: Source = Source.SPAN,
    *,
    tokens: Mapping[int, int] | None = None,
    quality: int = FINAL,
    is_choice: bool = False,
    **extra: int,
) -> Report:
    """Return a report with a number."""
    return Report(
        report_id=number,
        source=source,
        rank=rank(source, quality=quality),
        is_choice=is_choice,
        event=event({OUTPUT: number + 1} if tokens is None else tokens, quality=quality, **extra),
    )


def chosen(*reports: Report) -> list[int]:
    """Return the numbers of those that are counted."""
    return sorted(choose(reports).report_ids)


@pytest.mark.parametrize(
    ("reports", "numbers"),
    [
        pytest.param([report(0)], [0], id="alone"),
        pytest.param([report(0), report(1)], [0], id="of equals the first"),
        pytest.param([report(0), report(1, Source.PROXY)], [1], id="nearer to the caller"),
        pytest.param([report(0, Source.PROXY), report(1)], [0], id="nearer, and first"),
        pytest.param(
            [report(0, quality=PARTIAL), report(1)], [1], id="final counts after the last seen"
        ),
        pytest.param(
            [report(0, Source.PROXY, quality=ESTIMATED), report(1, Source.LOG, quality=PARTIAL)],
            [1],
            id="whatever an engine counted before an estimate",
        ),
        pytest.param(
            [report(0, is_choice=True), report(1, is_choice=True)], [0, 1], id="two choices"
        ),
        pytest.param(
            [report(0, is_choice=True), report(1, Source.ENVOY), report(2, is_choice=True)],
            [1],
            id="a choice after a better report",
        ),
        pytest.param(
            [
                report(0, is_choice=True, quality=ESTIMATED),
                report(1, Source.ENVOY, quality=ESTIMATED),
                report(2, is_choice=True),
            ],
            [0, 2],
            id="choices come back with a better one",
        ),
        pytest.param(
            [report(0), report(1, is_choice=True), report(2, is_choice=True)],
            [0],
            id="a whole request before its choices",
        ),
        pytest.param(
            [report(0, is_choice=True), report(1, Source.LOG, is_choice=True)],
            [0],
            id="choices of another source are another report",
        ),
    ],
)
def test_choose__case(reports: Sequence[Report], numbers: list[int]) -> None:
    """Each rule of precedence, and where they meet."""
    assert chosen(*reports) == numbers


def test_choose__adds_choices_up() -> None:
    """One prompt, all answers, the longest and the worst of each."""
    found = choose(
        [
            report(0, tokens={INPUT: 10, OUTPUT: 3}, is_choice=True, duration_ms=9),
            report(
                1,
                tokens={INPUT: 10, CACHE_READ: 4, OUTPUT: 5, REASONING: 1},
                quality=PARTIAL,
                is_choice=True,
                finish=3,
                duration_ms=7,
            ),
        ]
    )
    assert found.event.tokens == {INPUT: 10, CACHE_READ: 4, OUTPUT: 8, REASONING: 1}
    assert found.event.extra == {"quality": PARTIAL, "finish": 3, "duration_ms": 9}
    assert (found.rank, found.is_choice, found.token_count) == (
        rank(Source.SPAN, quality=1),
        True,
        23,
    )


def test_choose__reported_totals_of_choices() -> None:
    """Totals are added where all said them, and unknown where one did not."""
    said = [report(n, is_choice=True, reported_input=10, reported_output=n) for n in (1, 2)]
    assert choose(said).event.extra["reported_output"] == 3
    assert "reported_output" not in choose([*said, report(3, is_choice=True)]).event.extra


def test_choose__a_sum_beyond_all_counts_stays_without_the_rest() -> None:
    """Answers that no event could hold together are evidence, and the others are counted."""
    tokens = {OUTPUT: TOKEN_COUNT_MAX}
    small = report(2, tokens={INPUT: 1}, is_choice=True)
    reports = [report(n, tokens=tokens, is_choice=True) for n in (0, 1)]
    assert chosen(*reports, small) == [0, 2]


@pytest.mark.parametrize(
    ("changes", "is_alike"),
    [
        ({}, True),
        ({"served_model": ""}, True),
        ({"pool": "hall-1"}, True),
        ({"account": "other"}, False),
        ({"model": "n"}, False),
        ({"served_model": "n"}, False),
        ({"tier": "free"}, False),
        ({"mode": 2}, False),
        ({"region": "eu"}, False),
    ],
)
def test_is_billed_alike__by_dimensions(changes: dict[str, Any], *, is_alike: bool) -> None:
    """Where a request ran is nobody's bill; whose it is, and what it was, is."""
    of: dict[str, Any] = {"account": "acme", "model": "m", "served_model": "m", "tier": "high"}
    of |= {"mode": 1, "pool": "", "region": ""}
    other = CorrectableEvent(dimensions=Dimensions(**(of | changes)), end_ms=9, tokens={INPUT: 1})
    assert is_billed_alike(event({INPUT: 1}), other) is is_alike
    assert not is_billed_alike(event({INPUT: 2}), other)


REPORTS: Final = st.lists(
    st.tuples(
        st.sampled_from(list(Source)),
        st.sampled_from([FINAL, PARTIAL, ESTIMATED]),
        st.booleans(),
        st.integers(0, 5),
        st.integers(0, 5),
    ),
    min_size=1,
    max_size=8,
)


def oracle(reports: Sequence[Report]) -> dict[int, int]:
    """Return the tokens that are to be counted, by the words of the guide to sources."""
    wholes: list[tuple[int, int, list[Report]]] = []
    for place, each in enumerate(reports):
        if not each.is_choice:
            wholes.append((each.rank, -place, [each]))
    for source in Source:
        mine = [(n, it) for n, it in enumerate(reports) if it.is_choice and it.source is source]
        if mine:
            top = max(it.rank for _, it in mine)
            since = min(n for n, it in mine if it.rank == top)
            wholes.append((top, -since, [it for _, it in mine]))
    members = max(wholes, key=lambda it: it[:2])[2]
    prompt = max(it.event.tokens.get(INPUT, 0) for it in members)
    answer = sum(it.event.tokens.get(OUTPUT, 0) for it in members)
    return {number: n for number, n in ((INPUT, prompt), (OUTPUT, answer)) if n}


@given(REPORTS)
def test_choose__as_an_oracle_says(drawn: list[tuple[Source, int, bool, int, int]]) -> None:
    """Of any reports in any order the tokens of the best are counted, and its rank is theirs."""
    reports = [
        report(
            n,
            source,
            tokens={number: count for number, count in ((INPUT, i), (OUTPUT, o)) if count},
            quality=quality,
            is_choice=is_choice,
        )
        for n, (source, quality, is_choice, i, o) in enumerate(drawn)
    ]
    found = choose(reports)
    assert found.event.tokens == oracle(reports)
    assert found.rank == max(it.rank for it in reports) <= RANK_MAX
    assert rises(reports)


def rises(reports: Sequence[Report]) -> bool:
    """Tell whether what is counted never becomes worse with a report that comes later."""
    found: list[Standing] = [choose(reports[: n + 1]) for n in range(len(reports))]
    return all(a.rank <= b.rank for a, b in itertools.pairwise(found))
