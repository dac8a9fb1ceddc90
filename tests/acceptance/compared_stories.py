"""A story lived twice, by the oracle and by the product, and compared document by document."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Protocol

from billing.crediting import Wanted
from billing.invoicing import ChargeLine, Invoice, InvoiceLine
from billing.price_book import MODE_NAMES, class_name
from billing.tax import Tax as ContractTax
from meter.domain.errors import MeterError
from tests.acceptance.oracle_bills import Event, LineKey, Period
from tests.acceptance.oracle_documents import Charge, Credit, Document, Key, Line, Tax
from tests.acceptance.oracle_life import Life
from tests.acceptance.stories import Step, Story


class Product(Protocol):
    """What lives a story by the product's rules."""

    def set_book(self, text: str) -> None:
        """Agree on a version of a book; nothing is corrected yet."""
        ...

    def set_contract(self, text: str) -> None:
        """Agree on a version of a contract, or on another text of it."""
        ...

    def count(self, event: Event, *, sign: int) -> None:
        """Count an event, or count it off again."""
        ...

    def close(self, month: str) -> list[tuple[Period, str, Invoice | None]]:
        """Close a month; return what came of each period, by contract and time."""
        ...

    def correct(self, periods: Sequence[Period], *, write_off: bool) -> list[Invoice]:
        """Issue what all periods of a contract's month have left over."""
        ...

    def credit(self, number: str, line: int, *, wanted: Wanted) -> Invoice | MeterError:
        """Credit a line, or return why that is refused."""
        ...

    def void(self, number: str) -> Invoice:
        """Take a document back; return the credit note."""
        ...

    def invoice(self, number: str) -> Invoice:
        """Return a document."""
        ...


