"""How much more a site takes than its machines: measured where its meter reads, else described."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, localcontext
from typing import Final

from meter.consumption import SitePue
from meter.energy.factory import Factory, Site

_PUE_STEP: Final = Decimal("0.0001")
_DIGITS: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class MeteredEnergy:
    """What a site's meter measured (mJ), and what of it while its pools did, with theirs."""

    facility_mj: int
    common_facility_mj: int
    common_pools_mj: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteEnergy:
    """A site's energy (mJ) beside that of its pools while its meter read.

    `facility_mj` is None where no meter of the site reads, `pue` where it is not known.
    """

    site: str
    facility_mj: int | None
    pools_mj: int
    pue: SitePue | None


def settle_sites(factory: Factory, metered: Mapping[str, MeteredEnergy]) -> list[SiteEnergy]:
    """Return the sites of a description with what was measured of them, by name."""
    return [
        SiteEnergy(
            site=name,
            facility_mj=None if it is None else it.facility_mj,
            pools_mj=0 if it is None else it.common_pools_mj,
            pue=_pue_of(site, it),
        )
        for name, site, it in (
            (name, site, metered.get(name)) for name, site in sorted(factory.sites.items())
        )
    ]


def _pue_of(site: Site, metered: MeteredEnergy | None) -> SitePue | None:
    # A site takes no less than its machines: where it seems to, its meter does not see them all.
    if metered is not None and 0 < metered.common_pools_mj <= metered.common_facility_mj:
        with localcontext(prec=_DIGITS):
            exact = Decimal(metered.common_facility_mj) / metered.common_pools_mj
            pue = exact.quantize(_PUE_STEP, ROUND_HALF_UP).normalize()
        return SitePue(site=site.site, pue=pue, is_measured=True)
    if site.pue is not None:
        return SitePue(site=site.site, pue=site.pue, is_measured=False)
    return None
