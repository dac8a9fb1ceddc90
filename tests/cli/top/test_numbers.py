"""Numbers and lines for people."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.top.numbers import draw_bar, draw_curve, write_number, write_percent


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, "–"),
        (math.inf, "–"),
        (0, "0"),
        (0.0000001, "<0.001"),
        (0.0009996, "0.0010"),
        (0.0123, "0.0123"),
        (0.09996, "0.100"),
        (0.5, "0.500"),
        (1.234, "1.23"),
        (12.345, "12.3"),
        (999.4, "999"),
        (999.6, "1.00k"),
        (12_345, "12.3k"),
        (700e6, "700M"),
        (1e9, "1.00G"),
        (9.22e18, "9.22E"),
        (1e24, ">999E"),
    ],
)
def test_number__three_digits(number: float | None, text: str) -> None:
    """A number has three digits and a prefix."""
    assert write_number(number) == text


@given(number=st.floats(min_value=0))
def test_number__fits(number: float) -> None:
    """No number is longer than six characters, and only nothing is written as 0."""
    text = write_number(number)
    assert len(text) <= 6
    assert (text == "0") is (number == 0)


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (None, "–"),
        (0, "0%"),
        (0.004, "<1%"),
        (0.934, "93%"),
        (1.0, "100%"),
        (9.99, "999%"),
        (1e9, ">999%"),
    ],
)
def test_percent__whole(ratio: float | None, text: str) -> None:
    """A ratio is whole percent."""
    assert write_percent(ratio) == text


@pytest.mark.parametrize(
    ("ratio", "bar"),
    [
        (0, "    "),
        (1, "████"),
        (0.5, "██  "),
        (0.53125, "██▏ "),
        (0.01, "    "),
        (2, "████"),
        (-1, "    "),
    ],
)
def test_bar__to_an_eighth(ratio: float, bar: str) -> None:
    """A bar is as long as its ratio to an eighth of a column, and never longer than it may be."""
    assert draw_bar(ratio, columns=4) == bar


@pytest.mark.parametrize(
    ("points", "curve"),
    [
        ([], ""),
        ([None, 0, 0], " ▁▁"),
        ([0, 7, 14], "▁▅█"),
        ([3, 3], "██"),
    ],
)
def test_curve__from_zero(points: list[float | None], curve: str) -> None:
    """A curve goes from 0 to its own highest point; what is not known is blank."""
    assert draw_curve(points) == curve