@dataclass(kw_only=True)
class Compared:
    """Both lives of a story; `numbers` are the product's, by the oracle's places."""

    story: Story
    life: Life
    told: Product
    numbers: list[str] = field(default_factory=list)
    counted: dict[str, Event] = field(default_factory=dict)
    met: set[str] = field(default_factory=set)

    def live(self) -> Iterator[str]:
        """Go through the story; yield what differs."""
        for place, step in enumerate(self.story.steps):
            for fault in self._take(step):
                yield f"step {place}, {step.kind} {step.month}: {fault}"

    def _take(self, step: Step) -> Iterator[str]:
        match step.kind:
            case "report":
                self._report(*step.events)
            case "close":
                yield from self._close(step.month)
            case "take back" | "replace":
                self._take_back(step)
            case "credit":
                yield from self._credit(step)
            case "void":
                yield from self._void(step)
            case "correct" | "write off":
                yield from self._correct(step)
            case "book" | "contract":
                yield from self._agree(step)

    def _report(self, *events: Event) -> None:
        self.life.report(*events)
        for event in events:
            self.counted[event.request_id] = event
            self.told.count(event, sign=1)

    def _take_back(self, step: Step) -> None:
        if not self.counted:
            return
        names = sorted(self.counted)
        event = self.counted.pop(names[step.numbers[0] % len(names)])
        self.life.take_back(event)
        self.told.count(event, sign=-1)
        self.met.add(step.kind)
        if step.kind == "replace":
            classes = {name: count + step.numbers[1] % 7 for name, count in event.classes.items()}
            other = event._replace(classes=classes, request_id=f"{event.request_id}-again")
            self._report(other)

    def _close(self, month: str) -> Iterator[str]:
        expected = self.life.close(month, months=self.story.months)
        found = self.told.close(month)
        outcomes = [(it.period, it.outcome) for it in expected]
        if outcomes != [(period, outcome) for period, outcome, _ in found]:
            yield f"{found} instead of {outcomes}"
            return
        self.met |= {it.outcome for it in expected}
        for it, (_, _, invoice) in zip(expected, found, strict=True):
            if it.document is not None and invoice is not None:
                yield from self._same(it.document, invoice)

    def _credit(self, step: Step) -> Iterator[str]:
        documents = [it for it in self.life.documents if it.is_payable and it.lines]
        if not documents:
            return
        first, second, third = step.numbers
        document = documents[first % len(documents)]
        line = second % len(document.lines) + 1
        left = self.life.left(document, line)
        exponent = self.told.invoice(self.numbers[document.index]).currency.exponent
        coins = int(left * 10**exponent)
        amount = Fraction(third % coins + 1, 10**exponent) if coins > 0 else Fraction(1)
        wanted = Wanted(amount=_decimal(amount)) if third % 3 else Wanted()
        number = self.numbers[document.index]
        places = [self._place_of(number, it) for it in range(1, len(document.lines) + 1)]
        note = self.told.credit(number, places.index(line) + 1, wanted=wanted)
        if left <= 0:
            if not isinstance(note, MeterError):
                yield f"{note} of nothing"
            return
        if isinstance(note, MeterError):
            yield f"refused: {note.message}"
            return
        self.met.add("credit")
        yield from self._same(
            self.life.credit(document, line, amount=amount if third % 3 else left), note
        )

    def _void(self, step: Step) -> Iterator[str]:
        documents = [it for it in self.life.documents if it.is_payable]
        if documents:
            document = documents[step.numbers[0] % len(documents)]
            self.met.add("void")
            note = self.told.void(self.numbers[document.index])
            yield from self._same(self.life.void(document), note)

    def _correct(self, step: Step) -> Iterator[str]:
        periods = sorted(self.life.closed)
        if periods:
            period = periods[step.numbers[0] % len(periods)]
            yield from self._correct_month(period, write_off=step.kind == "write off")

    def _correct_month(self, period: Period, *, write_off: bool) -> Iterator[str]:
        """Correct all periods of a month of a contract; a month that is not whole is left."""
        month = self.life.agreed.month_of(period)
        periods = [
            it for _, it, _ in self.life.agreed.periods(month) if it.contract == period.contract
        ]
        if any(it not in self.life.closed or self.life.is_unpriced(it) for it in periods):
            return
        made = (self.life.correct(it, write_off=write_off) for it in periods)
        expected = [it for it in made if it is not None]
        found = self.told.correct(periods, write_off=write_off)
        if len(expected) != len(found):
            yield f"{period}: {found} instead of {expected}"
            return
        for one, other in zip(expected, found, strict=True):
            self.met.add("write off" if write_off else "correct")
            yield from self._same(one, other)

    def _agree(self, step: Step) -> Iterator[str]:
        """Agree on a file late; what was billed for closed months is corrected now, or later."""
        for each in (self.life, self.told):
            set_terms = each.set_book if step.kind == "book" else each.set_contract
            set_terms(step.texts[0])
        for period in sorted(self.life.closed) if step.numbers[0] else ():
            if self.life.closed[period] == "issued":
                yield from self._correct_month(period, write_off=False)
        self.met.add(step.kind)

    def _same(self, expected: Document, found: Invoice) -> Iterator[str]:
        """Yield what of a document is not as the oracle has it."""
        assert found.issue is not None
        assert len(self.numbers) == expected.index, "documents come in one order"
        self.numbers.append(found.issue.number)
        yield from differences(expected, found, numbers=self.numbers, place_of=self._place_of)
        self.met.add(expected.kind)
        if any(it.origin_ms != expected.period.start_ms for it in expected.lines):
            self.met.add("adjustment")
        if expected.charges:
            self.met.add("charge")
        if any(amount for _, amount in expected.taxes.values()):
            self.met.add("tax")

    def _place_of(self, number: str, line: int) -> int:
        """Return which line of the oracle's document one of the product's is."""
        place = self.numbers.index(number)
        document, invoice = self.life.documents[place], self.told.invoice(number)
        if line <= len(invoice.lines):
            wanted = to_line(invoice, invoice.lines[line - 1])
            return document.lines.index(wanted) + 1
        charge = to_charge(invoice, invoice.charges[line - 1 - len(invoice.lines)])
        return len(document.lines) + document.charges.index(charge) + 1


