"""Two times, pools, generations or versions of software beside each other, at an equal mix. Pure.

Tokens per joule of two sides say nothing while their tiers differ in share: both sides are
reckoned at the mix of output tokens that the first one served.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from billing.factory.figures import HOURS_PER_YEAR, ratio
from meter.domain.units import MJ_PER_JOULE, MJ_PER_MEGAWATT_HOUR

_ZERO: Final = Fraction(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What a side served of a tier.

    `energy_mj` (mJ) and `output_tokens` are of the intervals whose power is valid. `usd` is what
    all of the tier came to, `sold_tokens` its output tokens; None where no price is known.
    """

    output_tokens: int
    energy_mj: int
    usd: Fraction | None
    sold_tokens: int

    @property
    def is_measured(self) -> bool:
        """Tell whether there are tokens and energy to make a ratio of."""
        return self.output_tokens > 0 and self.energy_mj > 0

    @property
    def mj_per_token(self) -> Fraction:
        """Millijoules of an output token; of what `is_measured`."""
        return ratio(self.energy_mj, self.output_tokens)

    @property
    def usd_per_token(self) -> Fraction | None:
        """USD that come with an output token; None where that is not known."""
        if self.usd is None or self.sold_tokens <= 0:
            return None
        return ratio(self.usd, self.sold_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A side: what it is called, and what it served by tier."""

    name: str
    tiers: Mapping[str, Served]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a side reaches at a mix; None where the price of a tier is not known."""

    tokens_per_joule: Fraction
    usd_per_megawatt_hour: Fraction | None

    @property
    def usd_per_megawatt_year(self) -> Fraction | None:
        """Revenue of a megawatt in a year of 365 days."""
        hourly = self.usd_per_megawatt_hour
        return None if hourly is None else hourly * HOURS_PER_YEAR


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two sides at the mix of the first.

    `mix` is each tier's share of the output tokens, of the tiers that both sides have;
    `mix_share` is how much of the first side's output tokens these are. `before` and `after` are
    None when no tier is on both sides. `own_before` and `own_after` are at each side's own mix.
    """

    mix: Mapping[str, Fraction]
    mix_share: Fraction
    before: Figures | None
    after: Figures | None
    own_before: Figures | None
    own_after: Figures | None
    missing: Sequence[str]


def compare(before: Side, after: Side) -> Comparison:
    """Return what both sides reach at the mix of the first."""
    shared = [name for name in before.tiers if _is_measured(before, name)]
    shared = [name for name in shared if _is_measured(after, name)]
    mix = _mix_of(before, shared)
    total = sum(max(it.output_tokens, 0) for it in before.tiers.values())
    held = sum(before.tiers[name].output_tokens for name in shared)
    return Comparison(
        mix=mix,
        mix_share=ratio(held, total) if total else _ZERO,
        before=_figures(before, mix),
        after=_figures(after, mix),
        own_before=_own(before),
        own_after=_own(after),
        missing=[*_find_missing(before, after), *_find_missing(after, before)],
    )


def change(before: Fraction | None, after: Fraction | None) -> Fraction | None:
    """Return how many times the first the second is; None where either is not known, or is 0."""
    return None if before is None or after is None or not before else ratio(after, before)


def _is_measured(side: Side, tier: str) -> bool:
    return tier in side.tiers and side.tiers[tier].is_measured


def _mix_of(side: Side, tiers: Collection[str]) -> dict[str, Fraction]:
    total = sum(side.tiers[name].output_tokens for name in tiers)
    return {name: ratio(side.tiers[name].output_tokens, total) for name in tiers}


def _own(side: Side) -> Figures | None:
    tiers = [name for name in side.tiers if _is_measured(side, name)]
    return _figures(side, _mix_of(side, tiers))


def _figures(side: Side, mix: Mapping[str, Fraction]) -> Figures | None:
    if not mix:
        return None
    mj = sum((share * side.tiers[name].mj_per_token for name, share in mix.items()), _ZERO)
    prices = [side.tiers[name].usd_per_token for name in mix]
    earned = _weigh(list(mix.values()), prices)
    return Figures(
        tokens_per_joule=ratio(MJ_PER_JOULE, mj),
        usd_per_megawatt_hour=None if earned is None else ratio(earned * MJ_PER_MEGAWATT_HOUR, mj),
    )


def _weigh(shares: Sequence[Fraction], values: Sequence[Fraction | None]) -> Fraction | None:
    total = _ZERO
    for share, value in zip(shares, values, strict=True):
        if value is None:
            return None
        total += share * value
    return total


def _find_missing(side: Side, other: Side) -> Sequence[str]:
    """Return a sentence for each tier of the other side that this one lacks something of."""
    found = []
    for tier in (name for name in other.tiers if _is_measured(other, name)):
        served = side.tiers.get(tier)
        if served is None or served.output_tokens <= 0:
            found.append(f"{side.name} served no {tier} in intervals of valid power")
        elif not served.is_measured:
            found.append(f"{side.name} has no energy of {tier}")
        elif served.usd_per_token is None:
            found.append(f"{side.name} has no revenue of {tier} in USD")
    return found
