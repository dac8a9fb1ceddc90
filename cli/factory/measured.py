"""What pools took and earned, asked of a meter: what plans and comparisons are made of.

Energy is that of a pool's hosts where these are metered in the time, else that of its boards.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from billing.factory.compare import Served
from cli.connection import PRICING_SECONDS_MAX, Client
from cli.usage.span import Span
from tokenworks.billing.v1.billing_service_pb2 import QueryRevenueRequest
from tokenworks.meter.v1 import energy_service_pb2 as pb

CURRENCY: Final = "USD"
_GROUPS: Final = (pb.EFFICIENCY_GROUP_BY_POOL, pb.EFFICIENCY_GROUP_BY_TIER)
# What a pool takes for being there, beside what its tokens take.
_STANDING: Final = frozenset({pb.UNATTRIBUTED_REASON_IDLE, pb.UNATTRIBUTED_REASON_NO_TOKENS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Sums over spans of time.

    `served` is by tier. `attributed_mj` (mJ) went to tokens, `standing_mj` to idling and to nothing
    at all, `measured_mj` is all. `other_currencies` are those whose revenue is left out.
    """

    served: dict[str, Served] = field(default_factory=dict)
    attributed_mj: int = 0
    standing_mj: int = 0
    measured_mj: int = 0
    boundaries: frozenset[str] = frozenset()
    other_currencies: frozenset[str] = frozenset()

    @property
    def load(self) -> Fraction | None:
        """How many times their own energy tokens take, with that of idling; None without any."""
        if not self.attributed_mj:
            return None
        return Fraction(self.attributed_mj + self.standing_mj, self.attributed_mj)


def measure(client: Client, span: Span, *, takes: Callable[[str], bool]) -> Measured:
    """Return what the pools that are taken served in a span."""
    boards, hosts = (
        client.energy.QueryEfficiency(to_request(span, boundary=boundary))
        for boundary in (pb.ENERGY_BOUNDARY_BOARD, pb.ENERGY_BOUNDARY_HOST)
    )
    of_hosts = {it.pool for it in hosts.pools if it.measured_mj}
    pools = [it for it in hosts.pools if it.pool in of_hosts]
    pools += [it for it in boards.pools if it.pool not in of_hosts]
    rows = [row for row in boards.rows if row.pool not in of_hosts]
    rows += [row for row in hosts.rows if row.pool in of_hosts]
    taken = [it for it in pools if takes(it.pool)]
    revenue, others = _find_revenue(client, span, takes=takes)
    return Measured(
        served=_serve((row for row in rows if row.pool and takes(row.pool)), revenue=revenue),
        attributed_mj=sum(it.attributed_mj for it in taken),
        standing_mj=sum(
            each.energy_mj for it in taken for each in it.unattributed if each.reason in _STANDING
        ),
        measured_mj=sum(it.measured_mj for it in taken),
        boundaries=frozenset("host" if it.pool in of_hosts else "board" for it in taken),
        other_currencies=others,
    )


def add_up(parts: Sequence[Measured]) -> Measured:
    """Return the sums of several spans or pools."""
    served: dict[str, Served] = {}
    for part in parts:
        for tier, more in part.served.items():
            served[tier] = _add(served[tier], more) if tier in served else more
    return Measured(
        served=served,
        attributed_mj=sum(it.attributed_mj for it in parts),
        standing_mj=sum(it.standing_mj for it in parts),
        measured_mj=sum(it.measured_mj for it in parts),
        boundaries=frozenset().union(*(it.boundaries for it in parts)),
        other_currencies=frozenset().union(*(it.other_currencies for it in parts)),
    )


def to_request(span: Span, *, boundary: "pb.EnergyBoundary.ValueType") -> pb.QueryEfficiencyRequest:
    """Return the question for a span, by pool and tier."""
    request = pb.QueryEfficiencyRequest(group_by=_GROUPS, boundary=boundary)
    request.start_time.FromMilliseconds(span.start_ms)
    request.end_time.FromMilliseconds(span.end_ms)
    return request


def _find_revenue(
    client: Client, span: Span, *, takes: Callable[[str], bool]
) -> tuple[dict[str, Fraction], frozenset[str]]:
    """Return what each tier of these pools came to, and the other currencies that there are."""
    request = QueryRevenueRequest(by_pool=True)
    request.start_time.FromMilliseconds(span.start_ms)
    request.end_time.FromMilliseconds(span.end_ms)
    found = client.billing.QueryRevenue(request, timeout=PRICING_SECONDS_MAX).rows
    rows = [row for row in found if row.pool and takes(row.pool)]
    revenue: dict[str, Fraction] = {}
    for row in rows:
        if row.currency == CURRENCY:
            revenue[row.tier] = revenue.get(row.tier, Fraction(0)) + Fraction(row.amount)
    return revenue, frozenset(row.currency for row in rows) - {CURRENCY}


def _serve(rows: Iterable[pb.EfficiencyRow], *, revenue: dict[str, Fraction]) -> dict[str, Served]:
    """Return what each tier took and earned: its money counts once, whatever pools it is of."""
    served: dict[str, Served] = {}
    for row in rows:
        more = Served(
            output_tokens=row.valid_output_tokens,
            energy_mj=row.valid_energy_mj,
            usd=revenue.get(row.tier) if row.tier not in served else None,
            sold_tokens=row.output_tokens,
        )
        served[row.tier] = _add(served[row.tier], more) if row.tier in served else more
    return served


def _add(first: Served, second: Served) -> Served:
    known = [it.usd for it in (first, second) if it.usd is not None]
    return Served(
        output_tokens=first.output_tokens + second.output_tokens,
        energy_mj=first.energy_mj + second.energy_mj,
        usd=sum(known, Fraction(0)) if known else None,
        sold_tokens=first.sold_tokens + second.sold_tokens,
    )
