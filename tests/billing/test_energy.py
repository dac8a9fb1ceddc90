"""Energy on an invoice: of one boundary, of known tokens, and absent where nothing is known."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.energy import InvoiceEnergy, SiteEnergy, find_energy
from meter.consumption import EnergyFact, SitePue
from meter.domain.boundary import Boundary

BOARD, HOST, FACILITY = Boundary.BOARD, Boundary.HOST, Boundary.FACILITY
INTERVAL_MS: Final = 900_000
OSLO: Final = SitePue(site="oslo", pue=Decimal("1.2"), is_measured=False)
BERGEN: Final = SitePue(site="bergen", pue=Decimal("1.0833"), is_measured=True)


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the energy of a period."""

    known: Sequence[EnergyFact]
    of_sites: Mapping[str, SitePue] = field(default_factory=dict)

    def facts(self, boundary: Boundary) -> Iterator[EnergyFact]:
        """Yield the facts of a boundary."""
        assert boundary is not FACILITY
        return (it for it in self.known if it.boundary is boundary)

    def pues(self) -> Mapping[str, SitePue]:
        """Return the PUE by pool."""
        return self.of_sites


def fact(
    energy_mj: int,
    *,
    boundary: Boundary = BOARD,
    pool: str = "h100",
    interval: int = 0,
    estimated_mj: int = 0,
    output_tokens: int = 10,
    version: int = 1,
) -> EnergyFact:
    """Return energy of acme's tokens."""
    return EnergyFact(
        account_id="acme",
        interval_start_ms=interval * INTERVAL_MS,
        pool=pool,
        boundary=boundary,
        factory_version=version,
        energy_mj=energy_mj,
        estimated_mj=estimated_mj,
        output_tokens=output_tokens,
    )


def find(
    *facts: EnergyFact,
    boundary: Boundary = BOARD,
    pues: Mapping[str, SitePue] | None = None,
    output_tokens: int = 100,
) -> InvoiceEnergy | None:
    """Return what an invoice with a hundred output tokens tells."""
    known = Known(facts, pues or {})
    return find_energy(known, boundary=boundary, output_tokens=output_tokens)


def get(
    *facts: EnergyFact, boundary: Boundary = BOARD, pues: Mapping[str, SitePue] | None = None
) -> InvoiceEnergy:
    """Return what an invoice tells, which is something."""
    found = find(*facts, boundary=boundary, pues=pues)
    assert found is not None
    return found


def test_find_energy__of_boards() -> None:
    """Boards add up over pools and time, with what was estimated, covered, and by which weights."""
    assert get(
        fact(1_000, estimated_mj=10),
        fact(200, pool="h200", version=0),
        fact(30, interval=1, output_tokens=7, version=2),
        fact(50_000, boundary=HOST),
    ) == InvoiceEnergy(
        boundary=BOARD,
        pools_mj=1_230,
        estimated_mj=10,
        output_tokens=100,
        known_output_tokens=27,
        sites=(),
        factory_versions=(0, 1, 2),
    )


@pytest.mark.parametrize("boundary", [BOARD, HOST, FACILITY])
def test_find_energy__nothing_known(boundary: Boundary) -> None:
    """Without any energy there is no block: unknown is not zero."""
    assert find(boundary=boundary, pues={"h100": OSLO}) is None


def test_find_energy__of_another_boundary() -> None:
    """Boards are not taken for hosts, and no PUE makes a facility of nothing."""
    assert find(fact(1_000), boundary=HOST) is None
    assert find(fact(1_000), boundary=FACILITY) is None


def test_find_energy__facility_takes_hosts_before_boards() -> None:
    """A host holds its boards: in an interval with hosts the boards are not added to them."""
    found = get(
        fact(1_000),
        fact(1_500, boundary=HOST),
        fact(400, interval=1),
        fact(90, pool="h200"),
        boundary=FACILITY,
        pues={"h100": OSLO, "h200": OSLO},
    )
    assert (found.pools_mj, found.known_output_tokens) == (1_990, 30)
    assert found.energy_mj == 2_388
    (site,) = found.sites
    assert site == SiteEnergy(site="oslo", pools_mj=1_990, pue=Decimal("1.2"), is_measured=False)


def test_find_energy__facility_leaves_out_unknown_sites() -> None:
    """What stands on a site without a known PUE is not known, and its tokens are not covered."""
    found = get(
        fact(1_000),
        fact(77, pool="homeless"),
        fact(2_000, pool="h200", version=3),
        boundary=FACILITY,
        pues={"h100": OSLO, "h200": BERGEN},
    )
    assert [(it.site, it.facility_mj, it.is_measured) for it in found.sites] == [
        ("bergen", 2_167, True),
        ("oslo", 1_200, False),
    ]
    assert (found.energy_mj, found.known_output_tokens, found.factory_versions) == (
        3_367,
        20,
        (1, 3),
    )


def test_find_energy__late_tokens_are_not_covered() -> None:
    """Tokens that were counted behind the cut have energy, and make no share above the whole."""
    found = find(fact(1_000, output_tokens=120), output_tokens=100)
    assert found is not None
    assert found.known_output_tokens == found.output_tokens == 100


_FACTS = st.builds(
    fact,
    st.integers(1, 10**12),
    boundary=st.sampled_from([BOARD, HOST]),
    pool=st.sampled_from(["h100", "h200", "tpu"]),
    interval=st.integers(0, 2),
    output_tokens=st.integers(0, 5),
)


@settings(max_examples=1_000)
@given(st.lists(_FACTS, max_size=10), st.decimals(1, 3, places=4))
def test_find_energy__never_adds_two_boundaries(facts: list[EnergyFact], pue: Decimal) -> None:
    """A facility is its PUE times one boundary of each pool and interval, to half a mJ a site."""
    pues = {"h100": OSLO, "h200": SitePue(site="bergen", pue=pue, is_measured=True)}
    expected: dict[str, Fraction] = {}
    for each in facts:
        has_host = any(
            it.boundary is HOST
            and (it.pool, it.interval_start_ms) == (each.pool, each.interval_start_ms)
            for it in facts
        )
        if each.pool in pues and each.boundary is (HOST if has_host else BOARD):
            site = pues[each.pool].site
            part = each.energy_mj * Fraction(pues[each.pool].pue)
            expected[site] = expected.get(site, Fraction()) + part
    found = find(*facts, boundary=FACILITY, pues=pues)
    sites = () if found is None else found.sites
    assert [it.site for it in sites] == sorted(expected)
    for told in sites:
        assert abs(told.facility_mj - expected[told.site]) <= Fraction(1, 2)
