"""Rows of periods: read as values, and added."""

from collections.abc import Iterable, Sequence
from datetime import date
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, text

from billing.periods import Month, Span
from billing.ports import PeriodState, StoredPeriod
from meter.domain.times import to_iso, to_ms, to_time

_ADD = """
INSERT INTO billing_periods (contract, period_start, period_end, month, version_start, zone, tzdata,
                             open_time, state)
SELECT *, CAST(:now AS timestamptz), 'open' FROM unnest(
    CAST(:contracts AS text[]), CAST(:starts AS timestamptz[]), CAST(:ends AS timestamptz[]),
    CAST(:months AS date[]), CAST(:versions AS timestamptz[]), CAST(:zones AS text[]),
    CAST(:tzdata AS text[]))
ON CONFLICT DO NOTHING
"""
_CHANGE = """
UPDATE billing_periods p
SET period_end = c.period_end, month = c.month, version_start = c.version_start, zone = c.zone,
    tzdata = c.tzdata
FROM unnest(
    CAST(:contracts AS text[]), CAST(:starts AS timestamptz[]), CAST(:ends AS timestamptz[]),
    CAST(:months AS date[]), CAST(:versions AS timestamptz[]), CAST(:zones AS text[]),
    CAST(:tzdata AS text[])
) AS c (contract, period_start, period_end, month, version_start, zone, tzdata)
WHERE p.contract = c.contract COLLATE "C" AND p.period_start = c.period_start AND p.state = 'open'
"""
# Rows of one statement.
_ROWS_MAX = 5_000
_INSTANTS_MAX = 1_024


def to_period(row: Any) -> StoredPeriod:  # noqa: ANN401
    """Return the period that a row of `billing_periods` keeps."""
    return StoredPeriod(
        contract=row.contract,
        month=Month(row.month.year, row.month.month),
        span=Span(start_ms=to_ms(row.period_start), end_ms=to_ms(row.period_end)),
        version_start_ms=to_ms(row.version_start),
        zone=row.zone,
        tzdata=row.tzdata,
        state=PeriodState(row.state),
        outcome=row.outcome,
        exception=row.exception,
        close_ms=None if row.close_time is None else to_ms(row.close_time),
        cut_id=row.cut_id,
        settled_cut_id=row.settled_cut_id,
        settled_terms=None if row.settled_terms is None else bytes(row.settled_terms),
    )


@lru_cache(_INSTANTS_MAX)
def instant(at_ms: int) -> str:
    """Return an instant for an array of them: most periods of a batch have theirs in common.

    A text without a blank is handed on as it is, where a time is made up anew each time.
    """
    return to_iso(at_ms)


def first_day(month: Month) -> date:
    """Return how a month is kept: as its first day."""
    return date(month.year, month.number, 1)


def add_periods(connection: Connection, periods: Sequence[StoredPeriod], *, now_ms: int) -> None:
    """Add periods that open; what is there already stays, whoever has added it."""
    for values in _values(periods):
        connection.execute(text(_ADD), {**values, "now": to_time(now_ms)})


def change_periods(connection: Connection, periods: Sequence[StoredPeriod]) -> None:
    """Keep other times and versions of open periods."""
    for values in _values(periods):
        connection.execute(text(_CHANGE), values)


def _values(periods: Sequence[StoredPeriod]) -> Iterable[dict[str, list[object]]]:
    # In order: two that open the same periods wait for each other, and never in a circle.
    ordered = sorted(periods, key=lambda it: (it.contract, it.span.start_ms))
    for first in range(0, len(ordered), _ROWS_MAX):
        some = ordered[first : first + _ROWS_MAX]
        yield {
            "contracts": [it.contract for it in some],
            "starts": [instant(it.span.start_ms) for it in some],
            "ends": [instant(it.span.end_ms) for it in some],
            "months": [f"{it.month}-01" for it in some],
            "versions": [instant(it.version_start_ms) for it in some],
            "zones": [it.zone for it in some],
            "tzdata": [it.tzdata for it in some],
        }
