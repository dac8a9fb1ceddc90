"""An invoice as canonical JSON, and back: equal invoices are the same bytes.

Keys are sorted, nothing stands between them, decimals are strings without a digit too many, and a
newline ends it. `billing/schemas/invoice.schema.json` says what may stand where,
`docs/reference/invoice.md` what it means.
"""

import json
from datetime import date
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from billing.contracts import ContractVersion, Party, PriceBy
from billing.documents.energy import energy_to_json, read_energy
from billing.documents.format import (
    date_of,
    period_dates,
    read_time,
    write_time,
)
from billing.invoicing import Invoice, InvoiceLine, Issue
from billing.money import Currency, write, write_money
from billing.periods import Span
from billing.price_book import MODE_NAMES, Factor, Override, Price, class_name
from billing.rating import Unpriced
from meter.domain.boundary import Boundary
from meter.domain.tokens import BAND_NAMES, TokenClass

FORMAT: Final = 1
_MODES: Final = {name: mode for mode, name in MODE_NAMES.items()}


class UnknownFormat(ValueError):
    """A document that another version of Tokenworks wrote, or that is no invoice."""


def to_json(invoice: Invoice) -> bytes:
    """Return the invoice with every fact of it, in UTF-8."""
    document = {
        "format": FORMAT,
        "kind": "preview" if invoice.issue is None else "invoice",
        "sandbox": invoice.is_sandbox,
        "engine": invoice.engine,
        "account": invoice.account_id,
        "contract": _contract_to_json(invoice.version),
        "seller": _party_to_json(invoice.version.seller),
        "buyer": _party_to_json(invoice.version.buyer),
        "currency": invoice.currency.code,
        "exponent": invoice.currency.exponent,
        "period": _period_to_json(invoice),
        "issue": None if invoice.issue is None else _issue_to_json(invoice.issue, invoice.version),
        "cut_id": invoice.cut_id,
        "counted_until": write_time(invoice.counted_until_ms),
        "lines": [_line_to_json(it, invoice.currency) for it in invoice.lines],
        "unpriced": [_unpriced_to_json(it) for it in invoice.unpriced],
        "total": write_money(invoice.total, invoice.currency),
        "residue": write(invoice.residue),
        **({} if invoice.energy is None else {"energy": energy_to_json(invoice.energy)}),
    }
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return f"{text}\n".encode()


def from_json(document: bytes) -> Invoice:
    """Return the invoice that `to_json` wrote; raises UnknownFormat."""
    found = json.loads(document)
    written = found.get("format") if isinstance(found, dict) else None
    if written != FORMAT:
        raise UnknownFormat(f"format {written!r} of an invoice is unknown; this reads {FORMAT}")
    return Invoice(
        version=_read_contract(found),
        span=Span(
            start_ms=read_time(found["period"]["start_time"]),
            end_ms=read_time(found["period"]["end_time"]),
        ),
        issue=None if found["issue"] is None else _read_issue(found["issue"]),
        cut_id=found["cut_id"],
        counted_until_ms=read_time(found["counted_until"]),
        engine=found["engine"],
        is_sandbox=found["sandbox"],
        lines=tuple(map(_read_line, found["lines"])),
        unpriced=tuple(map(_read_unpriced, found["unpriced"])),
        total=Decimal(found["total"]),
        residue=Decimal(found["residue"]),
        energy=read_energy(found["energy"]) if "energy" in found else None,
    )


def _contract_to_json(version: ContractVersion) -> dict[str, Any]:
    # Left out where the contract has none, as in all documents before there was any.
    energy = {} if version.energy is None else {"energy": version.energy.value}
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
        **energy,
    }


def _read_contract(found: dict[str, Any]) -> ContractVersion:
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
    )


