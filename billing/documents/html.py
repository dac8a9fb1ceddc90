"""An invoice as one page of HTML: no script, nothing from elsewhere, at home on A4 too."""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import groupby
from typing import Final

from billing.contracts import Party
from billing.documents.cells import width_of
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
    subtotal,
    title,
    word_counted,
    word_due,
    word_held,
    word_rounding,
    word_source,
)
from billing.documents.markup import Markup, element
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
from billing.documents.style import style_sheet
from billing.energy import InvoiceEnergy
from billing.invoicing import DocumentKind, Invoice, InvoiceLine
from billing.money import Currency
from meter.domain.tokens import Mode

# Whatever a name might smuggle in: the page runs nothing and fetches nothing.
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
_MINUS: Final = "\N{MINUS SIGN}"
# A table with more rows than these may be broken over pages; its head comes again.
_KEPT_ROWS_MAX: Final = 5
# A longer name of a model stands above the titles of the columns and not beside them.
_MODEL_WIDTH_MAX: Final = 28


def to_html(invoice: Invoice) -> bytes:
    """Return the page, in UTF-8."""
    name = name_of(invoice)
    warnings = [SANDBOX] if invoice.is_sandbox else []
    if invoice.issue is None:
        warnings.append(PREVIEW)
    sheet = style_sheet(
        running_head=name,
        warning=" · ".join(warnings),
        has_energy=invoice.energy is not None,
        has_parts=_has_parts(invoice),
    )
    page = element(
        "html",
        element(
            "head",
            element("meta", charset="utf-8"),
            element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("title", f"{name} – {invoice.version.seller.name}"),
            element("style", Markup(sheet)),
        ),
        element("body", element("main", *_sections(invoice))),
        lang="en",
    )
    return f"<!DOCTYPE html>\n{page}\n".encode()


def _sections(invoice: Invoice) -> Iterator[Markup]:
    yield from _banners(invoice)
    yield _letterhead(invoice)
    yield _parties(invoice)
    yield _sum("due", word_due(invoice), invoice)
    yield from _Tables(invoice)
    yield from _items(invoice)
    if not (invoice.lines or invoice.charges or invoice.credits):
        yield element("p", NO_LINES, class_="nothing")
    if invoice.taxes:
        yield _pairs(sums(invoice), class_="sums")
    yield _sum("total", total_row(invoice)[0], invoice)
    for note in tax_notes(invoice):
        yield element("p", _name(note), class_="tax-notes")
    if payment_rows(invoice):
        rows = [element("p", _name(it)) for it in payment_rows(invoice)]
        yield element("div", element("h2", PAYMENT), *rows, class_="payment")
    if invoice.unpriced:
        yield _held(invoice)
    if invoice.energy is not None:
        yield _energy(invoice.energy)
    last = (word_rounding(invoice), *word_source(invoice))
    files = (element("p", it, class_="file") for it in word_files(invoice))
    yield element("footer", *(element("p", it) for it in last), *files)


def _has_parts(invoice: Invoice) -> bool:
    """Tell whether there is more than usage, its models and a total."""
    parts = (invoice.charges, invoice.credits, invoice.taxes, invoice.groups, invoice.terms)
    return any((*parts, *payment_rows(invoice), *(it.title for it in sections(invoice))))


def _pairs(rows: Sequence[tuple[str, str]], *, class_: str) -> Markup:
    pairs = [
        it
        for label, text in rows
        for it in (
            element("dt", _name(label.replace(" -", f" {_MINUS}"))),
            element("dd", text.replace("-", _MINUS)),
        )
    ]
    return element("dl", *pairs, class_=class_)


def _items(invoice: Invoice) -> Iterator[Markup]:
    """Yield the charges and the credits, a table for each."""
    code = invoice.currency.code
    if invoice.charges:
        titles = ("Quantity", f"{code} each", f"Amount {code}")
        yield _item_table(CHARGES, titles, charge_items(invoice))
    if invoice.credits:
        heading = GIVEN_UP if invoice.kind is DocumentKind.WRITE_OFF else CREDITS
        yield _item_table(heading, ("Tokens", "", f"Amount {code}"), credit_items(invoice))


