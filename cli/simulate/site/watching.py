"""What the meter says of a run while it lasts: tokens by tier, energy by pool."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from cli.connection import Client
from cli.simulate.site.power import SITE
from cli.simulate.site.size import TIERS
from cli.simulate.site.world import World, interval_span
from tokenworks.meter.v1 import energy_service_pb2 as energy_pb
from tokenworks.meter.v1 import meter_service_pb2 as pb
from tokenworks.meter.v1.usage_pb2 import TokenClass

OUTPUT_CLASSES: Final = ("output", "reasoning")


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """What counters have measured in the intervals of a run: mJ by pool, and at the meters."""

    pools_mj: Mapping[str, int] = field(default_factory=dict)
    facility_mj: int = 0

    def since(self, before: "Energy") -> "Energy":
        """Return what was measured since an earlier answer."""
        return Energy(
            pools_mj={
                pool: energy_mj - before.pools_mj.get(pool, 0)
                for pool, energy_mj in self.pools_mj.items()
            },
            facility_mj=self.facility_mj - before.facility_mj,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What is counted of a run: requests by tier, and tokens by tier and class.

    `until_ms`: all that was acknowledged before is in it.
    """

    events: Mapping[str, int]
    tokens: Mapping[str, Mapping[str, int]]
    until_ms: int

    @property
    def event_count(self) -> int:
        """Requests of all tiers."""
        return sum(self.events.values())

    def token_count(self, tier: str) -> int:
        """Tokens of a tier, of all classes."""
        return sum(self.tokens.get(tier, {}).values())

    def output_count(self, tier: str) -> int:
        """Tokens that a tier generated."""
        return sum(self.tokens.get(tier, {}).get(word, 0) for word in OUTPUT_CLASSES)


def ask_counted(client: Client, world: World, *, begin: datetime, end: datetime) -> Counted:
    """Ask what is counted of a run."""
    request = pb.QueryUsageRequest(account=world.root, group_by=[pb.GROUP_BY_TIER])
    _set_span(request, begin, end)
    answer = client.meter.QueryUsage(request)
    return Counted(
        events={row.tier: row.request_count for row in answer.rows},
        tokens={row.tier: classes_of(row) for row in answer.rows},
        until_ms=answer.counted_until.ToMilliseconds(),
    )


def ask_rows(client: Client, world: World, *, begin: datetime, end: datetime) -> list[pb.UsageRow]:
    """Ask for the sums of a run by account, model and tier."""
    group_by = (pb.GROUP_BY_ACCOUNT, pb.GROUP_BY_MODEL, pb.GROUP_BY_TIER)
    request = pb.QueryUsageRequest(account=world.root, group_by=group_by)
    _set_span(request, begin, end)
    return list(client.meter.QueryUsage(request).rows)


def ask_energy(client: Client, *, begin: datetime, end: datetime) -> Energy:
    """Ask what was measured, of this run and of whatever was before it in the same intervals."""
    request = energy_pb.QueryEfficiencyRequest()
    _set_span(request, begin, end)
    answer = client.energy.QueryEfficiency(request)
    pools = {tier.pool for tier in TIERS}
    return Energy(
        pools_mj={it.pool: it.measured_mj for it in answer.pools if it.pool in pools},
        facility_mj=sum(it.facility_mj for it in answer.sites if it.site == SITE),
    )


def classes_of(row: pb.UsageRow) -> dict[str, int]:
    """Return a row's tokens by class."""
    return {
        TokenClass.Name(each.token_class).removeprefix("TOKEN_CLASS_").lower(): each.count
        for each in row.tokens
    }


def _set_span(
    request: pb.QueryUsageRequest | energy_pb.QueryEfficiencyRequest,
    begin: datetime,
    end: datetime,
) -> None:
    start, stop = interval_span(begin.astimezone(UTC), end.astimezone(UTC))
    request.start_time.FromDatetime(start)
    request.end_time.FromDatetime(stop)
