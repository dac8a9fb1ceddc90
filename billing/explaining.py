"""From a line of a document back to what it was made of: price, factors, intervals, journal."""

from collections.abc import Iterator
from dataclasses import dataclass

from billing.errors import BillingReason
from billing.explanation import Explanation
from billing.invoicing import ChargeLine, CreditLine, Invoice, InvoiceLine
from billing.ports import InvoiceStore
from billing.tracing import Tracing
from meter.domain.errors import NotFound
from meter.evidence import EventEvidence, Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Explaining:
    """The use cases, over what they need."""

    invoices: InvoiceStore
    tracing: Tracing
    evidence: Evidence

    def explain_line(self, number: str, line_number: int) -> Explanation:
        """Return a line's explanation; raises NotFound (INVOICE_NOT_FOUND, LINE_NOT_FOUND)."""
        invoice = self.get_invoice(number)
        line = _get_line(invoice, line_number)
        if not isinstance(line, InvoiceLine):
            return Explanation(invoice=invoice, line=line)
        trace = self.tracing.trace(invoice, line)
        segments = () if trace.query is None else self.evidence.find_segments(trace.query)
        return Explanation(
            invoice=invoice,
            line=line,
            intervals=trace.intervals,
            segments=tuple(segments),
            before=trace.before,
            after_cut_id=trace.after_cut_id,
        )

    def line_events(self, number: str, line_number: int) -> Iterator[EventEvidence]:
        """Yield the events that a line was made of, in the order of the journal.

        There are none behind charges and credits. What earlier lines have billed of them is among
        them where the line is less than they are. Raises as `explain_line`, before the first.
        """
        invoice = self.get_invoice(number)
        line = _get_line(invoice, line_number)
        if not isinstance(line, InvoiceLine):
            return iter(())
        trace = self.tracing.trace(invoice, line)
        return iter(()) if trace.query is None else self.evidence.find_events(trace.query)

    def get_invoice(self, number: str) -> Invoice:
        """Return an invoice as it was issued; raises NotFound (INVOICE_NOT_FOUND)."""
        invoice = self.invoices.find(number)
        if invoice is None:
            raise NotFound(
                BillingReason.INVOICE_NOT_FOUND,
                f"There is no invoice {number}: `invoices list` names them.",
            )
        return invoice


def _get_line(invoice: Invoice, line_number: int) -> InvoiceLine | ChargeLine | CreditLine:
    lines: list[InvoiceLine | ChargeLine | CreditLine] = [*invoice.lines, *invoice.charges]
    lines += invoice.credits
    found = next((it for it in lines if it.line == line_number), None)
    if found is None:
        assert invoice.issue is not None, "only what was issued is explained"
        raise NotFound(
            BillingReason.LINE_NOT_FOUND,
            f"Invoice {invoice.issue.number} has lines 1 to {len(lines)}.",
        )
    return found
