"""Energy on an invoice: as JSON, and in the words that text and HTML share."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final

from billing.documents.format import printable
from billing.energy import InvoiceEnergy, SiteEnergy
from billing.money import write
from meter.domain.boundary import Boundary
from meter.domain.units import MJ_PER_KILOWATT_HOUR, EnergyUnit, rounded

ENERGY_TITLE: Final = "Energy of these tokens – for information, not billed"
# Ten decimals of a kilowatt-hour tell each millijoule from the next.
_KWH_DECIMALS: Final = 10
_KWH_DECIMALS_SHOWN: Final = 3
_WHOSE: Final = {
    Boundary.BOARD: "of the accelerators’ boards",
    Boundary.HOST: "of the hosts, with their accelerators",
    Boundary.FACILITY: "of the site, with cooling and losses",
}
_MEASURED, _CONFIGURED = "measured", "configured"


def energy_to_json(energy: InvoiceEnergy) -> dict[str, Any]:
    """Return all that is known of it; `kwh` is what `energy_mj` comes to."""
    return {
        "boundary": energy.boundary.value,
        "energy_mj": energy.energy_mj,
        "kwh": write(_kilowatt_hours(energy.energy_mj, decimal_count=_KWH_DECIMALS)),
        "pools_mj": energy.pools_mj,
        "estimated_mj": energy.estimated_mj,
        "output_tokens": energy.output_tokens,
        "known_output_tokens": energy.known_output_tokens,
        "sites": [
            {
                "site": it.site,
                "pools_mj": it.pools_mj,
                "facility_mj": it.facility_mj,
                "pue": write(it.pue),
                "basis": _basis(it),
            }
            for it in energy.sites
        ],
        "factory_versions": energy.factory_versions,
    }


def read_energy(found: dict[str, Any]) -> InvoiceEnergy:
    """Return what `energy_to_json` wrote."""
    return InvoiceEnergy(
        boundary=Boundary(found["boundary"]),
        pools_mj=found["pools_mj"],
        estimated_mj=found["estimated_mj"],
        output_tokens=found["output_tokens"],
        known_output_tokens=found["known_output_tokens"],
        sites=tuple(
            SiteEnergy(
                site=it["site"],
                pools_mj=it["pools_mj"],
                pue=Decimal(it["pue"]),
                is_measured=it["basis"] == _MEASURED,
            )
            for it in found["sites"]
        ),
        factory_versions=tuple(found["factory_versions"]),
    )


def energy_facts(energy: InvoiceEnergy) -> Iterator[tuple[str, str]]:
    """Yield labels, and what is said under each."""
    yield "Energy", f"{_word_kilowatt_hours(energy.energy_mj)} {_WHOSE[energy.boundary]}"
    for site in energy.sites:
        yield "PUE", f"{write(site.pue)} at {printable(site.site)}, {_basis(site)}"
    measured = _percent(energy.pools_mj - energy.estimated_mj, energy.pools_mj)
    rest = "" if energy.estimated_mj == 0 else "; the rest is estimated"
    whose = " of the pools’ energy" if energy.sites else ""
    yield "Measured", f"{measured}{whose} by counters{rest}"
    if energy.output_tokens > 0:
        known = _percent(energy.known_output_tokens, energy.output_tokens)
        yield "Covers", f"{known} of the output tokens{_word_unknown(energy)}"
    yield "Shared by", _word_versions(energy.factory_versions)


def _kilowatt_hours(energy_mj: int, *, decimal_count: int) -> Decimal:
    return rounded(
        energy_mj,
        EnergyUnit.MILLIJOULE,
        to=EnergyUnit.KILOWATT_HOUR,
        decimal_count=decimal_count,
    )


def _word_kilowatt_hours(energy_mj: int) -> str:
    """Return kilowatt-hours with three decimals; less than one with all that they have."""
    if abs(energy_mj) < MJ_PER_KILOWATT_HOUR:
        return f"{write(_kilowatt_hours(energy_mj, decimal_count=_KWH_DECIMALS))} kWh"
    return f"{_kilowatt_hours(energy_mj, decimal_count=_KWH_DECIMALS_SHOWN):,} kWh"


def _percent(part: int, whole: int) -> str:
    """Return a share with one decimal, rounded down: what is not whole is not called so."""
    tenths = 1_000 * part // whole
    return "100 %" if tenths == 1_000 else f"{tenths // 10}.{tenths % 10} %"  # noqa: PLR2004


def _word_unknown(energy: InvoiceEnergy) -> str:
    is_whole = energy.known_output_tokens >= energy.output_tokens
    return "" if is_whole else "; of the others no energy is known"


def _word_versions(versions: tuple[int, ...]) -> str:
    numbers = [str(it) for it in versions if it]
    words = []
    if numbers:
        noun = "version" if len(numbers) == 1 else "versions"
        words.append(f"weights of the factory’s description, {noun} {', '.join(numbers)}")
    if 0 in versions:
        words.append("output tokens alone")
    return "; ".join(words)


def _basis(site: SiteEnergy) -> str:
    return _MEASURED if site.is_measured else _CONFIGURED
