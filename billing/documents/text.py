"""An invoice as a page of text for terminals: 80 columns, up to 100 where its numbers need them."""

from collections.abc import Iterator
from itertools import zip_longest
from typing import Final

from billing.contracts import Party
from billing.documents.cells import Column, lay_out, pad, width_of, wrap
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
    has_batch,
    note_unpriced,
    notes,
    printable,
    subtotal,
    word_counted,
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
from billing.price_book import MODE_NAMES

WIDTH_MIN: Final = 80
WIDTH_MAX: Final = 100
_GAP: Final = 2
_INDENT: Final = 2
_FACTS_WIDTH: Final = 41
_FACT_LABEL_WIDTH: Final = 9
_ENERGY_LABEL_WIDTH: Final = 11
# Of tokens, price and amount. What is longer goes on in a row below; so the page stays wide enough.
_NUMBER_WIDTHS_MAX: Final = (21, 14, 18)


def to_text(invoice: Invoice) -> bytes:
    """Return the page, in UTF-8; no row is wider than 100 cells."""
    table = _Table(invoice)
    rows = [
        *_banners(invoice, table.width),
        *_head(invoice, table.width),
        "",
        *table.rows(),
        *_payment(invoice, table.width),
        *_unpriced(invoice, table.width),
        *_energy(invoice, table.width),
        *_foot(invoice, table.width),
    ]
    return "".join(f"{row.rstrip(' ')}\n" for row in rows).encode()


class _Table:
    """The lines under their models, each with its number, and the total."""

    def __init__(self, invoice: Invoice) -> None:
        self._invoice = invoice
        of_sections = section_notes(invoice)
        self._notes = {
            line: " · ".join(filter(None, (note, of_sections.get(line, ""))))
            for line, note in notes(invoice).items()
        }
        self._has_batch = has_batch(invoice)
        numbers = _numbers(invoice)
        self._cells = {
            line.line: [*self._names(line), *numbers[place]]
            for place, line in enumerate(invoice.lines)
        }
        code = invoice.currency.code
        mode = ["Mode"] if self._has_batch else []
        self._titles = ["#", "Tier", *mode, "Class", "Tokens", f"{code} per 1M", f"Amount {code}"]
        self._columns = self._fit()
        gaps = _GAP * (len(self._columns) - 1)
        self.width = sum(column.width for column in self._columns) + gaps

    def rows(self) -> Iterator[str]:
        """Yield the table's rows, its head and the total included."""
        invoice, rule = self._invoice, "─" * self.width
        if invoice.lines:
            yield from lay_out(self._titles, self._columns, gap=_GAP)
        yield rule
        yield from self._sections()
        yield from _items(invoice, self.width)
        if not (invoice.lines or invoice.charges or invoice.credits):
            yield NO_LINES
        yield rule
        for label, amount in sums(invoice):
            yield from self._sum(label, amount)
        label, total = total_row(invoice)
        yield from self._sum(f"{label} {invoice.currency.code}", total)
        for note in tax_notes(invoice):
            yield from ("", *wrap(note, self.width))

    def _sections(self) -> Iterator[str]:
        """Yield the lines of tokens, below their section's title where there is one."""
        is_first = True
        for section in sections(self._invoice):
            if section.title:
                yield from (*([] if is_first else [""]), *wrap(section.title, self.width))
                yield "┄" * self.width
                is_first = True
            for model, lines in group_by_model(section.lines):
                if not is_first:
                    yield ""
                is_first = False
                yield from wrap(printable(model), self.width)
                for line in lines:
                    yield from self._line(line)
                if len(lines) > 1:
                    amount = group_money(subtotal(lines), self._invoice.currency)
                    yield pad(f"subtotal  {amount}", self.width, to_right=True)
            if section.subtotal_label and len(section.lines) > 1:
                amount = group_money(section.subtotal, self._invoice.currency)
                yield from self._sum(section.subtotal_label, amount)

    def _sum(self, label: str, amount: str) -> Iterator[str]:
        room = self.width - width_of(amount) - _GAP
        columns = (Column(width=room), Column(width=width_of(amount), is_number=True))
        yield from lay_out((label, amount), columns, gap=_GAP)

    def _line(self, line: InvoiceLine) -> Iterator[str]:
        yield from lay_out(self._cells[line.line], self._columns, gap=_GAP)
        note = self._notes[line.line]
        if note:
            before = self._columns[: 3 if self._has_batch else 2]
            indent = sum(column.width + _GAP for column in before)
            room = self.width - indent - self._columns[-1].width - _GAP
            yield from (" " * indent + row for row in wrap(note, room))

    def _names(self, line: InvoiceLine) -> list[str]:
        mode = [MODE_NAMES[line.mode]] if self._has_batch else []
        return [str(line.line), printable(line.tier), *mode, class_label(line.token_class)]

    def _fit(self) -> list[Column]:
        """Return the columns: as wide as their texts, the tier and long numbers as far as it goes.

        What is left of the narrowest page goes to the class, so that amounts end where the page
        does.
        """
        rows = [self._titles, *self._cells.values()]
        widths = [max(map(width_of, cells)) for cells in zip(*rows, strict=True)]
        widths[0] += _INDENT
        for place, width_max in zip((-3, -2, -1), _NUMBER_WIDTHS_MAX, strict=True):
            widths[place] = min(widths[place], max(width_max, width_of(self._titles[place])))
        gaps = _GAP * (len(widths) - 1)
        widths[1] = min(widths[1], WIDTH_MAX - gaps - sum(widths) + widths[1])
        widths[-4] += max(0, WIDTH_MIN - gaps - sum(widths))
        right = {0, *range(len(widths) - 3, len(widths))}
        return [Column(width=width, is_number=place in right) for place, width in enumerate(widths)]


