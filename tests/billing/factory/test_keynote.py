"""The keynote's arithmetic, to the digits of the research, and what of it does not come out."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Final

import pytest

from billing.factory.figures import per_year
from billing.factory.keynote import Claim, Verdict, claims, generations
from billing.factory.shipped import SHIPPED

# Billions of dollars a year by tier, their sum, and dollars per million tokens. The research adds
# rounded terms: its sum for Blackwell as read is 46.122.
TABLE: Final[dict[str, tuple[dict[str, float], float, float]]] = {
    "keynote-hopper": ({"free": 0, "medium": 1.419}, 1.419, 0.857),
    "keynote-blackwell-as-read": (
        {"free": 0, "medium": 14.191, "high": 7.096, "premium": 24.835},
        46.122,
        3.849,
    ),
    "keynote-blackwell": (
        {"free": 0, "medium": 14.191, "high": 7.096, "premium": 7.096},
        28.382,
        2.449,
    ),
    "keynote-rubin": (
        {"free": 0, "medium": 37.843, "high": 33.113, "premium": 70.956},
        141.912,
        4.337,
    ),
}
TOKENS: Final = {"keynote-blackwell": 367_500_000, "keynote-rubin": 1_037_500_000}
NEAR: Final = 0.001
# What comes out for each claim, and whether that is what was published.
CLAIMS: Final = [
    ("1.419", 6, Verdict.DIFFERS),
    ("28.382", 30, Verdict.DIFFERS),
    ("46.121", 30, Verdict.DIFFERS),
    ("141.912", 150, Verdict.DIFFERS),
    ("20.000", 5, Verdict.DIFFERS),
    ("5.000", 5, Verdict.EXACT),
    ("3.077", 5, Verdict.DIFFERS),
    ("10.000", 35, Verdict.DIFFERS),
    ("2.357", 2, Verdict.ROUNDED),
    ("2.667", 2, Verdict.DIFFERS),
    ("4.667", 3, Verdict.DIFFERS),
    ("10.000", 10, Verdict.EXACT),
    ("2.857", 10, Verdict.DIFFERS),
    ("350.000", 350, Verdict.EXACT),
    ("31.818", 350, Verdict.DIFFERS),
    ("3500.000", 350, Verdict.DIFFERS),
    (None, 300, Verdict.UNKNOWN),
    ("10.000", 10, Verdict.EXACT),
    ("7500.000", 7_500, Verdict.EXACT),
    ("2737500.000", 2_737_500, Verdict.EXACT),
    ("7.143", 7, Verdict.ROUNDED),
    ("1000000.000", 1_000_000, Verdict.EXACT),
    ("1666.667", None, Verdict.FOLLOWS),
    ("41666.667", None, Verdict.FOLLOWS),
    ("262800.000", 157_680, Verdict.DIFFERS),
    ("157680.000", 157_680, Verdict.EXACT),
    ("18396.000", 18_396, Verdict.EXACT),
    ("8.571", 9, Verdict.ROUNDED),
]


def billions(yearly: Fraction) -> float:
    """Dollars as billions."""
    return float(yearly) / 1e9


@pytest.mark.parametrize("name", SHIPPED)
def test_generations__are_the_table(name: str) -> None:
    """Each tier, the sum and the blended price are the research's, to a thousandth."""
    found = next(it for it in generations() if it.shipped == name)
    by_tier, total, blended = TABLE[name]
    earned: Mapping[str, Fraction] = found.mix.usd_per_second
    assert {tier: billions(per_year(it)) for tier, it in earned.items()} == pytest.approx(
        by_tier, abs=NEAR / 2
    )
    assert billions(found.usd_per_year) == pytest.approx(total, abs=NEAR)
    assert found.mix.usd_per_million is not None
    assert float(found.mix.usd_per_million) == pytest.approx(blended, abs=NEAR / 2)
    assert set(found.mix.mw.values()) == {250}
    assert TOKENS.get(name, found.mix.total_tps) == found.mix.total_tps


def test_generations__the_constant_of_a_quarter() -> None:
    """250 MW of a million tokens/s per MW at a dollar per million are 7.884 billion a year."""
    rubin = generations()[-1]
    (medium,) = (it for it in rubin.inputs.tiers if it.tier == "medium")
    yearly = per_year(rubin.mix.usd_per_second["medium"])
    assert yearly / (medium.tps_per_mw / 10**6 * medium.price) == 7_884_000_000


def test_generations__are_five_per_cent_below_the_slides() -> None:
    """Both sums are the same part below what the slides say."""
    below = [
        round(float(it.usd_per_year) / published / 1e7 - 100, 1)
        for it, published in zip(generations()[2:], (30, 150), strict=True)
    ]
    assert below == [-5.4, -5.4]


def test_claims__come_out_as_they_do() -> None:
    """Each claim has its figure and its verdict; those that do not reproduce are named."""
    found = [
        (
            None if it.computed is None else f"{float(it.computed):.3f}",
            None if it.published is None else int(it.published),
            it.verdict,
        )
        for it in claims()
    ]
    assert found == CLAIMS


def test_claims__what_lpx_would_take() -> None:
    """The ultra tier's throughput is not public; what the claim implies of it is told."""
    (lpx,) = (it for it in claims() if it.verdict is Verdict.UNKNOWN)
    assert "0.197 M tokens/s per MW of ultra as a fifth of five tiers" in lpx.note
    assert "0.134 M in place of free" in lpx.note


@pytest.mark.parametrize(
    ("computed", "published", "verdict"),
    [
        (Fraction(7, 2), Fraction(7, 2), Verdict.EXACT),
        (Fraction(26, 10), Fraction(3), Verdict.ROUNDED),
        (Fraction(24, 10), Fraction(3), Verdict.DIFFERS),
        # What was published to a half is no rounded figure.
        (Fraction(26, 10), Fraction(3, 2), Verdict.DIFFERS),
        (None, Fraction(3), Verdict.UNKNOWN),
        (Fraction(3), None, Verdict.FOLLOWS),
    ],
)
def test_verdict__follows_from_both_figures(
    computed: Fraction | None, published: Fraction | None, verdict: Verdict
) -> None:
    """A verdict is worked out and not written down."""
    claim = Claim(claim="", inputs="", unit="x", computed=computed, published=published)
    assert claim.verdict is verdict
