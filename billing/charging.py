"""Which charges a period bears: those of every month once a month, others on their date. Pure."""

from collections.abc import Collection
from datetime import UTC, date, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from billing.charges import Charge
from billing.contracts import BillingPeriod
from billing.periods import Span, month_of
from meter.domain.times import to_ms


class BilledCharge(NamedTuple):
    """A charge that a document has billed, and the begin of the period that it was for."""

    charge_id: str
    start_ms: int


def due_charges(period: BillingPeriod, billed: Collection[BilledCharge]) -> list[Charge]:
    """Return the charges that a period bears, in the order of its contract.

    `billed` are the contract's that documents, or drafts of earlier periods, bear already. One of
    every month is borne whole, by the first period of the month that finds it not billed.
    """
    if not period.is_in_force:
        return []
    zone = period.version.zone
    of_month = {it.charge_id for it in billed if month_of(it.start_ms, zone) == period.month}
    ever = {it.charge_id for it in billed}
    return [
        charge
        for charge in period.version.charges
        if (
            charge.charge_id not in of_month
            if charge.on is None
            else charge.charge_id not in ever and _falls_in(charge.on, period.span, zone)
        )
    ]


def _falls_in(on: date, span: Span, zone: ZoneInfo) -> bool:
    midnight = datetime(on.year, on.month, on.day, tzinfo=zone)
    return span.holds(to_ms(midnight.astimezone(UTC)))