def _item_table(heading: str, titles: Sequence[str], items: Sequence[Item]) -> Markup:
    head = [
        element("th", heading, class_="model", colspan="2", scope="colgroup"),
        *(element("th", it, class_="number", scope="col") for it in titles),
    ]
    rows = [
        element(
            "tr",
            element("td", str(it.line), class_="line"),
            element("td", _name(it.text), it.note and element("span", it.note, class_="note")),
            element("td", it.count, class_="number quantity"),
            element("td", it.price, class_="number price"),
            element("td", it.amount.replace("-", _MINUS), class_="number billed"),
        )
        for it in items
    ]
    widths = ["5ch", "", "24ch", "16ch", "16ch"]
    group = [element("col", style=f"width: {it}" if it else "") for it in widths]
    return element(
        "table",
        element("colgroup", *group),
        element("thead", element("tr", *head)),
        element("tbody", *rows),
        class_="items",
    )


def _banners(invoice: Invoice) -> Iterator[Markup]:
    if invoice.is_sandbox:
        yield element("div", element("strong", SANDBOX), class_="banner sandbox")
    if invoice.issue is None:
        held = [element("p", word_held(invoice))] if invoice.unpriced else []
        counted = element("p", word_counted(invoice))
        yield element("div", element("strong", PREVIEW), counted, *held, class_="banner")


def _letterhead(invoice: Invoice) -> Markup:
    kind, number = title(invoice)
    return element(
        "header",
        element("section", element("h1", kind), element("p", number, class_="title")),
        _party(invoice.version.seller),
    )


def _parties(invoice: Invoice) -> Markup:
    pairs = [
        element(name, text)
        for pair in facts(invoice)[1:]
        for name, text in zip(("dt", "dd"), pair, strict=True)
    ]
    return element(
        "div",
        element("dl", *pairs),
        _party(invoice.version.buyer, title="Billed to"),
        class_="parties",
    )


def _party(party: Party, title: str = "") -> Markup:
    rows = [element("p", _name(party.name), class_="name")]
    rows += [element("p", _name(it)) for it in party.address]
    if party.tax_id:
        rows.append(element("p", f"Tax ID {party.tax_id}"))
    return element("section", *([element("h2", title)] if title else []), *rows)


def _sum(class_: str, label: str, invoice: Invoice) -> Markup:
    code = element("span", invoice.currency.code, class_="code")
    amount = element("p", code, _amount(invoice.total, invoice.currency), class_="amount")
    return element("div", element("p", label), amount, class_=class_)


