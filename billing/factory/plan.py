"""The mix of tiers that earns the most of a capped power. Pure.

A megawatt of a tier earns its price times the tokens that it serves, less its electricity. With one
limit for all, the power, and bounds for each tier, the best mix needs no solver: the minima first,
then the tiers in the order of what a megawatt of them earns, each up to its demand.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Final

from billing.factory.figures import (
    KILOWATTS_PER_MEGAWATT,
    SECONDS_PER_HOUR,
    TOKENS_PER_PRICE,
    ratio,
)

ZERO: Final = Fraction(0)


class Binding(StrEnum):
    """What keeps the factory from earning more."""

    # A further megawatt would earn something.
    POWER = "power"
    # Each tier that earns anything has all that is asked of it: more power earns nothing.
    DEMAND = "demand"


class Limit(StrEnum):
    """Why a tier gets no more."""

    # It has all that is asked of it.
    DEMAND = "demand"
    # It would earn with more power.
    POWER = "power"
    # It earns no more than its electricity: it has its minimum.
    MINIMUM = "minimum"


class PlanImpossible(ValueError):
    """Something that is needed is said nowhere, or the minima cannot be served; it says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """A tier: tokens a second that a megawatt of IT power serves, and USD per 1,000,000 of them.

    `minimum_tps` (tokens a second) is served whatever it earns; `demand_tps` is what is asked for,
    None without an end. `actual_mw` is what it takes now, None where that is not known.
    """

    tier: str
    tps_per_mw: Fraction
    price: Fraction
    minimum_tps: Fraction = ZERO
    demand_tps: Fraction | None = None
    actual_mw: Fraction | None = None

    @property
    def usd_per_mw_second(self) -> Fraction:
        """What a megawatt of IT power earns in a second."""
        return ratio(self.price * self.tps_per_mw, TOKENS_PER_PRICE)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanInput:
    """What is planned with: power at the site's meter (MW), PUE ≥ 1, USD a kWh, and the tiers."""

    name: str
    power_mw: Fraction
    pue: Fraction
    usd_per_kwh: Fraction
    tiers: Sequence[Tier]

    @property
    def it_mw(self) -> Fraction:
        """What of the power is left for IT."""
        return ratio(self.power_mw, self.pue)

    @property
    def electricity_per_mw_second(self) -> Fraction:
        """USD that the electricity of a megawatt of IT power costs in a second."""
        return ratio(self.usd_per_kwh * KILOWATTS_PER_MEGAWATT * self.pue, SECONDS_PER_HOUR)

    def margin(self, tier: Tier) -> Fraction:
        """Return USD that a megawatt of IT power leaves in a second, after its electricity."""
        return tier.usd_per_mw_second - self.electricity_per_mw_second


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """Megawatts of IT power by tier, and what comes of them: a second's tokens and USD."""

    mw: Mapping[str, Fraction]
    tps: Mapping[str, Fraction]
    usd_per_second: Mapping[str, Fraction]
    electricity_per_second: Fraction

    @property
    def total_mw(self) -> Fraction:
        """Megawatts of IT power of all tiers."""
        return sum(self.mw.values(), ZERO)

    @property
    def total_tps(self) -> Fraction:
        """Tokens a second of all tiers."""
        return sum(self.tps.values(), ZERO)

    @property
    def revenue_per_second(self) -> Fraction:
        """USD a second of all tiers."""
        return sum(self.usd_per_second.values(), ZERO)

    @property
    def usd_per_million(self) -> Fraction | None:
        """USD per 1,000,000 tokens, all tiers together; None without tokens."""
        tps = self.total_tps
        return ratio(self.revenue_per_second * TOKENS_PER_PRICE, tps) if tps else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The best mix, the actual one where it is known, and what a further megawatt would earn.

    `shadow_per_mw_second` is USD a second for a further megawatt at the site's meter, after its
    electricity; 0 when demand binds. `tied` names tiers among which the last megawatts may be split
    in any way, for the same earnings: the plan gives them to the first.
    """

    inputs: PlanInput
    best: Mix
    actual: Mix | None
    limits: Mapping[str, Limit]
    binding: Binding
    shadow_per_mw_second: Fraction
    tied: Sequence[str]


def plan(inputs: PlanInput) -> Plan:
    """Return the mix that earns the most; raises PlanImpossible when the minima cannot be met."""
    mw = _serve_minima(inputs)
    left = inputs.it_mw - sum(mw.values(), ZERO)
    # Sorting keeps the order of tiers that earn the same.
    earning = sorted(
        (tier for tier in inputs.tiers if inputs.margin(tier) > 0),
        key=inputs.margin,
        reverse=True,
    )
    wanting: list[Tier] = []
    for tier in earning:
        room = _room(tier, taken=mw[tier.tier])
        given = left if room is None else min(left, room)
        mw[tier.tier] += given
        left -= given
        if room is None or given < room:
            wanting.append(tier)
    margin = inputs.margin(wanting[0]) if wanting else ZERO
    return Plan(
        inputs=inputs,
        best=to_mix(inputs, mw),
        actual=_find_actual(inputs),
        limits={tier.tier: _limit(tier, earning=earning, wanting=wanting) for tier in inputs.tiers},
        binding=Binding.POWER if wanting else Binding.DEMAND,
        shadow_per_mw_second=ratio(margin, inputs.pue),
        tied=_find_tied(inputs, margin, mw=mw),
    )


def to_mix(inputs: PlanInput, mw: Mapping[str, Fraction]) -> Mix:
    """Return what comes of so many megawatts of IT power for each tier."""
    tps = {tier.tier: mw[tier.tier] * tier.tps_per_mw for tier in inputs.tiers}
    usd = {tier.tier: mw[tier.tier] * tier.usd_per_mw_second for tier in inputs.tiers}
    electricity = sum(mw.values(), ZERO) * inputs.electricity_per_mw_second
    return Mix(mw=mw, tps=tps, usd_per_second=usd, electricity_per_second=electricity)


def _serve_minima(inputs: PlanInput) -> dict[str, Fraction]:
    mw: dict[str, Fraction] = {}
    for tier in inputs.tiers:
        if tier.demand_tps is not None and tier.minimum_tps > tier.demand_tps:
            raise PlanImpossible(f"{tier.tier}: its minimum is more than its demand")
        if tier.minimum_tps and not tier.tps_per_mw:
            raise PlanImpossible(f"{tier.tier}: has a minimum, and a megawatt serves no tokens")
        mw[tier.tier] = ratio(tier.minimum_tps, tier.tps_per_mw) if tier.minimum_tps else ZERO
    needed = sum(mw.values(), ZERO)
    if needed > inputs.it_mw:
        short = ratio(100 * (needed - inputs.it_mw), inputs.it_mw)
        raise PlanImpossible(
            f"the minima of {', '.join(name for name, it in mw.items() if it)} take more than the"
            f" power that there is, by {round(short)} %"
        )
    return mw


def _room(tier: Tier, *, taken: Fraction) -> Fraction | None:
    """Return the megawatts that it could still take; None without an end."""
    if tier.demand_tps is None:
        return None
    return ratio(tier.demand_tps, tier.tps_per_mw) - taken


def _limit(tier: Tier, *, earning: Sequence[Tier], wanting: Sequence[Tier]) -> Limit:
    if tier in wanting:
        return Limit.POWER
    return Limit.DEMAND if tier in earning else Limit.MINIMUM


def _find_tied(inputs: PlanInput, margin: Fraction, *, mw: Mapping[str, Fraction]) -> Sequence[str]:
    """Return the tiers that earn what the last megawatt does, if it could be given to another."""
    if not margin:
        return ()
    last = [tier for tier in inputs.tiers if inputs.margin(tier) == margin]
    is_free = any(mw[tier.tier] * tier.tps_per_mw > tier.minimum_tps for tier in last)
    return [tier.tier for tier in last] if is_free and len(last) > 1 else ()


def _find_actual(inputs: PlanInput) -> Mix | None:
    """Return the mix of now, a tier that is not said taking nothing; None when none is said."""
    known = {tier.tier: tier.actual_mw for tier in inputs.tiers if tier.actual_mw is not None}
    if not known:
        return None
    return to_mix(inputs, {tier.tier: known.get(tier.tier, ZERO) for tier in inputs.tiers})
