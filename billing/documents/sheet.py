"""A document as the values that `invoice.typ` sets: every word of it, and nothing that it computes.

Words that are longer than their place get marks (U+200B) at which they may be broken; numbers as
long as those of any bill get none.
"""

import json
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any, Final

from billing.contracts import Party
from billing.documents.columns import columns_of
from billing.documents.energy import ENERGY_TITLE, energy_facts
from billing.documents.format import (
    NO_LINES,
    PREVIEW,
    SANDBOX,
    UNPRICED,
    class_label,
    facts,
    group_by_model,
    group_count,
    group_money,
    group_price,
    name_of,
    note_unpriced,
    notes,
    printable,
    subtotal,
    title,
    word_counted,
    word_due,
    word_held,
    word_rounding,
    word_source,
)
from billing.documents.sections import (
    CHARGES,
    CREDITS,
    GIVEN_UP,
    PAYMENT,
    Item,
    Section,
    charge_items,
    credit_items,
    payment_rows,
    section_notes,
    sections,
    sums,
    tax_notes,
    total_row,
    word_files,
)
from billing.invoicing import DocumentKind, Invoice, InvoiceLine
from meter.domain.tokens import Mode

_MINUS: Final = "\N{MINUS SIGN}"
_MAY_BREAK: Final = "\N{ZERO WIDTH SPACE}"
# How many letters fit, about, into a row of each place; longer words may be broken anywhere.
_WIDE_CHARS: Final = 78
_HALF_CHARS: Final = 36
_NAME_CHARS: Final = 22
_TIER_CHARS: Final = 12
# No number of tokens, price or amount that anybody pays is longer.
_NUMBER_CHARS: Final = 22
_WORD: Final = re.compile(r"\S+")
_Row = dict[str, Any]


def to_sheet(invoice: Invoice, *, unshown: str = "") -> str:
    """Return the values as JSON; `unshown` are characters that are written as their numbers."""
    sheet = {
        "name": name_of(invoice),
        "title": title(invoice),
        "warning": " · ".join(_warnings(invoice)),
        "banners": _banners(invoice),
        "seller": _party(invoice.version.seller),
        "buyer": _party(invoice.version.buyer),
        "facts": [[label, _fit(text, _HALF_CHARS)] for label, text in facts(invoice)[1:]],
        "due": [word_due(invoice), _money(invoice.total, invoice)],
        "code": invoice.currency.code,
        "dense": columns_of(invoice).is_dense,
        "tables": list(_tables(invoice)),
        "nothing": "" if _has_rows(invoice) else NO_LINES,
        "sums": [
            [label.replace(" -", f" {_MINUS}"), _minus(amount)] for label, amount in sums(invoice)
        ],
        "total": [total_row(invoice)[0], _minus(total_row(invoice)[1])],
        "tax_notes": [_fit(it, _WIDE_CHARS) for it in tax_notes(invoice)],
        "payment": {
            "title": PAYMENT,
            "rows": [_fit(it, _WIDE_CHARS) for it in payment_rows(invoice)],
        },
        "held": _held(invoice),
        "energy": _energy(invoice),
        "foot": [_fit(it, _WIDE_CHARS) for it in _foot(invoice)],
        "files": [_fit(it, _WIDE_CHARS) for it in word_files(invoice)],
    }
    return json.dumps(_shown(sheet, unshown), ensure_ascii=False)


def _warnings(invoice: Invoice) -> Iterator[str]:
    if invoice.is_sandbox:
        yield SANDBOX
    if invoice.issue is None:
        yield PREVIEW


def _banners(invoice: Invoice) -> list[_Row]:
    found = [{"text": SANDBOX, "full": True, "rows": []}] if invoice.is_sandbox else []
    if invoice.issue is None:
        held = [word_held(invoice)] if invoice.unpriced else []
        found.append({"text": PREVIEW, "full": False, "rows": [word_counted(invoice), *held]})
    return found


def _party(party: Party) -> _Row:
    rows = [printable(it) for it in party.address]
    if party.tax_id:
        rows.append(f"Tax ID {printable(party.tax_id)}")
    return {
        "name": _fit(printable(party.name), _HALF_CHARS),
        "rows": [_fit(it, _HALF_CHARS) for it in rows],
    }


def _has_rows(invoice: Invoice) -> bool:
    return bool(invoice.lines or invoice.charges or invoice.credits)


