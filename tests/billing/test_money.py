"""Money: exact until the one rounding, which is half up, away from zero."""

from decimal import Decimal, Inexact, InvalidOperation, Overflow, localcontext
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.money import (
    Currency,
    add_up,
    amount_of,
    find_currency,
    multiply,
    round_half_up,
    share_out,
    subtract,
    write,
    write_money,
)

USD = Currency("USD", 2)
JPY = Currency("JPY", 0)
BHD = Currency("BHD", 3)
CLF = Currency("CLF", 4)
decimals = st.decimals(allow_nan=False, allow_infinity=False, places=9, min_value=-(10**12)).filter(
    lambda it: it < 10**12
)


@pytest.mark.parametrize(
    ("code", "exponent"),
    [("USD", 2), ("EUR", 2), ("JPY", 0), ("KRW", 0), ("BHD", 3), ("KWD", 3), ("CLF", 4)],
)
def test_find_currency__known(code: str, exponent: int) -> None:
    """A currency has the decimals that ISO 4217 gives its smallest unit."""
    assert find_currency(code) == Currency(code, exponent)


@pytest.mark.parametrize(
    "code", ["XAU", "XAG", "XXX", "XTS", "XDR", "usd", "DEM", "ZZZ", "US", "", "840", "USD\n"]
)
def test_find_currency__unknown(code: str) -> None:
    """What nobody can pay a smallest unit of is no currency, and neither is an odd code."""
    assert find_currency(code) is None


@pytest.mark.parametrize(
    ("amount", "currency", "rounded"),
    [
        ("0.004999999", USD, "0.00"),
        ("0.005", USD, "0.01"),
        ("0.015", USD, "0.02"),
        ("0.025", USD, "0.03"),
        ("2.675", USD, "2.68"),
        ("-0.005", USD, "-0.01"),
        ("-0.004999", USD, "-0.00"),
        ("-2.675", USD, "-2.68"),
        ("0.5", JPY, "1"),
        ("1.5", JPY, "2"),
        ("2.5", JPY, "3"),
        ("-2.5", JPY, "-3"),
        ("0.4999", JPY, "0"),
        ("0.0005", BHD, "0.001"),
        ("0.0004", BHD, "0.000"),
        ("-1.2345", BHD, "-1.235"),
        ("0.00005", CLF, "0.0001"),
        ("1" * 40 + ".005", USD, "1" * 40 + ".01"),
    ],
)
def test_round_half_up__ties_and_exponents(amount: str, currency: Currency, rounded: str) -> None:
    """A half goes away from zero, in whole smallest units, however large the amount is."""
    assert str(round_half_up(Decimal(amount), currency)) == rounded


@given(decimals, st.sampled_from([USD, JPY, BHD, CLF]))
def test_round_half_up__is_the_nearest(amount: Decimal, currency: Currency) -> None:
    """Rounding moves an amount by half of a smallest unit at most, and a negative one alike."""
    rounded = round_half_up(amount, currency)
    unit = Fraction(1, 10**currency.exponent)
    assert Fraction(rounded) % unit == 0
    assert abs(Fraction(rounded) - Fraction(amount)) <= unit / 2
    assert round_half_up(-amount, currency) == -rounded


@given(
    st.integers(-(10**18), 10**18),
    st.decimals(min_value=0, max_value=10**9, places=12),
    st.lists(st.decimals(min_value=0, max_value=1000, places=6), max_size=4),
)
def test_amount_of__is_exact(token_count: int, base: Decimal, factors: list[Decimal]) -> None:
    """Tokens times a price times its factors, per million, is exact to the last digit."""
    unit_price = multiply(base, *factors)
    exact = Fraction(base)
    for factor in factors:
        exact *= Fraction(factor)
    assert Fraction(unit_price) == exact
    assert Fraction(amount_of(token_count, unit_price=unit_price)) == token_count * exact / 10**6


@given(st.lists(decimals))
def test_add_up__is_exact_in_any_order(amounts: list[Decimal]) -> None:
    """A sum is exact, and so does not depend on its order."""
    total = add_up(amounts)
    assert Fraction(total) == sum(map(Fraction, amounts))
    assert total == add_up(reversed(amounts))
    assert subtract(total, total) == 0


def test_arithmetic__never_rounds_by_itself() -> None:
    """What would have to be rounded raises, and the caller's own context changes nothing."""
    wide = Decimal("1." + "0" * 700 + "1")
    with pytest.raises(Inexact):
        multiply(wide, wide)
    with pytest.raises(Inexact):
        add_up([Decimal("1e600"), Decimal("1e-600")])
    with pytest.raises(Inexact):
        subtract(Decimal("1e600"), Decimal("1e-600"))
    with pytest.raises((Overflow, InvalidOperation)):
        round_half_up(Decimal("1e5000"), USD)
    with localcontext() as context:
        context.prec = 3
        assert multiply(Decimal("1.2345"), Decimal(3)) == Decimal("3.7035")
        assert write_money(Decimal("12345.675"), USD) == "12345.68"


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("0", "0"),
        ("-0.00", "0"),
        ("1.40", "1.4"),
        ("100", "100"),
        ("1E+3", "1000"),
        ("1E-7", "0.0000001"),
        ("0.1657500", "0.16575"),
        ("-2.50", "-2.5"),
        ("1" * 40 + ".50", "1" * 40 + ".5"),
    ],
)
def test_write__plain_digits(amount: str, text: str) -> None:
    """A decimal is written in digits that all say something, without an exponent."""
    assert write(Decimal(amount)) == text


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        ("0", USD, "0.00"),
        ("-0.001", USD, "0.00"),
        ("1234567.5", USD, "1234567.50"),
        ("1234567.5", JPY, "1234568"),
        ("1.0005", BHD, "1.001"),
        ("-12.345", USD, "-12.35"),
        ("1" * 40 + ".555", USD, "1" * 40 + ".56"),
    ],
)
def test_write_money__has_the_currencys_decimals(
    amount: str, currency: Currency, text: str
) -> None:
    """Money is written with exactly its currency's decimals, and never as less than nothing."""
    assert write_money(Decimal(amount), currency) == text


@settings(max_examples=1_000)
@given(
    st.integers(-(10**18), 10**18),
    st.integers(0, 16),
    st.lists(st.integers(0, 10**18), min_size=1, max_size=6).filter(any),
)
def test_share_out__adds_up(digits: int, place: int, weights: list[int]) -> None:
    """Parts add up to the amount, and none is a trillionth or more from its due."""
    amount = Decimal(digits).scaleb(-place)
    parts = share_out(amount, weights=weights)
    assert add_up(parts) == amount
    for part, weight in zip(parts, weights, strict=True):
        due = Fraction(amount) * weight / sum(weights)
        assert abs(Fraction(part) - due) < Fraction(1, 10**12)


@pytest.mark.parametrize(
    ("amount", "weights", "parts"),
    [
        ("1", [1, 1, 1], ["0.333333333334", "0.333333333333", "0.333333333333"]),
        ("-1", [1, 1, 1], ["-0.333333333333", "-0.333333333333", "-0.333333333334"]),
        ("0.00000000000001", [1, 2], ["0", "0.00000000000001"]),
        ("5", [0, 7], ["0", "5"]),
    ],
)
def test_share_out__largest_remainder(amount: str, weights: list[int], parts: list[str]) -> None:
    """What is left over goes where the remainder is largest, and to the first of equals."""
    assert share_out(Decimal(amount), weights=weights) == [Decimal(part) for part in parts]
