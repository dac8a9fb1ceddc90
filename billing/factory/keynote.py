"""What the keynote of GTC 2026 claims, worked out again from its own inputs.

Throughputs are an independent reader's of the chart (`billing.factory.shipped`), so a difference is
no proof of an error; a claim that does not reproduce from what is public is named as one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Final

from billing.factory.figures import HOURS_PER_YEAR, TOKENS_PER_PRICE, per_year, ratio
from billing.factory.plan import Mix, PlanInput, to_mix
from billing.factory.plan_file import read_plan
from billing.factory.shipped import SHIPPED, read_shipped
from billing.money import round_fraction

_BILLION: Final = 10**9
_DAYS_PER_YEAR: Final = 365
_ULTRA_PRICE: Final = 150
_PREMIUM: Final = "premium"


class Verdict(StrEnum):
    """Whether a published figure comes out of its inputs."""

    EXACT = "exact"
    ROUNDED = "rounds to it"
    DIFFERS = "does not reproduce"
    # There is a figure, and an input of it is not public.
    UNKNOWN = "inputs are not public"
    # Nothing is published to compare with.
    FOLLOWS = "nothing published"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A claim: from what it is worked out, what comes out, and what was published.

    Figures are in `unit`; `computed` is shown with so many decimals, and None where an input is not
    public. `published` is None where no figure was.
    """

    claim: str
    inputs: str
    unit: str
    computed: Fraction | None
    published: Fraction | None
    decimals: int = 3
    note: str = ""

    @property
    def verdict(self) -> Verdict:
        """Whether the published figure comes out."""
        if self.published is None:
            return Verdict.FOLLOWS
        if self.computed is None:
            return Verdict.UNKNOWN
        if self.computed == self.published:
            return Verdict.EXACT
        is_whole = self.published.denominator == 1
        is_same = round_fraction(self.computed, decimals=0) == self.published.numerator
        return Verdict.ROUNDED if is_whole and is_same else Verdict.DIFFERS


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A generation of the keynote: its input, a gigawatt in equal parts, and what comes of it."""

    shipped: str
    inputs: PlanInput
    mix: Mix

    @property
    def usd_per_year(self) -> Fraction:
        """Revenue of a year, all tiers."""
        return per_year(self.mix.revenue_per_second)


def generations() -> Sequence[Generation]:
    """Return the generations, oldest first."""
    return [_generation(name) for name in SHIPPED]


def claims() -> Sequence[Claim]:
    """Return what is claimed, in the order of the talk's arithmetic."""
    by_name = {it.shipped.removeprefix("keynote-"): it for it in generations()}
    hopper, as_read = by_name["hopper"], by_name["blackwell-as-read"]
    blackwell, rubin = by_name["blackwell"], by_name["rubin"]
    return [
        *_revenues(hopper, as_read=as_read, blackwell=blackwell, rubin=rubin),
        *_throughputs(hopper, as_read=as_read, blackwell=blackwell, rubin=rubin),
        *_others(rubin),
    ]


def _generation(name: str) -> Generation:
    inputs = read_plan(read_shipped(name)).complete()
    mw = {tier.tier: tier.actual_mw or Fraction(0) for tier in inputs.tiers}
    return Generation(shipped=name, inputs=inputs, mix=to_mix(inputs, mw))


def _revenues(
    hopper: Generation, *, as_read: Generation, blackwell: Generation, rubin: Generation
) -> Iterator[Claim]:
    quarters = "250 MW each of free, medium, high, premium"
    for name, of, published in (
        ("Hopper earns $6 B, so that Blackwell is 5x", hopper, 6),
        ("Blackwell earns $30 B a year", blackwell, 30),
        ("the same, premium as read off the chart", as_read, 30),
        ("Rubin earns $150 B a year", rubin, 150),
    ):
        yield Claim(
            claim=name,
            inputs=quarters,
            unit="$B/yr",
            computed=ratio(of.usd_per_year, _BILLION),
            published=Fraction(published),
        )
    for name, before, after in (
        ("Hopper to Blackwell: 5x", hopper, blackwell),
        ("Blackwell to Rubin: another 5x", blackwell, rubin),
        ("the same, premium as read off the chart", as_read, rubin),
    ):
        yield Claim(
            claim=name,
            inputs="the sums above",
            unit="x",
            computed=ratio(after.usd_per_year, before.usd_per_year),
            published=Fraction(5),
        )


