"""What a round of counting added: its sums by any key are those of its rows, one by one."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from meter.counted import Counted, Grouping, Sampled
from meter.domain.event import Dimensions
from meter.domain.tokens import FinishClass, TokenClass

Row = tuple[int, int, int, int, int]
rows_of_a_round = st.lists(
    st.tuples(
        st.integers(1, 300),
        st.integers(0, 2),
        st.integers(0, 8),
        st.integers(0, 2**40),
        st.integers(0, 2**40),
    ),
    min_size=1,
    max_size=50,
)


def counted_of(rows: Sequence[Row]) -> Counted:
    """Return rows of dimension, interval, band, input and output as a round in columns."""
    columns = [np.array(column, np.int64) for column in zip(*rows, strict=True)]
    return Counted(
        dimension_id=columns[0],
        interval_start_ms=columns[1],
        band=columns[2],
        finish_class=columns[2] % len(FinishClass) + 1,
        tokens={TokenClass.INPUT: columns[3], TokenClass.OUTPUT: columns[4]},
        request_count=np.ones(len(rows), np.int64),
        dimensions={it: _dimensions(it) for it in range(301)},
        sampled=Sampled(dimension_id=columns[0], end_ms=columns[1]),
    )


def _dimensions(number: int) -> Dimensions:
    return Dimensions(f"a{number % 7}", "m", "m", f"t{number % 3}", 1, "p", "")


@given(st.lists(rows_of_a_round, min_size=1, max_size=4))
def test_grouping__sums_are_those_of_the_rows(rounds: list[list[Row]]) -> None:
    """Round after round, each group has the tokens of its own rows, and no others."""
    grouping = Grouping(lambda of: (of.account, of.tier))
    for rows in rounds:
        counted = counted_of(rows)
        expected: Counter[tuple[tuple[str, str], TokenClass]] = Counter()
        for dimension_id, _, _, given_input, given_output in rows:
            of = _dimensions(dimension_id)
            expected[(of.account, of.tier), TokenClass.INPUT] += given_input
            expected[(of.account, of.tier), TokenClass.OUTPUT] += given_output
        numbers, sums = counted.sums_by(grouping.numbers(counted))
        found = {
            (grouping.keys[number], token_class): total
            for token_class, tokens in sums.items()
            for number, total in zip(numbers.tolist(), tokens.tolist(), strict=True)
        }
        assert found == expected


@given(rows_of_a_round)
def test_counted__of_an_interval(rows: list[Row]) -> None:
    """The intervals of a round share all of its rows among them."""
    counted = counted_of(rows)
    parts = [counted.of_interval(it) for it in (0, 1, 2)]
    assert sum(len(part.band) for part in parts) == len(rows)
    total = sum(int(part.tokens[TokenClass.INPUT].sum()) for part in parts)
    assert total == sum(row[3] for row in rows)
