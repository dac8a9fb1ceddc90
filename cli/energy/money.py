"""What the tokens of pools come to, beside the energy that was attributed to them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Final

from cli.connection import PRICING_SECONDS_MAX, Client
from meter.domain.units import MJ_PER_MEGAWATT_HOUR, divide_half_up
from tokenworks.billing.v1.billing_service_pb2 import QueryRevenueRequest
from tokenworks.meter.v1 import energy_service_pb2 as pb

_CURRENCY: Final = "USD"
# What amounts are known by.
_KEYS: Final = ("tier", "pool")
_CENTS: Final = 2
_Key = tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class Earned:
    """What some tokens come to, and those of them whose energy is valid: dollars, and mJ."""

    amount: Decimal = Decimal(0)
    valid_amount: Fraction = field(default_factory=Fraction)
    valid_energy_mj: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Revenue:
    """US dollars by what rows are split by; nothing where these are told apart by more."""

    by: Sequence[str]
    earned: Mapping[_Key, Earned]

    def __bool__(self) -> bool:
        return bool(self.earned)

    def find(self, row: pb.EfficiencyRow) -> Decimal | None:
        """Return what a row's tokens come to."""
        found = self.earned.get(_key_of(row, by=self.by))
        return None if found is None else found.amount

    def per_megawatt_hour(self, rows: Sequence[pb.EfficiencyRow]) -> Decimal | None:
        """Return dollars a megawatt-hour over rows, in cents; None where no energy is valid."""
        keys = [_key_of(row, by=self.by) for row in rows]
        found = [self.earned[key] for key in keys if key in self.earned]
        energy_mj = sum(it.valid_energy_mj for it in found)
        if not energy_mj:
            return None
        amount = sum((it.valid_amount for it in found), Fraction())
        exact = amount * MJ_PER_MEGAWATT_HOUR / energy_mj * 10**_CENTS
        return Decimal(divide_half_up(exact.numerator, exact.denominator)).scaleb(-_CENTS)


def find_revenue(
    client: Client, request: pb.QueryEfficiencyRequest, *, by: Sequence[str]
) -> Revenue:
    """Return what the tokens of the request's pools come to, where rows are split by no more.

    As in the rows, tokens whose events name no pool are not in it. Of a pool whose power was valid
    for a part of the time, dollars count in proportion to the output tokens of that part.
    """
    if not by or not set(_KEYS).issuperset(by):
        return Revenue(by=by, earned={})
    question = QueryRevenueRequest(
        start_time=request.start_time, end_time=request.end_time, by_pool=True
    )
    finest = pb.QueryEfficiencyRequest()
    finest.CopyFrom(request)
    finest.group_by[:] = [pb.EFFICIENCY_GROUP_BY_TIER, pb.EFFICIENCY_GROUP_BY_POOL]
    rows = {(row.tier, row.pool): row for row in client.energy.QueryEfficiency(finest).rows}
    earned: dict[_Key, Earned] = defaultdict(Earned)
    for sold in client.billing.QueryRevenue(question, timeout=PRICING_SECONDS_MAX).rows:
        row = rows.get((sold.tier, sold.pool))
        if sold.currency != _CURRENCY or row is None:
            continue
        total = earned[_key_of(row, by=by)]
        total.amount += Decimal(sold.amount)
        if row.valid_energy_mj:
            total.valid_amount += Fraction(sold.amount) * _valid_share(row)
            total.valid_energy_mj += row.valid_energy_mj
    return Revenue(by=by, earned=dict(earned))


def _valid_share(row: pb.EfficiencyRow) -> Fraction:
    if row.output_tokens <= 0:
        return Fraction(1)
    return Fraction(row.valid_output_tokens, row.output_tokens)


def _key_of(row: pb.EfficiencyRow, *, by: Sequence[str]) -> _Key:
    return tuple(getattr(row, name) for name in by)
