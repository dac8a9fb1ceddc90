"""The keynote's arithmetic, redone: what of it comes out of its own inputs, and what does not."""

from decimal import Decimal
from fractions import Fraction

import pytest

from billing.factory.keynote import Verdict, claims
from billing.factory.plan import plan
from billing.factory.plan_file import read_plan
from billing.factory.shipped import read_shipped
from tests.efficiency.keynote import billions_a_year, generation, inputs_of, shown
from tests.efficiency.published import KEYNOTE, Generation


@pytest.mark.parametrize("it", KEYNOTE, ids=lambda it: it.shipped)
def test_generation__a_year_in_equal_parts(it: Generation) -> None:
    """A gigawatt in four quarters earns what the table says, to the million, tier by tier."""
    actual = plan(inputs_of(it)).actual
    assert actual is not None
    earned = {tier: billions_a_year(usd) for tier, usd in actual.usd_per_second.items()}
    assert earned == {tier: Decimal(billions) for tier, billions in it.billions.items()}
    # The table adds up its rounded parts, and so lies up to a million off.
    total = billions_a_year(actual.revenue_per_second)
    assert abs(total - Decimal(it.total_billions)) <= Decimal("0.001")
    assert actual.usd_per_million is not None
    assert shown(actual.usd_per_million, "0.001") == Decimal(it.blended)


@pytest.mark.parametrize("it", KEYNOTE, ids=lambda it: it.shipped)
def test_shipped__is_what_was_published(it: Generation) -> None:
    """The input that comes along says the same as the published figures."""
    shipped = read_plan(read_shipped(it.shipped)).complete()
    assert list(shipped.tiers) == list(inputs_of(it).tiers)
    assert shipped.power_mw == 1_000


@pytest.mark.parametrize(
    ("before", "ratio"), [("keynote-blackwell", "5.000"), ("keynote-blackwell-as-read", "3.077")]
)
def test_rubin__beside_blackwell(before: str, ratio: str) -> None:
    """Rubin earns five times as much only with the premium point that its slide implies."""
    assert shown(_earned("keynote-rubin") / _earned(before), "0.001") == Decimal(ratio)


@pytest.mark.parametrize(("name", "tokens"), [("blackwell", "367.5"), ("rubin", "1037.5")])
def test_generation__tokens_a_second(name: str, tokens: str) -> None:
    """A gigawatt in equal parts serves so many millions of tokens a second."""
    actual = plan(inputs_of(generation(f"keynote-{name}"))).actual
    assert actual is not None
    assert actual.total_tps == Fraction(tokens) * 10**6


@pytest.mark.parametrize(
    ("words", "verdict", "computed"),
    [
        (("Blackwell earns $30 B",), Verdict.DIFFERS, "28.382"),
        (("Rubin earns $150 B",), Verdict.DIFFERS, "141.912"),
        (("Hopper to Blackwell: 5x",), Verdict.DIFFERS, "20.000"),
        (("Blackwell to Rubin",), Verdict.EXACT, "5.000"),
        (("35x of medium",), Verdict.DIFFERS, "10.000"),
        (("350x", "2,000,000 to"), Verdict.EXACT, "350.000"),
        (("350x", "22,000,000 to"), Verdict.DIFFERS, "31.818"),
        (("350x", " 200,000 to"), Verdict.DIFFERS, "3500.000"),
        (("$7,500 a day",), Verdict.EXACT, "7500.000"),
        (("$2,737,500",), Verdict.EXACT, "2737500.000"),
        (("7x", "700 to 5,000"), Verdict.ROUNDED, "7.143"),
        (("1,000,000x",), Verdict.EXACT, "1000000.000"),
        (("LPX",), Verdict.UNKNOWN, None),
    ],
)
def test_claim__comes_out_or_is_named(
    words: tuple[str, ...], verdict: Verdict, computed: str | None
) -> None:
    """Each checkable claim has the figure that its inputs give, and says whether it is the same."""
    found = [it for it in claims() if all(word in f" {it.claim} {it.inputs} to" for word in words)]
    assert found, words
    figures = {None if it.computed is None else shown(it.computed, "0.001") for it in found}
    assert (None if computed is None else Decimal(computed)) in figures
    assert verdict in {it.verdict for it in found}


def _earned(name: str) -> Fraction:
    actual = plan(inputs_of(generation(name))).actual
    assert actual is not None
    return actual.revenue_per_second
