"""From a line of an invoice back to what it was made of: price, factors, intervals, journal."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from billing.contracts import BillingPeriod
from billing.drafting import Drafting
from billing.errors import BillingReason
from billing.explanation import Explanation, IntervalShare
from billing.invoicing import Invoice, InvoiceLine
from billing.ports import InvoiceStore, TermsStore
from billing.rating import Rater, key_of
from meter.domain.account import AccountTree
from meter.domain.errors import NotFound
from meter.evidence import Evidence, EvidenceQuery, SegmentEvidence
from meter.usage import UsageFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Explaining:
    """The use case, over what it needs."""

    terms: TermsStore
    invoices: InvoiceStore
    facts: UsageFacts
    evidence: Evidence
    tree: Callable[[], AccountTree]

    def explain_line(self, number: str, line_number: int) -> Explanation:
        """Return a line's explanation; raises NotFound (INVOICE_NOT_FOUND, LINE_NOT_FOUND)."""
        invoice = self.get_invoice(number)
        line = next((it for it in invoice.lines if it.line == line_number), None)
        if line is None:
            raise NotFound(
                BillingReason.LINE_NOT_FOUND,
                f"Invoice {number} has lines 1 to {len(invoice.lines)}.",
            )
        intervals = self._intervals(invoice, line)
        return Explanation(
            invoice=invoice,
            line=line,
            intervals=intervals,
            segments=tuple(self._segments(invoice, line, intervals)),
        )

    def get_invoice(self, number: str) -> Invoice:
        """Return an invoice as it was issued; raises NotFound (INVOICE_NOT_FOUND)."""
        invoice = self.invoices.find(number)
        if invoice is None:
            raise NotFound(
                BillingReason.INVOICE_NOT_FOUND,
                f"There is no invoice {number}: `invoices list` names them.",
            )
        return invoice

    def _intervals(self, invoice: Invoice, line: InvoiceLine) -> tuple[IntervalShare, ...]:
        """Return the usage that was priced to this line, found by pricing it again."""
        drafting = Drafting(
            self.terms.load(), self.tree(), self.facts, is_sandbox=invoice.is_sandbox
        )
        rater = Rater(invoice.version, drafting.terms.books)
        shares = []
        for fact in drafting.facts(_period(invoice), cut_id=invoice.cut_id):
            model = invoice.version.sold_model(fact.model, fact.served_model)
            count = fact.tokens.get(line.token_class, 0)
            is_of_line = (model, fact.tier, fact.mode) == (line.model, line.tier, line.mode)
            if not count or not is_of_line:
                continue
            key = key_of(fact, model=model, token_class=line.token_class)
            if rater.find_price(key) == line.price:
                shares.append(
                    IntervalShare(
                        account_id=fact.account_id,
                        interval_start_ms=fact.interval_start_ms,
                        band=fact.band,
                        token_count=count,
                    )
                )
        shares.sort(key=lambda it: (it.interval_start_ms, it.account_id, it.band))
        return tuple(shares)

    def _segments(
        self, invoice: Invoice, line: InvoiceLine, intervals: Sequence[IntervalShare]
    ) -> Sequence[SegmentEvidence]:
        assert invoice.cut_id is not None
        places: dict[str, set[int]] = {}
        for share in intervals:
            places.setdefault(share.account_id, set()).add(share.interval_start_ms)
        if not places:
            return ()
        is_requested = invoice.version.sold_model("requested", "served") == "requested"
        return self.evidence.find_segments(
            EvidenceQuery(
                places=places,
                model=line.model if is_requested else "",
                served_model="" if is_requested else line.model,
                tier=line.tier,
                mode=line.mode,
                token_class=line.token_class,
                bands={share.band for share in intervals},
                cut_id=invoice.cut_id,
            )
        )


def _period(invoice: Invoice) -> BillingPeriod:
    return BillingPeriod(version=invoice.version, month=invoice.month, span=invoice.span)