def _tables(invoice: Invoice) -> Iterator[_Row]:
    code = invoice.currency.code
    found = sections(invoice)
    if found:
        titles = ["Tokens", f"{code} per million", f"Amount {code}"]
        said = notes(invoice), section_notes(invoice)
        blocks = [it for section in found for it in _blocks(section, invoice, said=said)]
        yield {"title": "", "titles": titles, "blocks": blocks}
    if invoice.charges:
        titles = ["Quantity", f"{code} each", f"Amount {code}"]
        yield _item_table(CHARGES, titles, charge_items(invoice))
    if invoice.credits:
        is_given_up = invoice.kind is DocumentKind.WRITE_OFF
        titles = ["Tokens", "", f"Amount {code}"]
        yield _item_table(GIVEN_UP if is_given_up else CREDITS, titles, credit_items(invoice))


def _blocks(
    section: Section, invoice: Invoice, *, said: Sequence[dict[int, str] | Any]
) -> Iterator[_Row]:
    """Yield the models of a section, the first with its title and the last with its sum."""
    models = list(group_by_model(section.lines))
    is_single = len(section.lines) == 1
    for place, (model, lines) in enumerate(models):
        is_last = place == len(models) - 1
        label = section.subtotal_label if is_last and not is_single else ""
        yield {
            "title": _fit(section.title, _WIDE_CHARS) if place == 0 else "",
            "section": _fit(section.title, _WIDE_CHARS),
            "model": _fit(printable(model), _WIDE_CHARS),
            "rows": [_line(it, invoice, said=said) for it in lines],
            "subtotal": _money(subtotal(lines), invoice) if len(lines) > 1 else "",
            "section_label": _fit(label, _HALF_CHARS),
            "section_total": _money(section.subtotal, invoice) if label else "",
        }


def _line(line: InvoiceLine, invoice: Invoice, *, said: Sequence[dict[int, str] | Any]) -> _Row:
    note = " · ".join(filter(None, (it.get(line.line, "") for it in said)))
    return {
        "line": str(line.line),
        "tier": _fit(printable(line.tier), _TIER_CHARS),
        "mode": "batch" if line.mode is Mode.BATCH else "",
        "what": class_label(line.token_class),
        "note": _fit(note, _NAME_CHARS),
        "numbers": [
            _number(group_count(line.token_count)),
            _number(group_price(line.price.unit_price, invoice.currency)),
            _number(group_money(line.billed, invoice.currency)),
        ],
    }


def _item_table(heading: str, titles: list[str], items: Sequence[Item]) -> _Row:
    rows = [
        {
            "line": str(it.line),
            "text": _fit(it.text, _HALF_CHARS),
            "note": _fit(it.note, _HALF_CHARS),
            "numbers": [_number(it.count), _number(it.price), _number(it.amount)],
        }
        for it in items
    ]
    return {"title": heading, "titles": titles, "items": rows}


def _held(invoice: Invoice) -> _Row | None:
    if not invoice.unpriced:
        return None
    rows = [
        {
            "model": _fit(printable(it.model), _HALF_CHARS),
            "notes": [_fit(note, _HALF_CHARS) for note in note_unpriced(it, invoice.version.zone)],
            "tokens": f"{_number(group_count(it.token_count))} tokens",
        }
        for it in invoice.unpriced
    ]
    return {"title": f"{UNPRICED}:", "rows": rows}


def _energy(invoice: Invoice) -> _Row | None:
    if invoice.energy is None:
        return None
    rows = [[label, _fit(text, _WIDE_CHARS)] for label, text in energy_facts(invoice.energy)]
    return {"title": ENERGY_TITLE, "rows": rows}


def _foot(invoice: Invoice) -> Iterator[str]:
    yield word_rounding(invoice)
    yield from word_source(invoice)


def _money(amount: Decimal, invoice: Invoice) -> str:
    return _number(group_money(amount, invoice.currency))


def _number(text: str) -> str:
    return _fit(_minus(text), _NUMBER_CHARS)


def _minus(text: str) -> str:
    return text.replace("-", _MINUS) if text.startswith("-") else text


def _fit(text: str, chars: int) -> str:
    """Return a text whose words may be broken where they are longer than a row."""
    return _WORD.sub(lambda it: _MAY_BREAK.join(it[0]) if len(it[0]) > chars else it[0], text)


def _shown(value: Any, unshown: str) -> Any:  # noqa: ANN401
    """Return the values with what no font has written out: `[U+1F642]`."""
    if not unshown:
        return value
    if isinstance(value, str):
        numbers = {ord(it): f"[U+{ord(it):04X}]" for it in unshown}
        return value.translate(numbers)
    if isinstance(value, dict):
        return {key: _shown(it, unshown) for key, it in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(it, unshown) for it in value]
    return value
