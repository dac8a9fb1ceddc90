"""The lines of a document as JSON, and back: usage and adjustments, charges, credits, taxes."""

import json
from decimal import Decimal
from json.encoder import encode_basestring as _quoted
from typing import Any, Final, overload

from billing.documents.format import read_time, write_time
from billing.invoicing import ChargeLine, CreditLine, InvoiceLine, Origin
from billing.money import Currency, write, write_money
from billing.periods import Month
from billing.price_book import MODE_NAMES, Factor, Price, class_name
from billing.rating import Unpriced
from billing.tax import Tax, TaxTotal
from meter.domain.tokens import BAND_NAMES, Mode, TokenClass

# Canonical JSON.
dumps: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode
_MODES: Final[dict[str, Mode]] = {name: mode for mode, name in MODE_NAMES.items()}


def write_line(line: InvoiceLine, currency: Currency, *, price: str) -> str:
    """Return a line of usage or an adjustment, with its price as it is written.

    Group and origin are left out where none are. Keys are in order: it is part of canonical JSON.
    """
    group = f'"group":{_quoted(line.group)},' if line.group else ""
    origin = "" if line.origin is None else f'"origin":{dumps(_origin_to_json(line.origin))},'
    return (
        f'{{"billed":"{write_money(line.billed, currency)}","exact":"{write(line.exact)}",{group}'
        f'"line":{line.line},"mode":"{MODE_NAMES[line.mode]}","model":{_quoted(line.model)},'
        f'{origin}"price":{price},"quantity":{line.token_count},'
        f'"residue":"{write(line.residue)}","tier":{_quoted(line.tier)},'
        f'"token_class":"{class_name(line.token_class)}"}}'
    )


def read_line(found: dict[str, Any]) -> InvoiceLine:
    """Return what `write_line` wrote."""
    return InvoiceLine(
        line=found["line"],
        **_read_key(found),
        price=_read_price(found["price"]),
        token_count=found["quantity"],
        exact=Decimal(found["exact"]),
        billed=Decimal(found["billed"]),
        residue=Decimal(found["residue"]),
        group=found.get("group", ""),
        origin=_read_origin(found["origin"]) if "origin" in found else None,
    )


def charge_line_to_json(line: ChargeLine, currency: Currency) -> dict[str, Any]:
    """Return a line of a charge; the origin is left out where it is the period's own."""
    origin = {} if line.origin is None else {"origin": _origin_to_json(line.origin)}
    return {
        "line": line.line,
        "charge": line.charge_id,
        "text": line.text,
        "quantity": write(line.quantity),
        "unit": line.unit,
        "unit_price": write(line.unit_price),
        "exact": write(line.exact),
        "billed": write_money(line.billed, currency),
        "residue": write(line.residue),
        "tax": tax_to_json(line.tax),
        **origin,
    }


def read_charge_line(found: dict[str, Any]) -> ChargeLine:
    """Return what `charge_line_to_json` wrote."""
    return ChargeLine(
        line=found["line"],
        charge_id=found["charge"],
        text=found["text"],
        quantity=Decimal(found["quantity"]),
        unit=found["unit"],
        unit_price=Decimal(found["unit_price"]),
        exact=Decimal(found["exact"]),
        billed=Decimal(found["billed"]),
        residue=Decimal(found["residue"]),
        tax=read_tax(found["tax"]),
        origin=_read_origin(found["origin"]) if "origin" in found else None,
    )


def credit_line_to_json(line: CreditLine, currency: Currency) -> dict[str, Any]:
    """Return money off a line of another document."""
    return {
        "line": line.line,
        "number": line.number,
        "number_line": line.number_line,
        "text": line.text,
        "quantity": line.token_count,
        "amount": write_money(line.amount, currency),
        "tax": tax_to_json(line.tax),
    }


def read_credit_line(found: dict[str, Any]) -> CreditLine:
    """Return what `credit_line_to_json` wrote."""
    return CreditLine(
        line=found["line"],
        number=found["number"],
        number_line=found["number_line"],
        text=found["text"],
        token_count=found["quantity"],
        amount=Decimal(found["amount"]),
        tax=read_tax(found["tax"]),
    )


@overload
def tax_to_json(tax: Tax) -> dict[str, Any]: ...
@overload
def tax_to_json(tax: Tax | None) -> dict[str, Any] | None: ...
def tax_to_json(tax: Tax | None) -> dict[str, Any] | None:
    """Return a category with its rate and note; None where there is none."""
    if tax is None:
        return None
    return {"category": tax.category, "rate": write(tax.rate), "note": tax.note}


def read_tax(found: dict[str, Any] | None) -> Tax | None:
    """Return what `tax_to_json` wrote."""
    return None if found is None else _read_tax(found)


def tax_total_to_json(total: TaxTotal, currency: Currency) -> dict[str, Any]:
    """Return the tax of one category and rate, and what it is on."""
    return {
        **tax_to_json(total.tax),
        "basis": write_money(total.basis, currency),
        "amount": write_money(total.amount, currency),
    }


def read_tax_total(found: dict[str, Any]) -> TaxTotal:
    """Return what `tax_total_to_json` wrote."""
    return TaxTotal(
        tax=_read_tax(found), basis=Decimal(found["basis"]), amount=Decimal(found["amount"])
    )


def unpriced_to_json(key: Unpriced) -> dict[str, Any]:
    """Return what was used and has no price."""
    return {
        "model": key.model,
        "tier": key.tier,
        "mode": MODE_NAMES[key.mode],
        "token_class": class_name(key.token_class),
        "band": BAND_NAMES[key.band],
        "quantity": key.token_count,
        "first_time": write_time(key.first_ms),
    }


def read_unpriced(found: dict[str, Any]) -> Unpriced:
    """Return what `unpriced_to_json` wrote."""
    return Unpriced(
        **_read_key(found),
        band=BAND_NAMES.index(found["band"]),
        token_count=found["quantity"],
        first_ms=read_time(found["first_time"]),
    )


def read_class(name: str) -> TokenClass:
    """Return the token class of a name."""
    return TokenClass[name.upper()]


def _origin_to_json(origin: Origin) -> dict[str, Any]:
    return {
        "month": str(origin.month),
        "start_time": write_time(origin.start_ms),
        "number": origin.number,
        "line": origin.line,
    }


def _read_origin(found: dict[str, Any]) -> Origin:
    year, _, number = found["month"].partition("-")
    return Origin(
        month=Month(int(year), int(number)),
        start_ms=read_time(found["start_time"]),
        number=found["number"],
        line=found["line"],
    )


def price_to_json(price: Price) -> dict[str, Any]:
    """Return a price with all that it was made of."""
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


def _read_tax(found: dict[str, Any]) -> Tax:
    return Tax(category=found["category"], rate=Decimal(found["rate"]), note=found["note"])


def _read_key(found: dict[str, Any]) -> dict[str, Any]:
    """Return what a line and a key without price have in common, by the fields' names."""
    return {
        "model": found["model"],
        "tier": found["tier"],
        "mode": _MODES[found["mode"]],
        "token_class": read_class(found["token_class"]),
    }
