"""What plans and comparisons are made of, by answers that a meter may give."""

from fractions import Fraction
from types import SimpleNamespace
from typing import Any, cast

import pytest

from billing.factory.compare import Served
from cli.connection import PRICING_SECONDS_MAX, Client
from cli.factory.measured import Measured, add_up, measure
from cli.factory.site import measure_site
from cli.process import CommandError
from cli.usage.span import Span
from tokenworks.billing.v1.billing_service_pb2 import QueryRevenueResponse, RevenueRow
from tokenworks.meter.v1 import energy_service_pb2 as pb

HOUR = Span(start_ms=0, end_ms=3_600_000)
BOARD, HOST = pb.ENERGY_BOUNDARY_BOARD, pb.ENERGY_BOUNDARY_HOST


def row(pool: str, tier: str, tokens: int, mj: int) -> pb.EfficiencyRow:
    """A row whose intervals are all valid."""
    return pb.EfficiencyRow(
        pool=pool, tier=tier, output_tokens=tokens, valid_output_tokens=tokens, valid_energy_mj=mj
    )


def pool_energy(pool: str, attributed: int, **reasons: int) -> pb.PoolEnergy:
    """A pool's energy, in mJ, with what is nobody's by its reason."""
    message = pb.PoolEnergy(
        pool=pool, attributed_mj=attributed, measured_mj=attributed + sum(reasons.values())
    )
    for name, mj in reasons.items():
        number = pb.UnattributedReason.Value(f"UNATTRIBUTED_REASON_{name.upper()}")
        message.unattributed.add(reason=number, energy_mj=mj)
    return message


def client_of(
    boards: pb.QueryEfficiencyResponse,
    *,
    hosts: pb.QueryEfficiencyResponse | None = None,
    revenue: list[RevenueRow] | None = None,
    version: pb.FactoryVersion | None = None,
) -> Client:
    """A client whose meter gives these answers."""

    def efficiency(request: pb.QueryEfficiencyRequest) -> pb.QueryEfficiencyResponse:
        assert request.boundary in {BOARD, HOST}
        return boards if request.boundary == BOARD else hosts or pb.QueryEfficiencyResponse()

    def sold(request: Any, *, timeout: float) -> QueryRevenueResponse:  # noqa: ANN401
        assert request.by_pool
        assert timeout == PRICING_SECONDS_MAX
        return QueryRevenueResponse(rows=revenue or [])

    energy = SimpleNamespace(
        QueryEfficiency=efficiency, GetFactory=lambda _: pb.GetFactoryResponse(version=version)
    )
    fake = SimpleNamespace(energy=energy, billing=SimpleNamespace(QueryRevenue=sold))
    return cast("Client", fake)


def usd(pool: str, tier: str, amount: str, *, currency: str = "USD") -> RevenueRow:
    """What a tier of a pool came to."""
    return RevenueRow(pool=pool, tier=tier, amount=amount, currency=currency)


def everything(pool: str) -> bool:
    """Take each pool."""
    return bool(pool)


def test_measure__hosts_where_they_are_metered() -> None:
    """A pool's energy is that of its hosts, if these are metered, and never of both."""
    boards = pb.QueryEfficiencyResponse(
        rows=[row("a", "high", 10, 1_000), row("b", "high", 10, 2_000)],
        pools=[pool_energy("a", 1_000, idle=100), pool_energy("b", 2_000, gap=50)],
    )
    hosts = pb.QueryEfficiencyResponse(
        rows=[row("a", "high", 10, 1_500), row("b", "high", 10, 0)],
        pools=[pool_energy("a", 1_500, idle=300, no_tokens=200)],
    )
    found = measure(client_of(boards, hosts=hosts), HOUR, takes=everything)
    assert found.served["high"].energy_mj == 3_500
    assert found.served["high"].output_tokens == 20
    assert (found.attributed_mj, found.standing_mj, found.measured_mj) == (3_500, 500, 4_050)
    assert found.boundaries == {"board", "host"}
    assert found.load == Fraction(4_000, 3_500)


