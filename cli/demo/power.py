"""What the month's tokens took and brought in, by tier: joules, dollars, and their ratios."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

from cli.connection import Client
from cli.demo.teams import LOS_ANGELES, RESEARCH, RESEARCH_DAY_TOKENS, TIERS
from cli.demo.world import BEGIN, DAYS, END, day_span
from cli.process import CommandError
from tokenworks.billing.v1.billing_service_pb2 import QueryRevenueRequest
from tokenworks.meter.v1 import energy_service_pb2 as pb
from tokenworks.meter.v1.meter_service_pb2 import QueryUsageRequest

MJ_OF_MWH: Final = 3_600_000_000_000
MJ_OF_KWH: Final = 3_600_000_000
_MJ_OF_JOULE: Final = 1_000
_SETTLED_SECONDS_MAX: Final = 60.0
_POLL_SECONDS: Final = 0.1
_MJ_OF_WATT_HOUR: Final = 3_600_000
_RATIO: Final = Decimal("0.0001")
_CENT: Final = Decimal("0.01")
RESEARCH_TIER: Final = "ultra"
RESEARCH_DAY_USD: Final = Decimal(7_500)
_STEP: Final = timedelta(hours=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class TierPower:
    """A tier's month: tokens that were generated, energy attributed to them, revenue, exact."""

    tier: str
    pool: str
    request_count: int
    output_tokens: int
    energy_mj: int
    revenue: Decimal

    @property
    def tokens_per_joule(self) -> str:
        """Output tokens per joule, to four decimals."""
        return _divide(Decimal(self.output_tokens * _MJ_OF_JOULE), self.energy_mj, _RATIO)

    @property
    def usd_per_mwh(self) -> str:
        """Dollars per megawatt-hour of attributed energy, to the cent."""
        return _divide(self.revenue * MJ_OF_MWH, self.energy_mj, _CENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class TierRank:
    """A tier in the ranking: its shares, 0 to 1, of the energy and the revenue of all tiers."""

    tier: TierPower
    power_share: str
    revenue_share: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SitePower:
    """A site's power: what is contracted, and the highest hour with losses, in watts.

    `pue` is a decimal number, `basis` says where it is from.
    """

    site: str
    contracted_watts: int
    highest_watts: int
    pue: str
    basis: str

    @property
    def headroom_watts(self) -> int:
        """What the highest hour left of the contract; negative where it was too much."""
        return self.contracted_watts - self.highest_watts


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """What all pools measured, in mJ; `unattributed` by reason."""

    measured_mj: int = 0
    attributed_mj: int = 0
    unattributed_mj: dict[str, int] = field(default_factory=dict)

    @property
    def unattributed_total_mj(self) -> int:
        """What belongs to no tokens, for whatever reason."""
        return sum(self.unattributed_mj.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """What usage came to by tier, exact, up to the end of a day in Los Angeles.

    `research_tokens` are those of the research team, whose days these are. The first span is what
    of the month lies before its first day.
    """

    end: datetime
    revenue: dict[str, Decimal]
    research_tokens: int

    @property
    def is_as_promised(self) -> bool:
        """Tell whether the research team had 50 million tokens at $150 per million."""
        amount = self.revenue.get(RESEARCH_TIER)
        return self.research_tokens == RESEARCH_DAY_TOKENS and amount == RESEARCH_DAY_USD


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Some hours of the month: output tokens and attributed mJ by tier, measured mJ by pool."""

    begin: datetime
    end: datetime
    output_tokens: dict[str, int]
    attributed_mj: dict[str, int]
    measured_mj: dict[str, int]


def wait_until_attributed(client: Client) -> None:
    """Wait until the energy of the whole month is attributed, or known not to be."""
    give_up_time = time.monotonic() + _SETTLED_SECONDS_MAX
    while not _is_settled(_ask(client, BEGIN, END)):
        if time.monotonic() > give_up_time:
            raise CommandError("the month's energy is not attributed in time")
        time.sleep(_POLL_SECONDS)


def read_energy(client: Client) -> Energy:
    """Return what was measured in the month, and what became of it."""
    unattributed: dict[str, int] = {}
    pools = _ask(client, BEGIN, END).pools
    for pool in pools:
        for part in pool.unattributed:
            name = pb.UnattributedReason.Name(part.reason)
            reason = name.removeprefix("UNATTRIBUTED_REASON_").lower()
            unattributed[reason] = unattributed.get(reason, 0) + part.energy_mj
    return Energy(
        measured_mj=sum(pool.measured_mj for pool in pools),
        attributed_mj=sum(pool.attributed_mj for pool in pools),
        unattributed_mj=unattributed,
    )


def read_days(client: Client) -> list[Day]:
    """Return the month's money day by day."""
    first, _ = day_span(DAYS[0], LOS_ANGELES)
    spans = [(BEGIN, first), *(day_span(day, LOS_ANGELES) for day in DAYS)]
    return [_read_day(client, begin, end) for begin, end in spans]


def read_tiers(client: Client, *, days: Sequence[Day]) -> list[TierPower]:
    """Return the tiers, the cheapest first, with what they brought in on all days together."""
    group_by = (pb.EFFICIENCY_GROUP_BY_POOL, pb.EFFICIENCY_GROUP_BY_TIER)
    rows = [row for row in _ask(client, BEGIN, END, group_by=group_by).rows if row.tier]
    rows.sort(key=lambda row: TIERS.index(row.tier))
    return [
        TierPower(
            tier=row.tier,
            pool=row.pool,
            request_count=row.request_count,
            output_tokens=row.output_tokens,
            energy_mj=row.energy_mj,
            revenue=sum((day.revenue.get(row.tier, Decimal(0)) for day in days), Decimal(0)),
        )
        for row in rows
    ]


def rank(tiers: Sequence[TierPower]) -> list[TierRank]:
    """Order the tiers by dollars per megawatt-hour, the dearest first."""
    energy_mj = sum(it.energy_mj for it in tiers)
    revenue = sum((it.revenue for it in tiers), Decimal(0))
    ranks = [
        TierRank(
            tier=it,
            power_share=_divide(Decimal(it.energy_mj), energy_mj, _RATIO),
            revenue_share=_divide(it.revenue, revenue, _RATIO),
        )
        for it in tiers
    ]
    return sorted(ranks, key=lambda it: Decimal(it.tier.usd_per_mwh), reverse=True)


def read_sites(client: Client) -> list[SitePower]:
    """Return each site's power beside its contract."""
    version = client.energy.GetFactory(pb.GetFactoryRequest()).version
    answer = _ask(client, BEGIN, END, group_by=(pb.EFFICIENCY_GROUP_BY_HOUR,))
    measured = {site.site: site for site in answer.sites}
    sites = {pool.pool: pool.site for pool in version.pools}
    hours: dict[tuple[str, int], int] = {}
    for pool in answer.pools:
        hour = (sites[pool.pool], pool.start_time.seconds)
        hours[hour] = hours.get(hour, 0) + pool.measured_mj
    return [
        SitePower(
            site=site.site,
            contracted_watts=site.contracted_watts,
            highest_watts=_facility_watts(
                max(energy_mj for (name, _), energy_mj in hours.items() if name == site.site),
                pue=Decimal(measured[site.site].pue),
            ),
            pue=measured[site.site].pue,
            basis=pb.PueBasis.Name(measured[site.site].basis).removeprefix("PUE_BASIS_").lower(),
        )
        for site in version.sites
    ]


def read_steps(client: Client) -> list[Step]:
    """Return the month in steps of some hours."""
    return [_read_step(client, begin, end) for begin, end in _steps(BEGIN, END, _STEP)]


def _read_day(client: Client, begin: datetime, end: datetime) -> Day:
    revenue = QueryRevenueRequest()
    usage = QueryUsageRequest(account=RESEARCH)
    for request in (revenue, usage):
        request.start_time.FromDatetime(begin)
        request.end_time.FromDatetime(end)
    rows = client.meter.QueryUsage(usage).rows
    return Day(
        end=end,
        revenue={
            row.tier: Decimal(row.amount) for row in client.billing.QueryRevenue(revenue).rows
        },
        research_tokens=sum(each.count for row in rows for each in row.tokens),
    )


def _read_step(client: Client, begin: datetime, end: datetime) -> Step:
    answer = _ask(client, begin, end, group_by=(pb.EFFICIENCY_GROUP_BY_TIER,))
    return Step(
        begin=begin,
        end=end,
        output_tokens={row.tier: row.output_tokens for row in answer.rows if row.tier},
        attributed_mj={row.tier: row.energy_mj for row in answer.rows if row.tier},
        measured_mj={it.pool: it.measured_mj for it in answer.pools},
    )


def _ask(
    client: Client,
    begin: datetime,
    end: datetime,
    *,
    group_by: Sequence[pb.EfficiencyGroupBy.ValueType] = (),
) -> pb.QueryEfficiencyResponse:
    request = pb.QueryEfficiencyRequest(group_by=group_by)
    request.start_time.FromDatetime(begin)
    request.end_time.FromDatetime(end)
    return client.energy.QueryEfficiency(request)


def _is_settled(answer: pb.QueryEfficiencyResponse) -> bool:
    pending = pb.UNATTRIBUTED_REASON_PENDING
    return answer.attributed_until.ToMilliseconds() >= int(END.timestamp()) * 1000 and not any(
        part.reason == pending for pool in answer.pools for part in pool.unattributed
    )


def _steps(begin: datetime, end: datetime, step: timedelta) -> Iterator[tuple[datetime, datetime]]:
    while begin < end:
        following = min(begin + step, end)
        yield begin, following
        begin = following


def _facility_watts(hour_mj: int, *, pue: Decimal) -> int:
    """Return the mean power of an hour, with losses."""
    return int((hour_mj * pue / _MJ_OF_WATT_HOUR).quantize(Decimal(1), rounding=ROUND_HALF_UP))


def _divide(value: Decimal, by: int | Decimal, unit: Decimal) -> str:
    if by == 0:
        return "0"
    return format((value / by).quantize(unit, rounding=ROUND_HALF_UP), "f")