def _throughputs(
    hopper: Generation, *, as_read: Generation, blackwell: Generation, rubin: Generation
) -> Iterator[Claim]:
    steps = (
        ("Blackwell serves 35x of medium", "medium", hopper, blackwell, 35),
        ("Rubin serves 2x of free", "free", blackwell, rubin, 2),
        ("Rubin serves 2x of medium", "medium", blackwell, rubin, 2),
        ("Rubin serves 3x of high", "high", blackwell, rubin, 3),
        ("Rubin serves 10x of premium", _PREMIUM, blackwell, rubin, 10),
        ("the same, premium as read off the chart", _PREMIUM, as_read, rubin, 10),
    )
    for name, tier, before, after, published in steps:
        is_fitted = tier == _PREMIUM and before is blackwell
        yield Claim(
            claim=name,
            inputs="tokens/s per MW off the chart",
            unit="x",
            computed=ratio(_rate(after, tier), _rate(before, tier)),
            published=Fraction(published),
            decimals=2,
            note="by construction: 0.02 was chosen so" if is_fitted else "",
        )
    for note, before_tps in (
        ("", 2_000_000),
        ("other transcripts have 22 M", 22_000_000),
        ("others have 200,000", 200_000),
    ):
        yield Claim(
            claim="350x tokens/s of a gigawatt in two years",
            inputs=f"{before_tps:,} to 700,000,000 tokens/s",
            unit="x",
            computed=ratio(700_000_000, before_tps),
            published=Fraction(350),
            decimals=1,
            note=note,
        )


def _others(rubin: Generation) -> Iterator[Claim]:
    yield Claim(
        claim="Rubin with LPX earns $300 B a year",
        inputs="the ultra tier's throughput is missing",
        unit="$B/yr",
        computed=None,
        published=Fraction(300),
        note=_implied_ultra(rubin),
    )
    yield Claim(
        claim="that is 10x",
        inputs="$300 B by Blackwell's $30 B, both as published",
        unit="x",
        computed=ratio(300, 30),
        published=Fraction(10),
    )
    team = ratio(50_000_000 * _ULTRA_PRICE, TOKENS_PER_PRICE)
    yield Claim(
        claim="a research team spends $7,500 a day",
        inputs="50 M tokens a day x $150/M",
        unit="$/day",
        computed=team,
        published=Fraction(7_500),
        decimals=0,
    )
    yield Claim(
        claim="and so $2,737,500 a year",
        inputs="365 days",
        unit="$/yr",
        computed=team * _DAYS_PER_YEAR,
        published=Fraction(2_737_500),
        decimals=0,
    )
    yield Claim(
        claim="a software update brings 7x",
        inputs="700 to 5,000 tokens/s",
        unit="x",
        computed=ratio(5_000, 700),
        published=Fraction(7),
        decimals=2,
        note="per user, board or cluster: it is not said",
    )
    yield Claim(
        claim="demand grows 1,000,000x",
        inputs="10,000x tokens a task x 100x usage",
        unit="x",
        computed=Fraction(10_000 * 100),
        published=Fraction(1_000_000),
        decimals=0,
    )
    for price, note in ((_ULTRA_PRICE, ""), (6, "at $6/M instead")):
        yield Claim(
            claim="an engineer's $250,000 of tokens a year",
            inputs=f"$250,000 by ${price}/M",
            unit="M tokens/yr",
            computed=ratio(250_000, price),
            published=None,
            decimals=0,
            note=note,
        )
    yield from _telco()


def _telco() -> Iterator[Claim]:
    hourly, gpu_hour = Fraction(30), ratio(7, 2)
    note = "only with a utilisation of 60 %, which is not stated"
    used = ratio(60, 100) * HOURS_PER_YEAR
    yield Claim(
        claim="an operator's GPU earns $157,680 a year",
        inputs="30 M tokens/h x $1/M x 8,760 h",
        unit="$/yr",
        computed=hourly * HOURS_PER_YEAR,
        published=Fraction(157_680),
        decimals=0,
    )
    for claim, computed, published in (
        ("the same at 60 %", hourly * used, 157_680),
        ("and rented out $18,396, at $3.50/h", gpu_hour * used, 18_396),
    ):
        yield Claim(
            claim=claim,
            inputs="x 60 %",
            unit="$/yr",
            computed=computed,
            published=Fraction(published),
            decimals=0,
            note=note,
        )
    yield Claim(
        claim="which is almost 9x",
        inputs="$157,680 by $18,396",
        unit="x",
        computed=ratio(157_680, 18_396),
        published=Fraction(9),
        decimals=2,
    )


def _rate(of: Generation, tier: str) -> Fraction:
    return next(it.tps_per_mw for it in of.inputs.tiers if it.tier == tier)


def _implied_ultra(rubin: Generation) -> str:
    """Say what of ultra a megawatt would have to serve, in million tokens a second."""
    claimed = 300 * _BILLION
    yearly = per_year(Fraction(_ULTRA_PRICE))
    fifth = ratio(claimed - rubin.usd_per_year * ratio(4, 5), 200 * yearly)
    instead = ratio(claimed - rubin.usd_per_year, 250 * yearly)
    shown = [round_fraction(it, decimals=3) for it in (fifth, instead)]
    return (
        f"it would take {shown[0]} M tokens/s per MW of ultra as a fifth of five tiers,"
        f" {shown[1]} M in place of free"
    )