def test_measure__money_of_the_pools_that_are_taken() -> None:
    """Each pool's money counts once, of dollars; tokens of no pool are nobody's."""
    boards = pb.QueryEfficiencyResponse(
        rows=[row("", "high", 5, 0), row("a", "high", 10, 1), row("b", "high", 10, 1)],
        pools=[pool_energy("a", 1), pool_energy("b", 1)],
    )
    revenue = [
        usd("", "high", "100"),
        usd("a", "high", "0.25"),
        usd("b", "high", "0.5"),
        usd("b", "high", "9", currency="EUR"),
    ]
    client = client_of(boards, revenue=revenue)
    both = measure(client, HOUR, takes=everything)
    assert both.served["high"].usd == Fraction(3, 4)
    assert both.served["high"].sold_tokens == 20
    assert both.other_currencies == {"EUR"}
    one = measure(client, HOUR, takes="a".__eq__)
    assert one.served["high"].usd == Fraction(1, 4)
    assert one.other_currencies == frozenset()


def test_measure__without_energy_there_is_no_load() -> None:
    """What took nothing bears no part of idling."""
    found = measure(client_of(pb.QueryEfficiencyResponse()), HOUR, takes=everything)
    assert found == Measured()
    assert found.load is None


def test_add_up__spans_of_several_pools() -> None:
    """Sums are those of all parts; money that is known of one part is money."""
    parts = [
        Measured(
            served={"high": Served(output_tokens=1, energy_mj=2, usd=known, sold_tokens=3)},
            attributed_mj=4,
            standing_mj=5,
            measured_mj=6,
            boundaries=frozenset({"board"}),
        )
        for known in (None, Fraction(7))
    ]
    assert add_up(parts) == Measured(
        served={"high": Served(output_tokens=2, energy_mj=4, usd=Fraction(7), sold_tokens=6)},
        attributed_mj=8,
        standing_mj=10,
        measured_mj=12,
        boundaries=frozenset({"board"}),
    )


def oslo(*sites: str) -> pb.FactoryVersion:
    """A description of sites of a megawatt, the first of which has pool a."""
    return pb.FactoryVersion(
        sites=[pb.FactorySite(site=it, contracted_watts=1_000_000) for it in sites],
        pools=[pb.FactoryPool(pool="a", site=sites[0]), pb.FactoryPool(pool="b", site=sites[-1])],
    )


@pytest.mark.parametrize(
    ("site", "pue", "note"),
    [
        (
            pb.SiteEnergy(site="oslo", pue="1.1", basis=pb.PUE_BASIS_MEASURED),
            Fraction(11, 10),
            "PUE 1.1 is measured",
        ),
        (
            pb.SiteEnergy(site="oslo", pue="1.2", basis=pb.PUE_BASIS_CONFIGURED),
            Fraction(12, 10),
            "PUE 1.2 is configured",
        ),
        (
            pb.SiteEnergy(site="oslo"),
            None,
            "no PUE is known: the whole contract is taken for IT",
        ),
    ],
)
def test_site__says_where_its_pue_is_from(
    site: pb.SiteEnergy, pue: Fraction | None, note: str
) -> None:
    """A PUE comes with its basis, and one that nobody knows is not made up."""
    boards = pb.QueryEfficiencyResponse(
        rows=[row("a", "high", 3_600_000, 1_000_000), row("a", "free", 5, 0)],
        pools=[pool_energy("a", 1_000_000)],
        sites=[site],
    )
    found = measure_site(client_of(boards, version=oslo("oslo")), None, span=HOUR)
    assert found.terms.pue == pue
    assert found.notes[0] == note
    assert found.notes[-1] == "without energy, and so not in it: free"
    high = found.terms.tiers["high"]
    # 3.6 tokens a millijoule, so 3,600 a joule; 1,000 a second.
    assert high.tps_per_mw == 3_600 * 10**6
    assert high.actual_mw == Fraction(1_000, 3_600 * 10**6)
    assert high.price is None


def test_site__takes_its_own_pools_alone() -> None:
    """What the pools of another site took is not in it."""
    boards = pb.QueryEfficiencyResponse(
        rows=[row("a", "high", 10, 1), row("b", "free", 10, 1)],
        pools=[pool_energy("a", 1), pool_energy("b", 1)],
    )
    client = client_of(boards, version=oslo("oslo", "bergen"))
    assert set(measure_site(client, "oslo", span=HOUR).terms.tiers) == {"high"}
    assert set(measure_site(client, "bergen", span=HOUR).terms.tiers) == {"free"}
    with pytest.raises(CommandError, match="name one with --site: oslo, bergen"):
        measure_site(client, None, span=HOUR)
