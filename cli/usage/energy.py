"""Energy as tables show it: in the largest unit that it fills; nothing where none is known."""

from typing import Final

from meter.domain.units import EnergyUnit, rounded

NOT_KNOWN: Final = "-"
_SIGNS: Final = {
    EnergyUnit.MEGAWATT_HOUR: "MWh",
    EnergyUnit.KILOWATT_HOUR: "kWh",
    EnergyUnit.KILOJOULE: "kJ",
    EnergyUnit.JOULE: "J",
}
_DECIMALS: Final = 3


def find_unit(energy_mj: int) -> EnergyUnit:
    """Return the largest unit of which there is one; joules for less."""
    for unit in _SIGNS:
        if abs(energy_mj) * EnergyUnit.MILLIJOULE.value >= unit.value:
            return unit
    return EnergyUnit.JOULE


def sign_of(unit: EnergyUnit) -> str:
    """Return the sign of a unit that `find_unit` returns."""
    return _SIGNS[unit]


def write_energy(energy_mj: int | None, *, unit: EnergyUnit) -> str:
    """Return energy in a unit with three decimals."""
    if energy_mj is None:
        return NOT_KNOWN
    amount = rounded(energy_mj, EnergyUnit.MILLIJOULE, to=unit, decimal_count=_DECIMALS)
    return f"{amount:,}"
