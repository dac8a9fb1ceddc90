"""A version of a contract as JSON that is read in microseconds, where its file takes milliseconds.

It is made of the file once, when the version is set, with the accounts that it meant then. One of a
form that is not known here, or none, is no loss: the file is read instead.
"""

import json
from datetime import date
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final
from zoneinfo import ZoneInfo

from billing.charges import Charge
from billing.contracts import ClosingTerms, ContractVersion, Party, PriceBy
from billing.money import Currency
from billing.price_book import Override
from billing.tax import Tax
from meter.domain.boundary import Boundary
from meter.domain.tokens import Mode, TokenClass

# Moves when a reader of before would read it otherwise.
FORM: Final = 1


def compile_version(version: ContractVersion) -> str:
    """Return a version, as it was written in its file, as JSON."""
    closing = version.closing
    document = {
        "form": FORM,
        "contract": version.contract,
        "start_ms": version.start_ms,
        "end_ms": version.end_ms,
        "zone": version.zone.key,
        "currency": [version.currency.code, version.currency.exponent],
        "book": version.book,
        "price_by": version.price_by.value,
        "covers": version.covers,
        "seller": _from_party(version.seller),
        "buyer": _from_party(version.buyer),
        "series": version.series,
        "po": version.po,
        "terms_days": version.terms_days,
        "overrides": [_from_override(it) for it in version.overrides],
        "energy": None if version.energy is None else version.energy.value,
        "tax": _from_tax(version.tax),
        "charges": [_from_charge(it) for it in version.charges],
        "bank": version.bank,
        "by_account": version.by_account,
        "minimum": str(version.minimum),
        "zero_documents": version.zero_documents,
        "closing": [
            closing.collect_hours,
            closing.hold_first,
            None if closing.hold_jump is None else str(closing.hold_jump),
        ],
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def find_compiled(text: str | None) -> ContractVersion | None:
    """Return the version that a text says; None for one that is not known here."""
    found = None if text is None else json.loads(text)
    if found is None or found["form"] != FORM:
        return None
    hours, first, jump = found["closing"]
    return ContractVersion(
        contract=found["contract"],
        start_ms=found["start_ms"],
        end_ms=found["end_ms"],
        zone=ZoneInfo(found["zone"]),
        currency=_to_currency(*found["currency"]),
        book=found["book"],
        price_by=PriceBy(found["price_by"]),
        covers=tuple(found["covers"]),
        seller=_to_party(found["seller"]),
        buyer=_to_party(found["buyer"]),
        series=found["series"],
        po=found["po"],
        terms_days=found["terms_days"],
        overrides=tuple(map(_to_override, found["overrides"])),
        energy=None if found["energy"] is None else Boundary(found["energy"]),
        tax=_to_tax(found["tax"]),
        charges=tuple(map(_to_charge, found["charges"])),
        bank=tuple(found["bank"]),
        by_account=found["by_account"],
        minimum=_to_decimal(found["minimum"]),
        zero_documents=found["zero_documents"],
        closing=_to_closing(hours, first, jump),
    )


def _from_party(party: Party) -> list[Any]:
    return [party.party_id, party.name, party.address, party.tax_id]


def _to_party(found: list[Any]) -> Party:
    party_id, name, address, tax_id = found
    return Party(party_id=party_id, name=name, address=tuple(address), tax_id=tax_id)


def _from_tax(tax: Tax | None) -> list[str] | None:
    return None if tax is None else [tax.category, str(tax.rate), tax.note]


def _to_tax(found: list[str] | None) -> Tax | None:
    if found is None:
        return None
    category, rate, note = found
    return Tax(category=category, rate=Decimal(rate), note=note)


def _from_charge(charge: Charge) -> list[Any]:
    return [
        *(charge.charge_id, charge.text, str(charge.quantity), charge.unit),
        *(str(charge.unit_price), None if charge.on is None else charge.on.isoformat()),
        _from_tax(charge.tax),
    ]


def _to_charge(found: list[Any]) -> Charge:
    charge_id, text, quantity, unit, price, on, tax = found
    return Charge(
        charge_id=charge_id,
        text=text,
        quantity=Decimal(quantity),
        unit=unit,
        unit_price=Decimal(price),
        on=None if on is None else date.fromisoformat(on),
        tax=_to_tax(tax),
    )


def _from_override(override: Override) -> list[Any]:
    return [
        *(override.index, override.models, override.tiers),
        [int(it) for it in override.modes],
        [int(it) for it in override.classes],
        None if override.factor is None else str(override.factor),
        [[int(it), str(price)] for it, price in override.prices.items()],
        None if override.all is None else str(override.all),
    ]


def _to_override(found: list[Any]) -> Override:
    index, models, tiers, modes, classes, factor, prices, every = found
    return Override(
        index=index,
        models=tuple(models),
        tiers=tuple(tiers),
        modes=tuple(map(Mode, modes)),
        classes=tuple(map(TokenClass, classes)),
        factor=None if factor is None else Decimal(factor),
        prices={TokenClass(it): Decimal(price) for it, price in prices},
        all=None if every is None else Decimal(every),
    )


# Most contracts have the same of these, and each is a value that never changes.
@lru_cache(maxsize=256)
def _to_currency(code: str, exponent: int) -> Currency:
    return Currency(code, exponent)


@lru_cache(maxsize=256)
def _to_decimal(text: str) -> Decimal:
    return Decimal(text)


@lru_cache(maxsize=256)
def _to_closing(hours: int, first: bool, jump: str | None) -> ClosingTerms:  # noqa: FBT001
    return ClosingTerms(
        collect_hours=hours,
        hold_first=first,
        hold_jump=None if jump is None else Decimal(jump),
    )