def _party_to_json(party: Party) -> dict[str, Any]:
    return {
        "id": party.party_id,
        "name": party.name,
        "address": party.address,
        "tax_id": party.tax_id,
    }


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
        classes=tuple(map(_read_class, found["classes"])),
        factor=None if found["factor"] is None else Decimal(found["factor"]),
        prices={_read_class(it): Decimal(price) for it, price in found["prices"].items()},
        all=None if found["all"] is None else Decimal(found["all"]),
    )


def _period_to_json(invoice: Invoice) -> dict[str, Any]:
    first, last = period_dates(invoice)
    return {
        "month": str(invoice.month),
        "zone": invoice.version.zone.key,
        "start_time": write_time(invoice.span.start_ms),
        "end_time": write_time(invoice.span.end_ms),
        "first_date": first.isoformat(),
        "last_date": last.isoformat(),
    }


def _issue_to_json(issue: Issue, version: ContractVersion) -> dict[str, Any]:
    return {
        "number": issue.number,
        "series": issue.series,
        "year": issue.year,
        "time": write_time(issue.issue_ms),
        "date": date_of(issue.issue_ms, version.zone).isoformat(),
        "due_date": issue.due.isoformat(),
    }


def _read_issue(found: dict[str, Any]) -> Issue:
    return Issue(
        number=found["number"],
        series=found["series"],
        year=found["year"],
        issue_ms=read_time(found["time"]),
        due=date.fromisoformat(found["due_date"]),
    )


def _line_to_json(line: InvoiceLine, currency: Currency) -> dict[str, Any]:
    return {
        "line": line.line,
        "model": line.model,
        "tier": line.tier,
        "mode": MODE_NAMES[line.mode],
        "token_class": class_name(line.token_class),
        "price": _price_to_json(line.price),
        "quantity": line.token_count,
        "exact": write(line.exact),
        "billed": write_money(line.billed, currency),
        "residue": write(line.residue),
    }


def _read_line(found: dict[str, Any]) -> InvoiceLine:
    return InvoiceLine(
        line=found["line"],
        **_read_key(found),
        price=_read_price(found["price"]),
        token_count=found["quantity"],
        exact=Decimal(found["exact"]),
        billed=Decimal(found["billed"]),
        residue=Decimal(found["residue"]),
    )


def _price_to_json(price: Price) -> dict[str, Any]:
    return {
        "base": write(price.base),
        "source": price.source,
        "factors": [{"source": it.source, "value": write(it.value)} for it in price.factors],
        "unit_price": write(price.unit_price),
        "above": price.above,
        "window_name": price.window,
        "book": price.book,
        "price_from": write_time(price.version_start_ms),
    }


def _read_price(found: dict[str, Any]) -> Price:
    return Price(
        base=Decimal(found["base"]),
        source=found["source"],
        factors=tuple(
            Factor(source=it["source"], value=Decimal(it["value"])) for it in found["factors"]
        ),
        unit_price=Decimal(found["unit_price"]),
        above=found["above"],
        window=found["window_name"],
        book=found["book"],
        version_start_ms=read_time(found["price_from"]),
    )


def _unpriced_to_json(key: Unpriced) -> dict[str, Any]:
    return {
        "model": key.model,
        "tier": key.tier,
        "mode": MODE_NAMES[key.mode],
        "token_class": class_name(key.token_class),
        "band": BAND_NAMES[key.band],
        "quantity": key.token_count,
        "first_time": write_time(key.first_ms),
    }


def _read_unpriced(found: dict[str, Any]) -> Unpriced:
    return Unpriced(
        **_read_key(found),
        band=BAND_NAMES.index(found["band"]),
        token_count=found["quantity"],
        first_ms=read_time(found["first_time"]),
    )


def _read_key(found: dict[str, Any]) -> dict[str, Any]:
    """Return what a line and a key without price have in common, by the fields' names."""
    return {
        "model": found["model"],
        "tier": found["tier"],
        "mode": _MODES[found["mode"]],
        "token_class": _read_class(found["token_class"]),
    }


def _read_class(name: str) -> TokenClass:
    return TokenClass[name.upper()]
