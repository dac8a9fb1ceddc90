"""The version of a contract that a document was made by, as JSON: parties, prices, taxes, charges.

What the version has none of is left out, as in all documents before there was any of it.
"""

from datetime import date
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from billing.charges import Charge
from billing.contracts import CLOSING_DEFAULT, ClosingTerms, ContractVersion, Party, PriceBy
from billing.documents.format import read_time, write_time
from billing.documents.lines_json import read_class, read_tax, tax_to_json
from billing.money import ZERO, Currency, write
from billing.price_book import MODE_NAMES, Override, class_name
from meter.domain.boundary import Boundary
from meter.domain.tokens import Mode

_MODES: Final[dict[str, Mode]] = {name: mode for mode, name in MODE_NAMES.items()}


def contract_to_json(version: ContractVersion) -> dict[str, Any]:
    """Return the version with all its terms, but for what stands in the document itself."""
    return {
        "id": version.contract,
        "start_time": write_time(version.start_ms),
        "end_time": None if version.end_ms is None else write_time(version.end_ms),
        "book": version.book,
        "price_by": version.price_by.value,
        "covers": version.covers,
        "series": version.series,
        "po": version.po,
        "terms_days": version.terms_days,
        "overrides": [_override_to_json(it) for it in version.overrides],
        **_optional(version),
    }


def read_contract(found: dict[str, Any]) -> ContractVersion:
    """Return the version of a whole document."""
    contract = found["contract"]
    end_time = contract["end_time"]
    return ContractVersion(
        contract=contract["id"],
        start_ms=read_time(contract["start_time"]),
        end_ms=None if end_time is None else read_time(end_time),
        zone=ZoneInfo(found["period"]["zone"]),
        currency=Currency(code=found["currency"], exponent=found["exponent"]),
        book=contract["book"],
        price_by=PriceBy(contract["price_by"]),
        covers=tuple(contract["covers"]),
        seller=_read_party(found["seller"]),
        buyer=_read_party(found["buyer"]),
        series=contract["series"],
        po=contract["po"],
        terms_days=contract["terms_days"],
        overrides=tuple(map(_read_override, contract["overrides"])),
        energy=Boundary(contract["energy"]) if "energy" in contract else None,
        tax=read_tax(contract.get("tax")),
        charges=tuple(map(_read_charge, contract.get("charges", ()))),
        bank=tuple(contract.get("bank", ())),
        by_account=contract.get("by_account", False),
        minimum=Decimal(contract.get("minimum", 0)),
        zero_documents=contract.get("zero_documents", False),
        closing=_read_closing(contract["closing"]) if "closing" in contract else CLOSING_DEFAULT,
    )


def party_to_json(party: Party) -> dict[str, Any]:
    """Return a seller or buyer."""
    return {
        "id": party.party_id,
        "name": party.name,
        "address": party.address,
        "tax_id": party.tax_id,
    }


def _optional(version: ContractVersion) -> dict[str, Any]:
    """Return what not every contract has, as far as this one does."""
    found: dict[str, Any] = {}
    if version.energy is not None:
        found["energy"] = version.energy.value
    if version.tax is not None:
        found["tax"] = tax_to_json(version.tax)
    if version.charges:
        found["charges"] = [_charge_to_json(it) for it in version.charges]
    if version.bank:
        found["bank"] = version.bank
    if version.by_account:
        found["by_account"] = True
    if version.minimum != ZERO:
        found["minimum"] = write(version.minimum)
    if version.zero_documents:
        found["zero_documents"] = True
    if version.closing != CLOSING_DEFAULT:
        found["closing"] = _closing_to_json(version.closing)
    return found


def _read_party(found: dict[str, Any]) -> Party:
    return Party(
        party_id=found["id"],
        name=found["name"],
        address=tuple(found["address"]),
        tax_id=found["tax_id"],
    )


def _override_to_json(override: Override) -> dict[str, Any]:
    return {
        "index": override.index,
        "models": override.models,
        "tiers": override.tiers,
        "modes": [MODE_NAMES[it] for it in override.modes],
        "classes": [class_name(it) for it in override.classes],
        "factor": None if override.factor is None else write(override.factor),
        "prices": {class_name(it): write(price) for it, price in override.prices.items()},
        "all": None if override.all is None else write(override.all),
    }


def _read_override(found: dict[str, Any]) -> Override:
    return Override(
        index=found["index"],
        models=tuple(found["models"]),
        tiers=tuple(found["tiers"]),
        modes=tuple(_MODES[it] for it in found["modes"]),
        classes=tuple(map(read_class, found["classes"])),
        factor=None if found["factor"] is None else Decimal(found["factor"]),
        prices={read_class(it): Decimal(price) for it, price in found["prices"].items()},
        all=None if found["all"] is None else Decimal(found["all"]),
    )


def _charge_to_json(charge: Charge) -> dict[str, Any]:
    return {
        "id": charge.charge_id,
        "text": charge.text,
        "quantity": write(charge.quantity),
        "unit": charge.unit,
        "unit_price": write(charge.unit_price),
        "on": None if charge.on is None else charge.on.isoformat(),
        "tax": tax_to_json(charge.tax),
    }


def _read_charge(found: dict[str, Any]) -> Charge:
    return Charge(
        charge_id=found["id"],
        text=found["text"],
        quantity=Decimal(found["quantity"]),
        unit=found["unit"],
        unit_price=Decimal(found["unit_price"]),
        on=None if found["on"] is None else date.fromisoformat(found["on"]),
        tax=read_tax(found["tax"]),
    )


def _closing_to_json(closing: ClosingTerms) -> dict[str, Any]:
    return {
        "collect_hours": closing.collect_hours,
        "hold_first": closing.hold_first,
        "hold_jump": None if closing.hold_jump is None else write(closing.hold_jump),
    }


def _read_closing(found: dict[str, Any]) -> ClosingTerms:
    jump = found["hold_jump"]
    return ClosingTerms(
        collect_hours=found["collect_hours"],
        hold_first=found["hold_first"],
        hold_jump=None if jump is None else Decimal(jump),
    )
