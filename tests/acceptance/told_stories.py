"""Stories lived by the product without a database: its own rules over a memory of it all."""

import hashlib
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from billing.book_file import read_book
from billing.books import PriceBooks
from billing.calendar import opened_period
from billing.contract_file import read_contract
from billing.contracts import BillingPeriod, Contracts, billing_periods
from billing.correcting import written_off
from billing.crediting import Wanted, credit_line, credit_lines, credit_note
from billing.drafting import Draft, Drafting
from billing.invoicing import Invoice
from billing.ledger import PeriodKey
from billing.money import Currency
from billing.periods import read_month
from billing.ports import PeriodState, Terms
from billing.verdict import judge
from meter.domain.errors import MeterError
from tests.acceptance.memory import Kept, Memory, NoConsumption
from tests.acceptance.oracle_accounts import find_account
from tests.acceptance.oracle_bills import Event, Period
from tests.acceptance.rated_worlds import tree_of
from tests.acceptance.stories import Story


@dataclass(kw_only=True)
class Told:
    """The product in a story; its outcomes and documents as they came."""

    story: Story
    memory: Memory
    books: list[str] = field(default_factory=list)
    contracts: dict[tuple[str, object], str] = field(default_factory=dict)
    issue_ms: int = 0
    _drafting: Drafting | None = None

    def drafting(self) -> Drafting:
        """Return what drafts by the terms that are agreed on."""
        if self._drafting is None:
            self._drafting = Drafting(
                self._terms(),
                self.memory.tree,
                facts=self.memory,
                sums=self.memory,
                ledger=self.memory,
                is_sandbox=True,
            )
        return self._drafting

    def set_book(self, text: str) -> None:
        """Agree on a version of a book."""
        self.books.append(text)
        self._drafting = None

    def set_contract(self, text: str) -> None:
        """Agree on a version of a contract, or on another text of it."""
        written = tomllib.loads(text)
        self.contracts[written["contract"], written["from"]] = text
        self._drafting = None

    def close(self, month: str) -> list[tuple[Period, str, Invoice | None]]:
        """Close a month, as its store would."""
        found: list[tuple[Period, str, Invoice | None]] = []
        drafting, memory = self.drafting(), self.memory
        for period in self._periods(month):
            key = PeriodKey(period.version.contract, period.span.start_ms)
            if key in memory.closed:
                outcome = memory.closed[key].outcome
                outcome = "already issued" if outcome == "issued" else outcome
                found.append((Period(*key), outcome, None))
                continue
            if any(
                it.version.contract == key.contract
                and PeriodKey(key.contract, it.span.start_ms) not in memory.closed
                and drafting.has_usage(it)
                for before in self.story.months
                if before < month
                for it in self._periods(before)
            ):
                found.append((Period(*key), "held earlier", None))
                continue
            found.append(self._close(period, key))
        return found

    def correct(self, periods: Sequence[Period], *, write_off: bool) -> list[Invoice]:
        """Issue what closed periods of a month have left over."""
        made = (self._correct(it, write_off=write_off) for it in periods)
        return [it for it in made if it is not None]

    def count(self, event: Event, *, sign: int) -> None:
        """Count an event, or count it off again."""
        self.memory.add(event, sign=sign)

    def invoice(self, number: str) -> Invoice:
        """Return a document."""
        return self._find(number).invoice

    def _correct(self, period: Period, *, write_off: bool) -> Invoice | None:
        drafting, memory = self.drafting(), self.memory
        stored = memory.closed[PeriodKey(*period)]
        version = next(
            it
            for it in drafting.terms.contracts.versions(stored.contract)
            if it.start_ms == stored.version_start_ms
        )
        billing = BillingPeriod(version=version, month=stored.month, span=stored.span)
        cut_id = memory.take_cut()
        draft = drafting.difference(billing, cut_id=cut_id)
        invoice = draft.invoice
        amounts = [it.billed for it in invoice.lines]
        amounts += [it.billed for it in invoice.charges]
        if invoice.unpriced or not amounts or not (write_off or any(amounts)):
            return None
        key = PeriodKey(*period)
        invoice = replace(invoice, refers_to=memory.numbers([key]).get(key, ""), reason="a test")
        if write_off:
            invoice = written_off(invoice)
        issued = memory.keep(invoice, issue_ms=self.issue_ms)
        self._settle(draft, cut_id=cut_id)
        return issued

    def credit(self, number: str, line: int, *, wanted: Wanted) -> Invoice | MeterError:
        """Credit a line, or return why that is refused."""
        invoice = self._find(number).invoice
        try:
            credited = credit_line(
                invoice, line, wanted=wanted, taken=self.memory.taken_off(number)
            )
        except MeterError as refusal:
            return refusal
        note = credit_note(invoice, [credited], reason="a test")
        return self.memory.keep(note, issue_ms=self.issue_ms)

    def void(self, number: str) -> Invoice:
        """Take a document back."""
        kept = self._find(number)
        lines = credit_lines(kept.invoice, taken=self.memory.taken_off(number))
        note = credit_note(kept.invoice, lines, reason="a test")
        issued = self.memory.keep(note, issue_ms=self.issue_ms)
        kept.voided_by = self.memory.documents[-1].number
        contract = kept.invoice.version.contract
        self.memory.closed.pop(PeriodKey(contract, kept.invoice.span.start_ms), None)
        origins = [it.origin for it in kept.invoice.lines]
        origins += [it.origin for it in kept.invoice.charges]
        for key in {PeriodKey(contract, it.start_ms) for it in origins if it is not None}:
            if key in self.memory.closed:
                self.memory.closed[key] = replace(
                    self.memory.closed[key], settled_cut_id=None, settled_terms=None
                )
        return issued

    def _close(self, period: BillingPeriod, key: PeriodKey) -> tuple[Period, str, Invoice | None]:
        drafting, memory = self.drafting(), self.memory
        cut_id = memory.take_cut()
        (draft,) = drafting.draft_many(
            [period],
            cut_id=cut_id,
            consumption=NoConsumption(),  # type: ignore[arg-type]
        )
        end_ms = drafting.terms.contracts.versions(key.contract)[-1].end_ms
        verdict = judge(
            draft.invoice,
            last_net=None,
            is_drifted=False,
            is_last=end_ms is not None and period.span.end_ms >= end_ms,
        )
        if verdict.holds:
            return Period(*key), "held", None
        outcome = verdict.outcome.value
        opened = opened_period(
            period.version, month=period.month, span=period.span, tzdata="of a test"
        )
        memory.closed[key] = replace(
            opened, state=PeriodState.CLOSED, outcome=outcome, close_ms=0, cut_id=cut_id
        )
        issued = None
        if outcome == "issued":
            issued = memory.keep(draft.invoice, issue_ms=self.issue_ms)
        if verdict.is_settled:
            self._settle(draft, cut_id=cut_id)
        return Period(*key), outcome, issued

    def _settle(self, draft: Draft, *, cut_id: int) -> None:
        for it in draft.settled:
            key = PeriodKey(it.contract, it.start_ms)
            self.memory.closed[key] = replace(
                self.memory.closed[key], settled_cut_id=cut_id, settled_terms=it.terms
            )

    def _find(self, number: str) -> Kept:
        return next(it for it in self.memory.documents if it.number == number)

    def _periods(self, month: str) -> list[BillingPeriod]:
        contracts = self.drafting().terms.contracts
        return [it for each in contracts for it in billing_periods(each, read_month(month))]

    def _terms(self) -> Terms:
        books = PriceBooks(read_book(text, tiers=None) for text in self.books)

        def find(written: str, at_ms: int) -> str | None:
            return find_account(self.story.tree, written, at_ms=at_ms)

        def find_currency(book: str) -> Currency | None:
            versions = books.versions(book)
            return versions[0].currency if versions else None

        versions = [
            read_contract(text, tiers=None, find_account=find, find_currency_of_book=find_currency)
            for text in self.contracts.values()
        ]
        contracts = Contracts(versions)
        # Each version of a book has one text: its name and begin say which.
        digests = {("book", it.book, it.start_ms): f"{it.book} {it.start_ms}" for it in books}
        digests |= {
            ("contract", it.contract, it.start_ms): hashlib.sha256(text.encode()).hexdigest()
            for it, text in zip(versions, self.contracts.values(), strict=True)
        }
        return Terms(version=len(self.books), books=books, contracts=contracts, digests=digests)


def tell(story: Story) -> Told:
    """Return the product at the begin of a story, before anything is agreed on."""
    return Told(story=story, memory=Memory(tree_of(story.tree)))