class _Tables:
    """The lines, a table for each model; all tables have the same columns."""

    def __init__(self, invoice: Invoice) -> None:
        self._invoice = invoice
        self._notes = _all_notes(invoice)
        self._columns = columns_of(invoice)

    def __iter__(self) -> Iterator[Markup]:
        for section in sections(self._invoice):
            if section.title:
                yield element("h2", _name(section.title), class_="part")
            yield from self._models(section)
            if section.subtotal_label and len(section.lines) > 1:
                amount = group_money(section.subtotal, self._invoice.currency)
                yield _pairs([(section.subtotal_label, amount)], class_="part-sum")

    def _models(self, section: Section) -> Iterator[Markup]:
        models = list(group_by_model(section.lines))
        # Models of one line each stand in one table, so that heads are not half of the page.
        for is_alone, group in groupby(models, key=lambda model: len(model[1]) == 1):
            if is_alone:
                rows = [self._row(line, is_alone=True) for _, (line,) in group]
                yield self._table(
                    [element("tr", element("td", colspan="3"), *self._titles())], rows
                )
            else:
                for model, lines in group:
                    yield self._table(list(self._head(model)), list(self._rows(lines)))

    def _table(self, heads: Sequence[Markup], rows: Sequence[Markup]) -> Markup:
        columns = self._columns
        numbers = [f"calc({it}ch + var(--gap))" for it in columns.numbers]
        widths = [f"{columns.line}ch", f"calc({columns.tier}ch + var(--gap))", "", *numbers]
        group = [element("col", style=f"width: {width}" if width else "") for width in widths]
        classes = ["kept"] if len(rows) <= _KEPT_ROWS_MAX else []
        classes += ["dense"] if columns.is_dense else []
        return element(
            "table",
            element("colgroup", *group),
            element("thead", *heads),
            element("tbody", *rows),
            class_=" ".join(classes),
            style=f"--decimals: {columns.decimals}; --beside: {numbers[0]}",
        )

    def _head(self, model: str) -> Iterator[Markup]:
        is_long = width_of(model) > _MODEL_WIDTH_MAX
        columns = "6" if is_long else "3"
        name = element("th", _name(model), class_="model", colspan=columns, scope="colgroup")
        if is_long:
            yield element("tr", name)
            yield element("tr", element("td", colspan="3"), *self._titles())
        else:
            yield element("tr", name, *self._titles())

    def _titles(self) -> list[Markup]:
        code = self._invoice.currency.code
        titles = ("Tokens", f"{code} per million", f"Amount {code}")
        return [element("th", it, class_="number", scope="col") for it in titles]

    def _rows(self, lines: Sequence[InvoiceLine]) -> Iterator[Markup]:
        before = None
        for line in lines:
            sold_at = (line.tier, line.mode)
            yield self._row(line, is_again=sold_at == before)
            before = sold_at
        if len(lines) > 1:
            amount = _amount(subtotal(lines), self._invoice.currency)
            label = element("td", "Subtotal", colspan="5")
            amount_cell = element("td", amount, class_="number billed")
            yield element("tr", label, amount_cell, class_="subtotal")

    def _row(self, line: InvoiceLine, *, is_again: bool = False, is_alone: bool = False) -> Markup:
        names = self._name_alone(line) if is_alone else self._names(line, is_again=is_again)
        return element(
            "tr",
            element("td", str(line.line), class_="line"),
            *names,
            element("td", _count(line.token_count), class_="number quantity"),
            element("td", *self._price(line.price.unit_price), class_="number price"),
            element("td", _amount(line.billed, self._invoice.currency), class_="number billed"),
        )

    def _names(self, line: InvoiceLine, *, is_again: bool) -> Iterator[Markup]:
        """Yield the tier, paler where it is the row before's, and the class, under their model."""
        mode = element("span", "batch", class_="note") if line.mode is Mode.BATCH else ""
        note = self._notes[line.line]
        yield element("td", _name(line.tier), mode, class_="tier again" if is_again else "tier")
        note = note and element("span", note, class_="note")
        yield element("td", class_label(line.token_class), note, class_="class")

    def _name_alone(self, line: InvoiceLine) -> Iterator[Markup]:
        """Yield the model with all that is said about its one line."""
        mode = ["batch"] if line.mode is Mode.BATCH else []
        words = [*mode, class_label(line.token_class), self._notes[line.line]]
        sold_as = " · ".join(filter(None, words))
        note = element("span", _name(line.tier), f" · {sold_as}", class_="note")
        yield element("td", element("strong", _name(line.model)), note, class_="sold", colspan="2")

    def _price(self, price: Decimal) -> Iterator[str]:
        """Yield a price whose point stands below those of the others."""
        whole, point, fraction = group_price(price, self._invoice.currency).partition(".")
        if self._columns.decimals:
            yield from (whole, element("span", point + fraction, class_="fraction"))
        else:
            yield whole + point + fraction


def _all_notes(invoice: Invoice) -> dict[int, str]:
    of_sections = section_notes(invoice)
    return {
        line: " · ".join(filter(None, (note, of_sections.get(line, ""))))
        for line, note in notes(invoice).items()
    }


def _held(invoice: Invoice) -> Markup:
    zone = invoice.version.zone
    rows = [
        element(
            "tr",
            element(
                "td",
                _name(key.model),
                *(element("span", it, class_="note") for it in note_unpriced(key, zone)),
            ),
            element("td", f"{_count(key.token_count)} tokens", class_="number"),
        )
        for key in invoice.unpriced
    ]
    table = element("table", element("tbody", *rows))
    return element("div", element("h2", f"{UNPRICED}:"), table, class_="held")


def _energy(energy: InvoiceEnergy) -> Markup:
    pairs = [
        element(name, text)
        for pair in energy_facts(energy)
        for name, text in zip(("dt", "dd"), pair, strict=True)
    ]
    return element("div", element("h2", ENERGY_TITLE), element("dl", *pairs), class_="energy")


def _name(text: str) -> Markup:
    """Return a name, which may be written from right to left and need not be translated."""
    return element("bdi", text, translate="no")


def _amount(amount: Decimal, currency: Currency) -> str:
    return group_money(amount, currency).replace("-", _MINUS)


def _count(count: int) -> str:
    return group_count(count).replace("-", _MINUS)
