"""Who reported for whom, in Postgres: noted by counting, in its transaction, and asked by a close.

Rows are only ever added, each with the accounts that a producer was not known to report for. What
counting has written, and what it found of a producer when it met it, it remembers: the table is not
asked for what every batch says, and has an account again only where two servers noted it at once.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import Final

from sqlalchemy import Connection, Engine, text

from meter.counting.reports import Reports, month_of
from meter.domain.event import ProducerKey
from meter.domain.times import to_time
from meter.producers import Standing
from meter.reporters import Reporter
from meter.runtime.engine import store_faults

# Accounts come as one text, a line for each row: no account has a blank in its name, and the driver
# takes fifteen times as long over a list of long texts.
_NOTE: Final = text(
    """
    INSERT INTO producer_reports (key_account_id, producer, month, account_ids)
    SELECT key_account_id, producer, month, string_to_array(accounts, ' ')
    FROM ROWS FROM (
        unnest(CAST(:key_accounts AS text[]), CAST(:producers AS text[]), CAST(:months AS date[])),
        string_to_table(CAST(:accounts AS text), chr(10))
    ) AS t (key_account_id, producer, month, accounts)
    """
)
_NOTED: Final = text(
    """
    SELECT r.key_account_id, r.producer, r.account_ids
    FROM unnest(CAST(:key_accounts AS text[]), CAST(:producers AS text[]))
        AS t (key_account_id, producer)
    JOIN producer_reports r ON r.key_account_id = t.key_account_id COLLATE "C"
        AND r.producer = t.producer COLLATE "C" AND r.month = CAST(:month AS date)
    """
)
# Of a span that began before reports were noted: whoever was heard since its begin, and whose keys
# are of the account or of one that was ever above it.
_WAITED_FOR: Final = text(
    f"""
    WITH RECURSIVE silent AS (
        SELECT account_id AS key_account_id, producer, seen_time FROM producers
        WHERE state = {Standing.ACTIVE} AND NOT edge
            AND (seen_time IS NULL OR seen_time < :end_time OR announced_sequence > sequence)
    ), above (account_id, above_id) AS (
        SELECT a COLLATE "C", it COLLATE "C"
        FROM unnest(CAST(:accounts AS text[])) AS a, unnest(ARRAY[a, '']) AS it
        WHERE :start_time < (SELECT since FROM reports_known)
        UNION
        SELECT a.account_id, p.parent_id
        FROM above a JOIN account_parents p ON p.account_id = a.above_id
        WHERE p.parent_id IS NOT NULL
    )
    SELECT account_id COLLATE "C" AS account_id, r.key_account_id, r.producer
    FROM silent JOIN producer_reports r USING (key_account_id, producer),
        unnest(r.account_ids) AS account_id
    WHERE account_id = ANY(CAST(:accounts AS text[]))
        AND r.month BETWEEN CAST(:first_month AS date) AND CAST(:last_month AS date)
    UNION
    SELECT a.account_id, s.key_account_id, s.producer
    FROM above a JOIN silent s ON s.key_account_id = a.above_id
    WHERE s.seen_time IS NULL OR s.seen_time >= :start_time
    ORDER BY 1, 2, 3
    """  # noqa: S608
)
# An array: a statement takes 65,535 parameters, and one look at the journal may bring more.
_ACCOUNTS_OF: Final = text(
    "SELECT dimension_id, account_id FROM dimensions"
    " WHERE dimension_id = ANY(CAST(:dimensions AS bigint[]))"
)


class ReporterStore:
    """Answers for whom a close waits; safe to share between threads."""

    def __init__(self, engine: Engine) -> None:
        """Take the engine."""
        self._engine = engine

    def waited_for(
        self, account_ids: Collection[str], *, start_ms: int, end_ms: int
    ) -> Mapping[str, Sequence[Reporter]]:
        """Return by account the producers that may still have usage of `[start_ms, end_ms)`.

        One question for all accounts. Raises Unavailable.
        """
        values = {
            "accounts": sorted(account_ids),
            "first_month": month_of(start_ms),
            "last_month": month_of(end_ms - 1),
            "start_time": to_time(start_ms),
            "end_time": to_time(end_ms),
        }
        found: dict[str, list[Reporter]] = {}
        with store_faults(), self._engine.connect() as connection:
            for row in connection.execute(_WAITED_FOR, values):
                reporter = Reporter(row.key_account_id, row.producer)
                found.setdefault(row.account_id, []).append(reporter)
        return found


def note_reports(connection: Connection, reports: Sequence[Reports]) -> None:
    """Add who reported for whom."""
    if reports:
        connection.execute(
            _NOTE,
            {
                "key_accounts": [it.key_account for it in reports],
                "producers": [it.producer for it in reports],
                "months": [it.month for it in reports],
                "accounts": "\n".join(" ".join(it.account_ids) for it in reports),
            },
        )


def select_reports(
    connection: Connection, month: date, keys: Collection[ProducerKey]
) -> Iterator[Reports]:
    """Yield what is written of producers in a month, a row for each that was added."""
    values = {
        "key_accounts": [account_id for account_id, _ in keys],
        "producers": [producer for _, producer in keys],
        "month": month,
    }
    for row in connection.execute(_NOTED, values):
        yield Reports(row.key_account_id, row.producer, month, row.account_ids)


def select_accounts_of(connection: Connection, dimension_ids: Iterable[int]) -> Mapping[int, str]:
    """Return the account of each dimension."""
    rows = connection.execute(_ACCOUNTS_OF, {"dimensions": list(dimension_ids)})
    return {row.dimension_id: row.account_id for row in rows}
