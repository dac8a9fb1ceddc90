"""What a line of an invoice was made of, down to the journal."""

from dataclasses import dataclass

from billing.invoicing import Invoice, InvoiceLine
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
    """A line with all that it was made of; each of the two lists adds up to the line's tokens."""

    invoice: Invoice
    line: InvoiceLine
    intervals: tuple[IntervalShare, ...]
    segments: tuple[SegmentEvidence, ...]

    @property
    def is_closed(self) -> bool:
        """Whether usage and journal both add up to what the line bills."""
        tokens = self.line.token_count
        return (
            tokens
            == sum(it.token_count for it in self.intervals)
            == sum(it.token_count for it in self.segments)
        )
