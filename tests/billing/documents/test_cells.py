"""Text in cells: how wide it is, where it breaks, and that columns stay columns."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.documents.cells import Column, lay_out, pad, width_of, wrap

texts = st.text(max_size=60) | st.text("ab -漢字한글🙂e\u0301", max_size=60)


@pytest.mark.parametrize(
    ("text", "width"),
    [
        ("", 0),
        ("glm-5.1", 7),
        ("漢字", 4),
        ("ﾊﾝｶｸ", 4),
        ("ＷＩＤＥ", 8),  # noqa: RUF001
        ("한국어", 6),
        ("e\u0301", 1),
        ("\u1112\u1161\u11ab", 2),
        ("नि", 2),
        ("が\u302a", 2),
        ("🙂", 2),
        ("a\u200bb", 2),
        ("— × ·", 5),
    ],
)
def test_width_of__as_terminals_draw(text: str, width: int) -> None:
    """East Asian characters take two cells, what stands on another one none, the others one."""
    assert width_of(text) == width


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("one two three", ["one two", "three"]),
        ("one  two", ["one  two"]),
        ("onetwothreefour", ["onetwoth", "reefour"]),
        ("a onetwothree", ["a", "onetwoth", "ree"]),
        ("東京人工知能", ["東京人工", "知能"]),
        ("ab東京cd人工", ["ab東京cd", "人工"]),
        ("a東京人工", ["a東京人", "工"]),
        ("e\u0301" * 9, ["e\u0301" * 8, "e\u0301"]),
        ("", [""]),
        ("1.40  ", ["1.40  "]),
    ],
)
def test_wrap__at_eight_cells(text: str, rows: list[str]) -> None:
    """Rows break at blanks and between wide characters, and words only where they must."""
    assert wrap(text, 8) == rows


@given(texts, st.integers(2, 40))
def test_wrap__of_any_text(text: str, width: int) -> None:
    """No row is too wide, and nothing but blanks is lost."""
    rows = wrap(text, width)
    assert rows
    assert all(width_of(row) <= width for row in rows)
    assert "".join(rows).replace(" ", "") == text.replace(" ", "")


@given(st.lists(st.tuples(texts, st.integers(2, 20), st.booleans()), min_size=1, max_size=5))
def test_lay_out__of_any_texts(cells: list[tuple[str, int, bool]]) -> None:
    """Whatever stands in the cells, each row is as wide as the columns and the gaps between."""
    columns = [Column(width=width, is_number=is_number) for _, width, is_number in cells]
    rows = lay_out([text for text, _, _ in cells], columns, gap=2)
    expected = sum(column.width for column in columns) + 2 * (len(columns) - 1)
    assert {width_of(row) for row in rows} == {expected}


def test_pad__on_both_sides() -> None:
    """Blanks fill up to a width in cells and not in characters."""
    assert (pad("漢字", 6), pad("漢字", 6, to_right=True)) == ("漢字  ", "  漢字")
