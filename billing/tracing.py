"""From a line of tokens back to usage: which intervals were priced to it, and by what it is less.

A line bills what its period comes to at its price, less what documents before it have billed there.
Most often that is the usage that came above their cuts. Where it is not, as after a change of
prices, it is all usage of that price, less those lines.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from billing.contracts import BillingPeriod, ContractVersion, PriceBy
from billing.coverage import Coverage
from billing.difference import BilledLine
from billing.explanation import IntervalShare
from billing.gathering import Gathering, group_of
from billing.invoicing import Invoice, InvoiceLine
from billing.ledger import Ledger
from billing.outstanding import key_of
from billing.period_book import PeriodQuery, PeriodStore
from billing.ports import InvoiceStore, Terms, TermsStore
from billing.price_book import Price, PriceKey
from billing.rating import LineKey, RatedLine
from meter.domain.account import AccountTree
from meter.evidence import Evidence, EvidenceQuery, UsageEvidence, UsageQuery
from meter.usage import UsageFacts, UsageSums

# As many periods as a month has quarters of an hour.
_PERIODS_MAX: Final = 3_000


class IssueMarks(Protocol):
    """Knows by what documents were made."""

    def terms_version(self, number: str) -> int | None:
        """Return the version of the terms that a document was made by; None where none is kept."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What a line was made of: intervals of usage above a cut (0: all of it), less lines before.

    `query` finds its events; None where no usage is of it.
    """

    intervals: tuple[IntervalShare, ...]
    before: tuple[BilledLine, ...]
    after_cut_id: int
    query: EvidenceQuery | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracing:
    """Traces lines, over what it needs."""

    terms: TermsStore
    invoices: InvoiceStore
    marks: IssueMarks
    periods: PeriodStore
    facts: UsageFacts
    sums: UsageSums
    ledger: Ledger
    evidence: Evidence
    tree: Callable[[], AccountTree]

    def trace(self, invoice: Invoice, line: InvoiceLine) -> Trace:
        """Return what a line of an issued document was made of, by the terms of its issue."""
        assert invoice.issue is not None, "only what was issued is traced"
        assert invoice.cut_id is not None, "what was issued is of a cut"
        number = invoice.issue.number
        terms = self.terms.load(self.marks.terms_version(number))
        period = self._period(invoice, line)
        pricing = _Pricing(
            terms, self.tree(), facts=self.facts, sums=self.sums, line=line, period=period
        )
        key = key_of(period)
        before = self.ledger.billed([key], before=number).get(key, ())
        after_cut_id = max(map(self._cut_of, {it.number for it in before}), default=0)
        if after_cut_id:
            late = self._usage(pricing, cut_id=invoice.cut_id, after_cut_id=after_cut_id)
            if sum(it.token_count for it in late if pricing.is_of_line(it)) == line.token_count:
                return _to_trace(late, pricing, cut_id=invoice.cut_id, after_cut_id=after_cut_id)
        every = self._usage(pricing, cut_id=invoice.cut_id)
        own = tuple(it for it in before if it.key == pricing.key)
        return _to_trace(every, pricing, cut_id=invoice.cut_id, before=own)

    def _period(self, invoice: Invoice, line: InvoiceLine) -> BillingPeriod:
        """Return the period that a line bills: its document's, or an earlier one."""
        version, origin = invoice.version, line.origin
        if origin is None or origin.start_ms == invoice.span.start_ms:
            return BillingPeriod(version=version, month=invoice.month, span=invoice.span)
        query = PeriodQuery(month=origin.month, contracts=[version.contract])
        found = self.periods.find(query, after=None, limit=_PERIODS_MAX)
        span = next(it.span for it in found if it.span.start_ms == origin.start_ms)
        return BillingPeriod(version=version, month=origin.month, span=span)

    def _cut_of(self, number: str) -> int:
        found = self.invoices.find(number)
        assert found is not None, "what was issued stays"
        return found.cut_id or 0

    def _usage(
        self, pricing: "_Pricing", *, cut_id: int, after_cut_id: int = 0
    ) -> Sequence[UsageEvidence]:
        line, span = pricing.line, pricing.period.span
        return self.evidence.find_usage(
            UsageQuery(
                account_ids=pricing.accounts,
                start_ms=span.start_ms,
                end_ms=span.end_ms,
                model=pricing.model(PriceBy.REQUESTED),
                served_model=pricing.model(PriceBy.SERVED),
                tier=line.tier,
                mode=line.mode,
                token_class=line.token_class,
                cut_id=cut_id,
                after_cut_id=after_cut_id,
            )
        )