def compare(story: Story, product: Product) -> Compared:
    """Return both lives of a story, at its begin."""
    life = Life(story.tree)
    for each in (life, product):
        for text in story.books:
            each.set_book(text)
        # Later versions first: no period is laid out that a later version then ends.
        for text in reversed(story.contracts):
            each.set_contract(text)
    return Compared(story=story, life=life, told=product)


def differences(
    expected: Document,
    found: Invoice,
    *,
    numbers: list[str],
    place_of: Callable[[str, int], int],
) -> Iterator[str]:
    """Yield what of a document is not as the oracle has it; `numbers` by the oracle's places.

    `place_of` says which line of the oracle's a line of the product's is, by number and line.
    """
    lines = [to_line(found, it) for it in found.lines]
    if sorted(lines) != sorted(expected.lines):
        yield f"{expected.kind}: lines {sorted(lines)} instead of {sorted(expected.lines)}"
    charges = [to_charge(found, it) for it in found.charges]
    if sorted(charges, key=str) != sorted(expected.charges, key=str):
        yield f"charges {charges} instead of {expected.charges}"
    taken = [
        Credit(
            numbers.index(it.number) if it.number else -1,
            place_of(it.number, it.number_line) if it.number else 0,
            Fraction(it.amount),
            _tax(it.tax),
        )
        for it in found.credits
    ]
    if sorted(taken, key=str) != sorted(expected.credits, key=str):
        yield f"credits {taken} instead of {expected.credits}"
    taxes = {_tax(it.tax): (Fraction(it.basis), Fraction(it.amount)) for it in found.taxes}
    if taxes != dict(expected.taxes):
        yield f"taxes {taxes} instead of {expected.taxes}"
    facts = (
        ("kind", found.kind.value, expected.kind),
        ("net", Fraction(found.net), expected.net),
        ("total", Fraction(found.total), expected.total),
        ("refers to", found.refers_to, _number(expected.refers_to, numbers)),
        ("replaces", found.replaces, _number(expected.replaces, numbers)),
    )
    yield from (f"{name} {one} instead of {other}" for name, one, other in facts if one != other)
    yield from _sums(found)


def _sums(found: Invoice) -> Iterator[str]:
    """Yield what does not close in a document by itself."""
    count = len(found.lines) + len(found.charges) + len(found.credits)
    places = [it.line for it in found.lines]
    places += [it.line for it in found.charges]
    places += [it.line for it in found.credits]
    if places != list(range(1, count + 1)):
        yield f"lines are numbered {places}"
    for it in found.lines:
        if Fraction(it.exact) - Fraction(it.billed) != Fraction(it.residue):
            yield f"line {it.line}: {it.exact} - {it.billed} is not {it.residue}"


def to_line(invoice: Invoice, line: InvoiceLine) -> Line:
    """Return a line in the oracle's words."""
    price = line.price
    key = LineKey(
        line.model,
        line.tier,
        MODE_NAMES[line.mode],
        class_name(line.token_class),
        price.above,
        price.window,
        Fraction(price.unit_price),
        price.version_start_ms,
    )
    origin_ms = invoice.span.start_ms if line.origin is None else line.origin.start_ms
    return Line(origin_ms, Key(line.group, key), line.token_count, Fraction(line.billed))


def to_charge(invoice: Invoice, line: ChargeLine) -> Charge:
    """Return a charge in the oracle's words."""
    origin_ms = invoice.span.start_ms if line.origin is None else line.origin.start_ms
    return Charge(origin_ms, line.charge_id, Fraction(line.billed), _tax(line.tax))


def _tax(tax: ContractTax | None) -> Tax | None:
    return None if tax is None else Tax(tax.category, Fraction(tax.rate))


def _number(place: int | None, numbers: list[str]) -> str:
    return "" if place is None else numbers[place]


def _decimal(amount: Fraction) -> Decimal:
    return Decimal(amount.numerator) / Decimal(amount.denominator)
