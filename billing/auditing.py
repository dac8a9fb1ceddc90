"""The audit of invoices: what documents bill for a period is its usage, to the token.

Tokens, lines and totals are added up in another way than rating does. Prices are asked for nothing
but what is free: tokens of that which came late are on no document.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Final, Protocol

from billing.contracts import ContractVersion, accounts_below
from billing.coverage import Coverage
from billing.difference import BilledLine
from billing.invoicing import Invoice
from billing.ledger import Ledger, PeriodKey
from billing.money import add_up
from billing.periods import Span
from billing.ports import StoredPeriod, Terms, TermsStore
from billing.price_book import MODE_NAMES, class_name
from billing.rating import LineKey, Rater, key_of
from meter.domain.account import AccountTree
from meter.domain.times import to_iso
from meter.domain.tokens import Mode, TokenClass
from meter.usage import UsageFacts

# Findings that are told; the rest is only counted.
_FINDINGS_MAX: Final = 10

_NO_TOKENS: Final = ("", "", "", "")
# Periods whose lines are read by one question.
_PERIODS_AT_ONCE: Final = 500

# Sold model, tier, mode and class, by the names that invoices use.
TokenKey = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptLine:
    """A line's row as it is kept: what it counts and bills; `quantity` is that of a charge, too.

    The key of what is not of tokens is empty.
    """

    line: int
    key: TokenKey
    quantity: Decimal
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
    ledger: Ledger
    usage: UsageTotals
    facts: UsageFacts
    tree: Callable[[], AccountTree]

    def audit(
        self,
        *,
        start_ms: int,
        end_ms: int,
        on_progress: Callable[[str], None] = lambda _: None,
    ) -> InvoiceAudit:
        """Audit the documents whose periods meet a span; `on_progress` hears each one's number."""
        by_period: dict[PeriodKey, str] = {}
        of_rows: list[InvoiceFault] = []
        lines = 0
        numbers = self.kept.numbers(Span(start_ms=start_ms, end_ms=end_ms))
        for number in numbers:
            kept = self.kept.read(number)
            by_period[_period_of(kept.invoice)] = number
            lines += len(kept.lines)
            of_rows += _of_rows(kept)
            on_progress(number)
        look = _Look(self, self.terms.load(), self.tree())
        keys = sorted(by_period)
        for place in range(0, len(keys), _PERIODS_AT_ONCE):
            look.compare({it: by_period[it] for it in keys[place : place + _PERIODS_AT_ONCE]})
        faults = [*look.faults, *of_rows]
        return InvoiceAudit(
            invoice_count=len(numbers),
            line_count=lines,
            billed_tokens=look.billed_tokens,
            used_tokens=look.used_tokens,
            fault_count=len(faults),
            faults=faults[:_FINDINGS_MAX],
        )