class _Pricing:
    """Tells usage of a period that was priced to a line from all other."""

    def __init__(
        self,
        terms: Terms,
        tree: AccountTree,
        *,
        facts: UsageFacts,
        sums: UsageSums,
        line: InvoiceLine,
        period: BillingPeriod,
    ) -> None:
        self.line = line
        self.period = period
        self.key = _key(line, price=line.price, group=line.group)
        self._tree = tree
        self._coverage = Coverage(terms.contracts, tree)
        self._gathering = Gathering(terms, tree, self._coverage, facts=facts, sums=sums)
        self._price_by = {it.price_by for it in self._gathering.versions(period)}
        self.accounts = self._gathering.accounts(period)

    def model(self, price_by: PriceBy) -> str:
        """Return the line's model where such names are sold; empty for any."""
        return self.line.model if self._price_by == {price_by} else ""

    def is_of_line(self, usage: UsageEvidence) -> bool:
        """Tell whether usage was priced to the line."""
        version = self._coverage.find(usage.account_id, usage.interval_start_ms)
        if version is None or version.contract != self.period.version.contract:
            return False
        line = self.line
        model = version.sold_model(usage.model, usage.served_model)
        price = self._gathering.rater(version).find_price(
            PriceKey(
                model=model,
                tier=line.tier,
                mode=line.mode,
                token_class=line.token_class,
                band=usage.band,
                at_ms=usage.interval_start_ms,
            )
        )
        if model != line.model or price is None:
            return False
        return self.key == _key(line, price=price, group=self._group(usage, version))

    def _group(self, usage: UsageEvidence, version: ContractVersion) -> str:
        if not version.by_account:
            return ""
        return group_of(
            self._tree, version, account_id=usage.account_id, at_ms=usage.interval_start_ms
        )


def _to_trace(
    usage: Sequence[UsageEvidence],
    pricing: _Pricing,
    *,
    cut_id: int,
    after_cut_id: int = 0,
    before: tuple[BilledLine, ...] = (),
) -> Trace:
    own = [it for it in usage if pricing.is_of_line(it)]
    if not own:
        return Trace(intervals=(), before=before, after_cut_id=after_cut_id, query=None)
    places: dict[str, set[int]] = {}
    for it in own:
        places.setdefault(it.account_id, set()).add(it.interval_start_ms)
    beside = len([it for it in usage if it.interval_start_ms in places.get(it.account_id, ())])
    line = pricing.line
    query = EvidenceQuery(
        places=places,
        model=pricing.model(PriceBy.REQUESTED),
        served_model=pricing.model(PriceBy.SERVED),
        tier=line.tier,
        mode=line.mode,
        token_class=line.token_class,
        # Where all of the key is of the line, nobody has to look how long prompts were.
        bands=None if beside == len(own) else {it.band for it in own},
        cut_id=cut_id,
        after_cut_id=after_cut_id,
    )
    return Trace(intervals=_add_up(own), before=before, after_cut_id=after_cut_id, query=query)


def _add_up(usage: Sequence[UsageEvidence]) -> tuple[IntervalShare, ...]:
    """Return usage by interval, account and band, in this order, whichever models were named."""
    counts: Counter[tuple[int, str, int]] = Counter()
    for it in usage:
        counts[it.interval_start_ms, it.account_id, it.band] += it.token_count
    return tuple(
        IntervalShare(
            account_id=account_id,
            interval_start_ms=start_ms,
            band=band,
            token_count=count,
        )
        for (start_ms, account_id, band), count in sorted(counts.items())
        if count
    )


def _key(line: InvoiceLine, *, price: Price, group: str) -> LineKey:
    return RatedLine(
        model=line.model,
        tier=line.tier,
        mode=line.mode,
        token_class=line.token_class,
        price=price,
        token_count=0,
        group=group,
    ).key