def _numbers(invoice: Invoice) -> list[tuple[str, str, str]]:
    """Return tokens, price and amount of each line; points stand below each other in prices."""
    prices = [group_price(line.price.unit_price, invoice.currency) for line in invoice.lines]
    behind = [len(price) - len(price.partition(".")[0]) for price in prices]
    aligned = [
        price + " " * (max(behind) - length) for price, length in zip(prices, behind, strict=True)
    ]
    if max(map(len, aligned), default=0) <= _NUMBER_WIDTHS_MAX[1]:
        prices = aligned
    return [
        (group_count(line.token_count), price, group_money(line.billed, invoice.currency))
        for line, price in zip(invoice.lines, prices, strict=True)
    ]


def _banners(invoice: Invoice, width: int) -> Iterator[str]:
    rows = [SANDBOX] if invoice.is_sandbox else []
    if invoice.issue is None:
        rows += [PREVIEW, *wrap(word_counted(invoice), width)]
    if invoice.unpriced:
        rows += wrap(word_held(invoice), width)
    if rows:
        yield from ("━" * width, *rows, "━" * width, "")


def _head(invoice: Invoice, width: int) -> Iterator[str]:
    """Yield the parties on the left, and beside them the facts."""
    seller, buyer = invoice.version.seller, invoice.version.buyer
    party = Column(width=width - _GAP - _FACTS_WIDTH)
    left = [*_party(seller, party.width), "", "Billed to", *_party(buyer, party.width)]
    fact = (Column(width=_FACT_LABEL_WIDTH), Column(width=_FACTS_WIDTH - _FACT_LABEL_WIDTH))
    (kind, number), *others = facts(invoice)
    is_long = width_of(kind) >= _FACT_LABEL_WIDTH
    right = wrap(kind, _FACTS_WIDTH) if is_long else []
    named = [("Number" if is_long else kind, number), *others]
    right += [row for label_and_text in named for row in lay_out(label_and_text, fact, gap=0)]
    for row in zip_longest(left, right, fillvalue=""):
        yield from lay_out(row, (party, Column(width=_FACTS_WIDTH)), gap=_GAP)


def _party(party: Party, width: int) -> Iterator[str]:
    for text in (party.name, *party.address):
        yield from wrap(printable(text), width)
    if party.tax_id:
        yield from wrap(f"Tax ID {printable(party.tax_id)}", width)


def _items(invoice: Invoice, width: int) -> Iterator[str]:
    """Yield the charges and the credits, each with what it is, how much of it, and the amount."""
    is_given_up = invoice.kind is DocumentKind.WRITE_OFF
    named = (
        (CHARGES, charge_items(invoice)),
        (GIVEN_UP if is_given_up else CREDITS, credit_items(invoice)),
    )
    for title, items in named:
        if not items:
            continue
        if invoice.lines or (invoice.charges and title != CHARGES):
            yield ""
        yield title
        places = max(width_of(str(it.line)) for it in items) + _INDENT
        amounts = max(width_of(it.amount) for it in items)
        columns = (
            Column(width=places, is_number=True),
            Column(width=width - places - amounts - 2 * _GAP),
            Column(width=amounts, is_number=True),
        )
        for item in items:
            yield from lay_out((str(item.line), item.text, item.amount), columns, gap=_GAP)
            yield from (" " * (places + _GAP) + row for row in _of_item(item, columns[1].width))


def _of_item(item: Item, width: int) -> Iterator[str]:
    of = f"{item.count} × {item.price}" if item.price else item.count and f"{item.count} tokens"
    words = " · ".join(filter(None, (of, item.note)))
    if words:
        yield from wrap(words, width)


def _payment(invoice: Invoice, width: int) -> Iterator[str]:
    rows = payment_rows(invoice)
    if rows:
        yield from ("", PAYMENT)
        for text in rows:
            yield from (" " * _INDENT + row for row in wrap(text, width - _INDENT))


def _unpriced(invoice: Invoice, width: int) -> Iterator[str]:
    if not invoice.unpriced:
        return
    yield from ("", *f"{UNPRICED}:")
    for key in invoice.unpriced:
        yield from wrap(printable(key.model), width)
        tokens = f"{group_count(key.token_count)} tokens"
        columns = (
            Column(width=width - _INDENT - _GAP - width_of(tokens)),
            Column(width=width_of(tokens), is_number=True),
        )
        which, since = note_unpriced(key, invoice.version.zone)
        rows = [*lay_out((which, tokens), columns, gap=_GAP), since]
        yield from (" " * _INDENT + row for row in rows)


def _energy(invoice: Invoice, width: int) -> Iterator[str]:
    if invoice.energy is None:
        return
    yield from ("", *wrap(ENERGY_TITLE, width))
    columns = (
        Column(width=_ENERGY_LABEL_WIDTH),
        Column(width=width - _INDENT - _ENERGY_LABEL_WIDTH),
    )
    for label, text in energy_facts(invoice.energy):
        rows = lay_out((label, text), columns, gap=0)
        yield from (" " * _INDENT + row for row in rows)


def _foot(invoice: Invoice, width: int) -> Iterator[str]:
    yield ""
    for text in (word_rounding(invoice), *word_source(invoice), *word_files(invoice)):
        yield from wrap(text, width)
