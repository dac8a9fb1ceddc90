"""Folds usage into `period_totals`, so that a month is one row of a key and not a thousand.

In every transaction `period_totals` is the sum of the usage that lies before `folded_until`: who
counts adds what is late to both, and who folds waits until nobody is counting, for a moment.
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import Final

from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from meter.audit_log import Change
from meter.domain.cell import cell_at
from meter.domain.errors import Reason, Unavailable
from meter.domain.interval import INTERVAL_MS
from meter.domain.times import to_ms, to_time
from meter.domain.tokens import FinishClass, TokenClass
from meter.runtime.engine import refusals, store_faults
from meter.store.audit_log import ChangeLog

# What usage is billed by, and what else `period_totals` adds up.
SUMMED: Final = (*(token_class.name.lower() for token_class in TokenClass), "request_count")
TOTALLED: Final = (*SUMMED, "unfinished_count", "delivered_output_count", "estimated_count")
# Where folding begins: as the migration has it.
FIRST_MS: Final = 946_684_800_000
_INTERVAL: Final = timedelta(milliseconds=INTERVAL_MS)
_KEYS: Final = "account_id, cell_start, sku_id, band"
_HOUR_MS: Final = 3_600_000
# Usage is folded by hours, when they have been over for so long: most of what is late is there.
_SETTLE_MS: Final = 5 * 60_000
# Rows that one step folds, about: whoever counts waits for less than a second.
_STEP_ROWS: Final = 20_000
# A lock of the table and not of its row: it writes nothing, and it is given in the order of asking.
# Counting holds it, for its last statement; folding excludes it.
_HOLD: Final = text("LOCK TABLE totals_fold IN ROW SHARE MODE")
_EXCLUDE: Final = text("LOCK TABLE totals_fold IN EXCLUSIVE MODE")
# Whoever counts next waits behind the one who folds: not for long, if a server hangs meanwhile.
_PATIENCE: Final = text("SET LOCAL lock_timeout = '2s'")
_FOLDED_UNTIL: Final = text("SELECT folded_until FROM totals_fold")
_MERGED: Final = ", ".join(f"{name} = t.{name} + EXCLUDED.{name}" for name in TOTALLED)
_MERGE: Final = (
    f" ON CONFLICT ({_KEYS}) DO UPDATE SET {_MERGED},"
    " last_cut_id = greatest(t.last_cut_id, EXCLUDED.last_cut_id)"
)
_INTO: Final = f"INSERT INTO period_totals AS t ({_KEYS}, {', '.join(TOTALLED)}, last_cut_id)"
_FIRST: Final = text(
    "SELECT min(interval_start) FROM usage WHERE interval_start >= :start AND interval_start < :end"
)
_FULL: Final = text(
    "SELECT interval_start FROM usage WHERE interval_start >= :start AND interval_start < :end"
    " ORDER BY interval_start OFFSET :rows LIMIT 1"
)
_FORGET: Final = text("DELETE FROM period_totals")
_ADVANCE: Final = text("UPDATE totals_fold SET folded_until = :end")


class FoldStore:
    """Folds usage, step by step; servers that do so at once take turns."""

    def __init__(self, engine: Engine) -> None:
        """Take the engine."""
        self._engine = engine

    def fold_step(self, *, now_ms: int) -> bool:
        """Fold what is due, or a part of it; tell whether there may be more.

        Raises Unavailable, also where somebody has been counting for seconds; StoreRefusal.
        """
        due_ms = (now_ms - _SETTLE_MS) // _HOUR_MS * _HOUR_MS
        with refusals("to fold usage"), store_faults(), self._engine.begin() as connection:
            if folded_until_ms(connection) >= due_ms:
                return False
            _exclude(connection)
            # Read again: another server may have been faster.
            begin_ms = folded_until_ms(connection)
            end_ms = due_ms
            if begin_ms < due_ms:
                end_ms = _fold(connection, begin_ms=begin_ms, due_ms=due_ms)
        return end_ms < due_ms

    def folded_until_ms(self) -> int:
        """Return until when (ms) usage is folded."""
        with store_faults(), self._engine.connect() as connection:
            return folded_until_ms(connection)

    def forget(self, change: Change) -> None:
        """Begin anew: nothing is folded. `change` is what the audit log says of it.

        Raises as `fold_step` does.
        """
        with refusals("to forget totals"), store_faults(), self._engine.begin() as connection:
            _exclude(connection)
            connection.execute(_FORGET)
            connection.execute(_ADVANCE, {"end": to_time(FIRST_MS)})
            ChangeLog().write(connection, change)


def fold_late(
    connection: Connection, *, starts_ms: Iterable[int], classes: Iterable[TokenClass]
) -> None:
    """Add what lies in `incoming_usage`, and in intervals that are folded, to `period_totals`.

    `starts_ms` are those that occur in it, which has a column for each of these token classes. To
    be called last: from here to its end the transaction keeps others from folding.
    """
    connection.execute(_HOLD)
    until_ms = folded_until_ms(connection)
    late = sorted({it for it in starts_ms if it < until_ms})
    if not late:
        return
    absent = {it.name.lower() for it in set(TokenClass).difference(classes)}
    added = ", ".join("0" if name in absent else f"sum({of_usage(name, 'i')})" for name in TOTALLED)
    statement = text(
        f"{_INTO} SELECT i.account_id, l.cell_start, i.sku_id, i.band, {added},"  # noqa: S608  own names
        " (SELECT coalesce(max(cut_id), 0) + 1 FROM cuts)"
        " FROM unnest(CAST(:starts AS timestamptz[]), CAST(:cells AS timestamptz[]))"
        " AS l (interval_start, cell_start)"
        " JOIN incoming_usage i USING (interval_start)"
        f" GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4 {_MERGE}"
    )
    values = {
        "starts": [to_time(it) for it in late],
        "cells": [to_time(cell_at(it).start_ms) for it in late],
    }
    connection.execute(statement, values)


def of_usage(name: str, alias: str) -> str:
    """Return what of a row of usage, or of what is to be added to it, a total adds up."""
    if name == "unfinished_count":
        delivered = FinishClass.DELIVERED.value
        return f"CASE WHEN {alias}.finish_class = {delivered} THEN 0 ELSE {alias}.request_count END"
    return f"{alias}.{name}"


def folded_until_ms(connection: Connection) -> int:
    """Return until when (ms) usage is in `period_totals`, as this transaction sees it."""
    return to_ms(connection.execute(_FOLDED_UNTIL).scalar_one())


def _exclude(connection: Connection) -> None:
    connection.execute(_PATIENCE)
    try:
        connection.execute(_EXCLUDE)
    except OperationalError as error:
        if not isinstance(error.orig, LockNotAvailable):
            raise
        raise Unavailable(
            Reason.STORE_UNAVAILABLE, "Usage has been counted for seconds on end. Try again."
        ) from error


def _fold(connection: Connection, *, begin_ms: int, due_ms: int) -> int:
    """Fold a span from the begin on, and return its end (ms): it lies within one cell."""
    first = connection.execute(
        _FIRST, {"start": to_time(begin_ms), "end": to_time(due_ms)}
    ).scalar()
    if first is None:
        connection.execute(_ADVANCE, {"end": to_time(due_ms)})
        return due_ms
    cell = cell_at(to_ms(first))
    end = to_time(min(cell.end_ms, due_ms))
    full = connection.execute(_FULL, {"start": first, "end": end, "rows": _STEP_ROWS}).scalar()
    if full is not None:
        end = max(full, first + _INTERVAL)
    values = {"cell": to_time(cell.start_ms), "start": first, "end": end}
    added = ", ".join(f"sum({of_usage(name, 'u')})" for name in TOTALLED)
    statement = text(
        f"{_INTO} SELECT account_id, :cell, sku_id, band, {added}, max(cut_id)"  # noqa: S608  own names
        " FROM usage u WHERE interval_start >= :start AND interval_start < :end"
        f" GROUP BY account_id, sku_id, band ORDER BY account_id, sku_id, band {_MERGE}"
    )
    connection.execute(statement, values)
    connection.execute(_ADVANCE, {"end": end})
    return to_ms(end)