class _Look:
    """Compares periods, by the terms and the tree of one moment."""

    def __init__(self, auditing: Auditing, terms: Terms, tree: AccountTree) -> None:
        self.faults: list[InvoiceFault] = []
        self.billed_tokens = 0
        self.used_tokens = 0
        self._auditing = auditing
        self._terms = terms
        self._tree = tree
        self._coverage = Coverage(terms.contracts, tree)

    def compare(self, numbers: Mapping[PeriodKey, str]) -> None:
        """Compare what documents bill for periods with usage up to the cuts that they settle.

        Periods that are open again, and those of which something is known to be left, are let be.
        """
        closed = self._auditing.ledger.closed_periods({it.contract for it in numbers})
        settled = {
            PeriodKey(it.contract, it.span.start_ms): it
            for each in closed.values()
            for it in each
            if it.settled_cut_id is not None
        }
        billed = self._auditing.ledger.billed([it for it in numbers if it in settled])
        for key, number in numbers.items():
            if key in settled:
                self._compare(settled[key], billed.get(key, ()), number=number)

    def _compare(self, period: StoredPeriod, billed: Sequence[BilledLine], *, number: str) -> None:
        used = self._used(period)
        sums: Counter[TokenKey] = Counter()
        for it in billed:
            sums[_token_key(it.key)] += it.token_count
        self.billed_tokens += sum(sums.values())
        self.used_tokens += sum(used.values())
        keys = [it for it in sorted({*sums, *used}) if sums[it] != used[it]]
        free = self._free(period, keys) if keys else Counter()
        for it in billed:
            if not it.key.unit_price:
                free[_token_key(it.key)] -= it.token_count
        first = billed[0].number if billed else number
        self.faults += [
            self._fault(period, key, number=first, billed=sums[key], used=used[key])
            for key in keys
            if used[key] - sums[key] != free[key]
        ]

    def _fault(
        self, period: StoredPeriod, key: TokenKey, *, number: str, billed: int, used: int
    ) -> InvoiceFault:
        account_id = self._version(period).covers[0]
        model, tier, mode, token_class = key
        says = (
            f"{account_id}, {model}, {tier}, {mode}, {token_class}: lines bill {billed:,} tokens,"
            f" usage up to cut {period.settled_cut_id} has {used:,} (from"
            f" {to_iso(period.span.start_ms)} to {to_iso(period.span.end_ms)})"
        )
        return _fault(
            number,
            says,
            {
                "account": account_id,
                "model": model,
                "tier": tier,
                "mode": mode,
                "token_class": token_class,
                "billed": billed,
                "usage": used,
                "cut_id": period.settled_cut_id,
            },
        )

    def _used(self, period: StoredPeriod) -> Counter[TokenKey]:
        """Return what the contract bills, by the sums of each span in which nobody moved."""
        assert period.settled_cut_id is not None, "others are let be"
        span, accounts = period.span, self._accounts(period)
        sums: Counter[TokenKey] = Counter()
        for start_ms, end_ms in pairwise([*self._coverage.instants(span), span.end_ms]):
            own: dict[int, list[str]] = defaultdict(list)
            for account_id in accounts:
                version = self._coverage.find(account_id, start_ms)
                if version is not None and version.contract == period.contract:
                    own[version.start_ms].append(account_id)
            for version_start_ms, account_ids in own.items():
                version = self._version(period, start_ms=version_start_ms)
                for (model, served, tier, mode), tokens in self._auditing.usage.totals(
                    account_ids=account_ids,
                    start_ms=start_ms,
                    end_ms=end_ms,
                    cut_id=period.settled_cut_id,
                ):
                    sold = version.sold_model(model, served)
                    for token_class, count in tokens.items():
                        sums[sold, tier, MODE_NAMES[Mode(mode)], class_name(token_class)] += count
        return sums

    def _free(self, period: StoredPeriod, keys: Collection[TokenKey]) -> Counter[TokenKey]:
        """Return how many tokens of keys are free."""
        free: Counter[TokenKey] = Counter()
        raters: dict[int, Rater] = {}
        for fact in self._auditing.facts.facts(
            account_ids=self._accounts(period),
            start_ms=period.span.start_ms,
            end_ms=period.span.end_ms,
            cut_id=period.settled_cut_id,
        ):
            version = self._coverage.find(fact.account_id, fact.interval_start_ms)
            if version is None or version.contract != period.contract:
                continue
            model = version.sold_model(fact.model, fact.served_model)
            rater = raters.setdefault(version.start_ms, Rater(version, self._terms.books))
            for token_class, count in fact.tokens.items():
                key = (model, fact.tier, MODE_NAMES[fact.mode], class_name(token_class))
                if key in keys:
                    price = rater.find_price(key_of(fact, model=model, token_class=token_class))
                    if price is not None and not price.unit_price:
                        free[key] += count
        return free

    def _accounts(self, period: StoredPeriod) -> frozenset[str]:
        covers = {
            it
            for version in self._terms.contracts.versions(period.contract)
            for it in version.covers
        }
        return accounts_below(self._tree, sorted(covers), period.span)

    def _version(self, period: StoredPeriod, *, start_ms: int | None = None) -> ContractVersion:
        wanted = period.version_start_ms if start_ms is None else start_ms
        versions = self._terms.contracts.versions(period.contract)
        return next(it for it in versions if it.start_ms == wanted)


def _period_of(invoice: Invoice) -> PeriodKey:
    return PeriodKey(invoice.version.contract, invoice.span.start_ms)


def _token_key(key: LineKey) -> TokenKey:
    return key.model, key.tier, MODE_NAMES[key.mode], class_name(key.token_class)


def _of_rows(kept: KeptInvoice) -> Iterator[InvoiceFault]:
    """Yield where rows, document and total of an invoice are not of one mind."""
    number = "?" if kept.invoice.issue is None else kept.invoice.issue.number
    document = {it.line: it for it in _lines_of(kept.invoice)}
    for row in kept.lines:
        line = document.get(row.line)
        if line is not None and row != line:
            what = "tokens" if row.key[0] else "units"
            facts = {"line": row.line, "row": str(row.quantity), "document": str(line.quantity)}
            says = (
                f"line {row.line}: its row has {row.quantity:,} {what} for {row.billed}, the"
                f" document {line.quantity:,} for {line.billed}"
            )
            yield _fault(number, says, facts)
    if not len(kept.lines) == len(document) == kept.line_count:
        counts = {"rows": len(kept.lines), "document": len(document), "said": kept.line_count}
        says = (
            f"{len(kept.lines)} lines are kept, {len(document)} in its document,"
            f" {kept.line_count} by its row"
        )
        yield _fault(number, says, counts)
    taxes = (it.amount for it in kept.invoice.taxes)
    total = add_up((*(row.billed for row in kept.lines), *taxes))
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
        yield _fault(number, says, amounts)


def _lines_of(invoice: Invoice) -> Iterator[KeptLine]:
    for line in invoice.lines:
        yield KeptLine(
            line=line.line,
            key=(line.model, line.tier, MODE_NAMES[line.mode], class_name(line.token_class)),
            quantity=Decimal(line.token_count),
            billed=line.billed,
        )
    for charge in invoice.charges:
        yield KeptLine(
            line=charge.line, key=_NO_TOKENS, quantity=charge.quantity, billed=charge.billed
        )
    for credit in invoice.credits:
        yield KeptLine(
            line=credit.line,
            key=_NO_TOKENS,
            quantity=Decimal(credit.token_count or 0),
            billed=credit.amount,
        )


def _fault(number: str, says: str, facts: Mapping[str, object]) -> InvoiceFault:
    return InvoiceFault(
        number=number, says=f"invoice {number}: {says}", facts={"invoice": number, **facts}
    )
