"""Previews: what a period's invoice would be now, and of a closed one what has changed since."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from billing.contracts import BillingPeriod
from billing.drafting import Drafting
from billing.invoicing import Invoice
from billing.outstanding import key_of
from meter.consumption import Consumption


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a period comes to by all that is counted, as a draft.

    A closed period's is of all its usage, whatever was billed. `close_ms` is when it was closed,
    `number` its newest document ("": none), and `difference` what it comes to beyond what was
    billed for it, without taxes; None: it is open, and was not billed.
    """

    invoice: Invoice
    close_ms: int | None = None
    number: str = ""
    difference: Decimal | None = None


def preview(
    drafting: Drafting, periods: Sequence[BillingPeriod], *, consumption: Consumption
) -> list[Preview]:
    """Return the previews of periods, in their order."""
    keys = [key_of(it) for it in periods]
    numbers = drafting.ledger.numbers(keys)
    stored = drafting.ledger.closed_periods({it.contract for it in keys})
    close_ms = {
        (it.contract, it.span.start_ms): it.close_ms for each in stored.values() for it in each
    }
    is_done = [it in numbers or it in close_ms for it in keys]
    opened = [it for it, done in zip(periods, is_done, strict=True) if not done]
    done = [it for it, done in zip(periods, is_done, strict=True) if done]
    drafts = iter(drafting.draft_many(opened, cut_id=None, consumption=consumption))
    wholes = iter(drafting.draft_whole(done, cut_id=None, consumption=consumption))
    left = iter(drafting.differences(done, cut_id=None))
    return [
        Preview(
            invoice=next(wholes),
            close_ms=close_ms.get(key),
            number=numbers.get(key, ""),
            difference=next(left).invoice.net,
        )
        if is_closed
        else Preview(invoice=next(drafts).invoice)
        for key, is_closed in zip(keys, is_done, strict=True)
    ]
