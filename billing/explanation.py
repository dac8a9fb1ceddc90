"""What a line of an invoice was made of, down to the journal."""

from dataclasses import dataclass

from billing.difference import BilledLine
from billing.invoicing import ChargeLine, CreditLine, Invoice, InvoiceLine
from meter.evidence import SegmentEvidence


@dataclass(frozen=True, slots=True, kw_only=True)
class IntervalShare:
    """Tokens of the line that an account used in one interval, in one band of prompts."""

    account_id: str
    interval_start_ms: int
    band: int
    token_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A line with all that it was made of.

    Of a line of tokens each of the two lists, less `before`, adds up to the line's tokens: they
    have what came above the cut `after_cut_id`, which is 0 where they have all. `before` are lines
    of earlier documents that had billed some of it. Charges and credits are made of no usage.
    """

    invoice: Invoice
    line: InvoiceLine | ChargeLine | CreditLine
    intervals: tuple[IntervalShare, ...] = ()
    segments: tuple[SegmentEvidence, ...] = ()
    before: tuple[BilledLine, ...] = ()
    after_cut_id: int = 0

    @property
    def is_closed(self) -> bool:
        """Whether usage and journal both add up to what the line bills."""
        if not isinstance(self.line, InvoiceLine):
            return True
        tokens = self.line.token_count + sum(it.token_count for it in self.before)
        return (
            tokens
            == sum(it.token_count for it in self.intervals)
            == sum(it.token_count for it in self.segments)
        )
