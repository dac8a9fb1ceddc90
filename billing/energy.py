"""What an invoice says of energy: information beside the lines, which nothing is paid for. Pure."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Protocol

from meter.consumption import EnergyFact, SitePue
from meter.domain.boundary import Boundary
from meter.domain.units import divide_half_up


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteEnergy:
    """Energy (mJ) of a site's pools, and how much more the site took for it: its PUE ≥ 1.

    The PUE is measured by the site's meter, or configured.
    """

    site: str
    pools_mj: int
    pue: Decimal
    is_measured: bool

    @property
    def facility_mj(self) -> int:
        """The pools' energy times the PUE, in whole mJ, halves up."""
        exact = Fraction(self.pue) * self.pools_mj
        return divide_half_up(exact.numerator, exact.denominator)


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceEnergy:
    """Energy that was attributed to the tokens of an invoice, as far as it is known.

    `pools_mj` is that of boards or hosts; of it, no counter measured `estimated_mj`. It is that of
    `known_output_tokens` out of `output_tokens`. `sites` are there for a facility alone.
    `factory_versions` are those of the factory's description by which it was shared out.
    """

    boundary: Boundary
    pools_mj: int
    estimated_mj: int
    output_tokens: int
    known_output_tokens: int
    sites: tuple[SiteEnergy, ...]
    factory_versions: tuple[int, ...]

    @property
    def energy_mj(self) -> int:
        """The energy (mJ) within the boundary."""
        if self.boundary is Boundary.FACILITY:
            return sum(it.facility_mj for it in self.sites)
        return self.pools_mj


class Consumed(Protocol):
    """Reads the energy that a period's tokens took."""

    def facts(self, boundary: Boundary) -> Iterator[EnergyFact]:
        """Yield what is billed of boards or hosts."""
        ...

    def pues(self) -> Mapping[str, SitePue]:
        """Return the PUE by pool, of the sites whose PUE is known."""
        ...


@dataclass(slots=True)
class _Sums:
    """What is added up of one pool."""

    energy_mj: int = 0
    estimated_mj: int = 0
    output_tokens: int = 0
    versions: set[int] = field(default_factory=set)

    def add(self, fact: EnergyFact) -> None:
        self.energy_mj += fact.energy_mj
        self.estimated_mj += fact.estimated_mj
        self.output_tokens += fact.output_tokens
        self.versions.add(fact.factory_version)


def find_energy(
    consumed: Consumed, *, boundary: Boundary, output_tokens: int
) -> InvoiceEnergy | None:
    """Return what tokens took, `output_tokens` of them generated; None where nothing is known.

    A facility's is that of its pools' hosts, or in intervals without these of the boards, times
    the PUE; pools whose PUE is not known are left out.
    """
    sums = _sum_up(consumed, boundary=boundary)
    sites: tuple[SiteEnergy, ...] = ()
    if boundary is Boundary.FACILITY:
        pues = consumed.pues()
        sums = {pool: each for pool, each in sums.items() if pool in pues}
        sites = tuple(_by_site(sums, pues))
    pools_mj = sum(each.energy_mj for each in sums.values())
    if pools_mj <= 0:
        return None
    known = sum(each.output_tokens for each in sums.values())
    return InvoiceEnergy(
        boundary=boundary,
        pools_mj=pools_mj,
        estimated_mj=sum(each.estimated_mj for each in sums.values()),
        output_tokens=output_tokens,
        # What was counted behind the cut has energy already, and is not on the invoice.
        known_output_tokens=min(known, output_tokens),
        sites=sites,
        factory_versions=tuple(sorted(set().union(*(it.versions for it in sums.values())))),
    )


def _sum_up(consumed: Consumed, *, boundary: Boundary) -> dict[str, _Sums]:
    """Return the sums by pool; of two boundaries that hold each other only one is taken."""
    sums: dict[str, _Sums] = defaultdict(_Sums)
    if boundary is not Boundary.FACILITY:
        for fact in consumed.facts(boundary):
            sums[fact.pool].add(fact)
        return sums
    with_hosts: set[tuple[str, int]] = set()
    for fact in consumed.facts(Boundary.HOST):
        with_hosts.add((fact.pool, fact.interval_start_ms))
        sums[fact.pool].add(fact)
    for fact in consumed.facts(Boundary.BOARD):
        if (fact.pool, fact.interval_start_ms) not in with_hosts:
            sums[fact.pool].add(fact)
    return sums


def _by_site(sums: Mapping[str, _Sums], pues: Mapping[str, SitePue]) -> Iterator[SiteEnergy]:
    by_site: dict[str, int] = defaultdict(int)
    for pool, each in sums.items():
        by_site[pues[pool].site] += each.energy_mj
    known = {it.site: it for it in pues.values()}
    for site, pools_mj in sorted(by_site.items()):
        pue = known[site]
        yield SiteEnergy(site=site, pools_mj=pools_mj, pue=pue.pue, is_measured=pue.is_measured)
