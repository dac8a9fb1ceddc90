"""The audit of invoices: what each bills is the usage at or below its cut, to the token.

Nothing is priced again here; tokens, lines and totals are added up in another way than rating does.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Final, Protocol

from billing.contracts import accounts_below
from billing.coverage import Coverage, is_same
from billing.invoicing import Invoice
from billing.money import add_up
from billing.periods import Span
from billing.ports import TermsStore
from billing.price_book import MODE_NAMES, class_name
from meter.domain.account import AccountTree
from meter.domain.times import to_iso
from meter.domain.tokens import Mode, TokenClass

# Findings that are told; the rest is only counted.
_FINDINGS_MAX: Final = 10

# Sold model, tier, mode and class, by the names that invoices use.
LineKey = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptLine:
    """A line's row as it is kept: what it counts and bills."""

    line: int
    key: LineKey
    token_count: int
    billed: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptInvoice:
    """An invoice as it is kept: its document, read, and its rows beside it."""

    invoice: Invoice
    cut_id: int
    total: Decimal
    line_count: int
    lines: Sequence[KeptLine]


class KeptInvoices(Protocol):
    """Reads what was issued."""

    def numbers(self, span: Span) -> Sequence[str]:
        """Return the numbers of the invoices whose periods meet a span, in order."""
        ...

    def read(self, number: str) -> KeptInvoice:
        """Return one of them."""
        ...


class UsageTotals(Protocol):
    """Adds usage up."""

    def totals(
        self, *, account_ids: Collection[str], start_ms: int, end_ms: int, cut_id: int
    ) -> Iterator[tuple[tuple[str, str, str, int], Mapping[TokenClass, int]]]:
        """Yield model, served model, tier and mode with tokens by class, of usage in a span."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceFault:
    """What of an invoice is not as it should be; `facts` has it in values."""

    number: str
    says: str
    facts: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceAudit:
    """How many invoices and lines were audited, their tokens on both sides, and the faults."""

    invoice_count: int
    line_count: int
    billed_tokens: int
    used_tokens: int
    fault_count: int
    faults: Sequence[InvoiceFault]


@dataclass(frozen=True, slots=True, kw_only=True)
class Auditing:
    """The use case, over what it needs."""

    terms: TermsStore
    kept: KeptInvoices
    usage: UsageTotals
    tree: Callable[[], AccountTree]

    def audit(
        self,
        *,
        start_ms: int,
        end_ms: int,
        on_progress: Callable[[str], None] = lambda _: None,
    ) -> InvoiceAudit:
        """Audit the invoices whose periods meet a span; `on_progress` hears each one's number."""
        tree = self.tree()
        coverage = Coverage(self.terms.load().contracts, tree)
        faults: list[InvoiceFault] = []
        lines = billed = used = 0
        numbers = self.kept.numbers(Span(start_ms=start_ms, end_ms=end_ms))
        for number in numbers:
            kept = self.kept.read(number)
            usage = self._used(kept, coverage, tree=tree)
            lines += len(kept.lines)
            billed += sum(line.token_count for line in kept.lines)
            used += sum(usage.values())
            faults += [*_of_tokens(kept, usage), *_of_rows(kept)]
            on_progress(number)
        return InvoiceAudit(
            invoice_count=len(numbers),
            line_count=lines,
            billed_tokens=billed,
            used_tokens=used,
            fault_count=len(faults),
            faults=faults[:_FINDINGS_MAX],
        )

    def _used(
        self, kept: KeptInvoice, coverage: Coverage, *, tree: AccountTree
    ) -> Mapping[LineKey, int]:
        """Return what the contract billed, by the sums of each span in which nobody moved."""
        version, span = kept.invoice.version, kept.invoice.span
        accounts = accounts_below(tree, version.covers, span)
        sums: Counter[LineKey] = Counter()
        for start_ms, end_ms in pairwise([*coverage.instants(span), span.end_ms]):
            own = [it for it in accounts if is_same(version, coverage.find(it, start_ms))]
            for (model, served, tier, mode), tokens in self.usage.totals(
                account_ids=own, start_ms=start_ms, end_ms=end_ms, cut_id=kept.cut_id
            ):
                sold = version.sold_model(model, served)
                for token_class, count in tokens.items():
                    sums[sold, tier, MODE_NAMES[Mode(mode)], class_name(token_class)] += count
        return sums


def _of_tokens(kept: KeptInvoice, usage: Mapping[LineKey, int]) -> Iterator[InvoiceFault]:
    invoice = kept.invoice
    billed: Counter[LineKey] = Counter()
    for line in kept.lines:
        billed[line.key] += line.token_count
    for key in sorted({*billed, *usage}):
        if billed[key] != usage.get(key, 0):
            model, tier, mode, token_class = key
            yield _fault(
                kept,
                f"{invoice.account_id}, {model}, {tier}, {mode}, {token_class}: lines bill"
                f" {billed[key]:,} tokens, usage up to cut {kept.cut_id} has {usage.get(key, 0):,}"
                f" (from {to_iso(invoice.span.start_ms)} to {to_iso(invoice.span.end_ms)})",
                {
                    "account": invoice.account_id,
                    "model": model,
                    "tier": tier,
                    "mode": mode,
                    "token_class": token_class,
                    "billed": billed[key],
                    "usage": usage.get(key, 0),
                    "cut_id": kept.cut_id,
                },
            )


def _of_rows(kept: KeptInvoice) -> Iterator[InvoiceFault]:
    """Yield where rows, document and total of an invoice are not of one mind."""
    document = {
        line.line: KeptLine(
            line=line.line,
            key=(line.model, line.tier, MODE_NAMES[line.mode], class_name(line.token_class)),
            token_count=line.token_count,
            billed=line.billed,
        )
        for line in kept.invoice.lines
    }
    for row in kept.lines:
        line = document.get(row.line)
        if line is not None and row != line:
            facts = {"line": row.line, "row": row.token_count, "document": line.token_count}
            says = (
                f"line {row.line}: its row has {row.token_count:,} tokens for {row.billed}, the"
                f" document {line.token_count:,} for {line.billed}"
            )
            yield _fault(kept, says, facts)
    if not len(kept.lines) == len(document) == kept.line_count:
        facts = {"rows": len(kept.lines), "document": len(document), "said": kept.line_count}
        says = (
            f"{len(kept.lines)} lines are kept, {len(document)} in its document,"
            f" {kept.line_count} by its row"
        )
        yield _fault(kept, says, facts)
    total = add_up(row.billed for row in kept.lines)
    if not total == kept.total == kept.invoice.total:
        amounts = {
            "lines": str(total),
            "row": str(kept.total),
            "document": str(kept.invoice.total),
        }
        says = (
            f"its lines come to {total}, its row says {kept.total}, its document"
            f" {kept.invoice.total}"
        )
        yield _fault(kept, says, amounts)


def _fault(kept: KeptInvoice, says: str, facts: Mapping[str, object]) -> InvoiceFault:
    issue = kept.invoice.issue
    number = "?" if issue is None else issue.number
    return InvoiceFault(
        number=number, says=f"invoice {number}: {says}", facts={"invoice": number, **facts}
    )
