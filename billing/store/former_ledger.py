"""What was billed when documents were issued: the ledger as it stood before each of them."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import Engine, Row, text

from billing.charging import BilledCharge
from billing.difference import BilledLine
from billing.ledger import PeriodKey
from billing.ports import PeriodState, StoredPeriod
from billing.price_book import Price
from billing.replay import Moment
from billing.store.ledger import LedgerStore, asked, key_of_row, to_billed
from billing.store.period_rows import to_period
from meter.domain.times import to_ms
from meter.runtime.engine import store_faults

# What a document was worth before another one: not what a note took back by then.
_STOOD: Final = """
    AND i.issue_order < p.before
    AND NOT EXISTS (
        SELECT 1 FROM invoice_voids v JOIN issued_invoices c ON c.number = v.credit_note
        WHERE v.number = i.number AND c.issue_order < p.before
    )
"""
_ASKED: Final = """
    unnest(CAST(:contracts AS text[]), CAST(:starts AS timestamptz[]), CAST(:befores AS bigint[]))
        AS p (contract, start, before)
"""
_BILLED: Final = text(f"""
    SELECT p.contract, p.start, l.number, l.line, l.group_account, l.model, l.tier, l.mode,
           l.token_class, l.above, l.window_name, l.book, l.price_from, l.unit_price, l.quantity,
           l.billed
    FROM {_ASKED}
    JOIN issued_invoices i ON i.contract = p.contract COLLATE "C" AND i.period_start >= p.start
    JOIN issued_lines l ON l.number = i.number
    WHERE (
        (l.kind = 'usage' AND i.period_start = p.start)
        OR (l.kind = 'adjustment' AND l.origin_start = p.start)
    )
    {_STOOD}
    ORDER BY i.issue_order, l.line
""")  # noqa: S608  own parts
_CHARGES: Final = text(f"""
    SELECT i.contract, l.charge, coalesce(l.origin_start, i.period_start) AS start
    FROM {_ASKED}
    JOIN issued_invoices i ON i.contract = p.contract COLLATE "C" AND i.period_start >= p.start
    JOIN issued_lines l ON l.number = i.number
    WHERE l.kind = 'charge'
    {_STOOD}
""")  # noqa: S608  own parts
_REPLACEABLE: Final = text(f"""
    SELECT DISTINCT ON (p.contract, p.start) p.contract, p.start, i.number
    FROM {_ASKED}
    JOIN issued_invoices i ON i.contract = p.contract COLLATE "C" AND i.period_start = p.start
    JOIN invoice_voids v ON v.number = i.number
    JOIN issued_invoices c ON c.number = v.credit_note AND c.issue_order < p.before
    WHERE NOT EXISTS (
        SELECT 1 FROM issued_invoices r WHERE r.replaces = i.number AND r.issue_order < p.before
    )
    ORDER BY p.contract, p.start, i.issue_order DESC
""")  # noqa: S608  own parts
_NUMBERS: Final = text(f"""
    SELECT DISTINCT ON (p.contract, p.start) p.contract, p.start, i.number
    FROM {_ASKED}
    JOIN issued_invoices i ON i.contract = p.contract COLLATE "C" AND i.period_start = p.start
    WHERE i.refers_to IS NULL
    {_STOOD}
    ORDER BY p.contract, p.start, i.issue_order DESC
""")  # noqa: S608  own parts
_PERIODS: Final = text("""
    SELECT b.* FROM unnest(CAST(:contracts AS text[]), CAST(:starts AS timestamptz[]))
        AS p (contract, start)
    JOIN billing_periods b ON b.contract = p.contract COLLATE "C" AND b.period_start = p.start
    ORDER BY b.contract, b.period_start
""")


class FormerLedger:
    """The ledger before some documents, at most one of each contract, which `move` tells.

    Of closed periods it knows those that the documents name: what they did not bear is borne by
    later ones.
    """

    def __init__(self, engine: Engine, *, ledger: LedgerStore) -> None:
        """Take the engine, and the ledger of now."""
        self._engine = engine
        self._ledger = ledger
        self._moments: Mapping[str, Moment] = {}

    def move(self, moments: Mapping[str, Moment]) -> None:
        """Go before these documents, by their contracts."""
        self._moments = moments

    def closed_periods(self, contracts: Collection[str]) -> Mapping[str, Sequence[StoredPeriod]]:
        """Return the closed periods that the documents name, as not settled."""
        keys = [
            PeriodKey(contract, start_ms)
            for contract in contracts
            for start_ms in self._moments[contract].named_ms
        ]
        found: dict[str, list[StoredPeriod]] = {}
        for row in self._ask(_PERIODS, asked(keys)):
            period = to_period(row)
            found.setdefault(period.contract, []).append(
                replace(period, state=PeriodState.CLOSED, settled_cut_id=None, settled_terms=None)
            )
        return found

    def billed(
        self, periods: Collection[PeriodKey], *, before: str = ""
    ) -> Mapping[PeriodKey, Sequence[BilledLine]]:
        """Return the lines for periods, of documents that were there and stood."""
        assert not before, "it stands before documents already"
        found: dict[PeriodKey, list[BilledLine]] = {}
        for row in self._ask(_BILLED, self._asked(periods)):
            found.setdefault(key_of_row(row), []).append(to_billed(row))
        return found

    def billed_charges(
        self, contracts: Collection[str], *, since_ms: int
    ) -> Mapping[str, Sequence[BilledCharge]]:
        """Return the charges of documents that were there and stood."""
        found: dict[str, list[BilledCharge]] = {}
        keys = [PeriodKey(it, since_ms) for it in contracts]
        for row in self._ask(_CHARGES, self._asked(keys)):
            charge = BilledCharge(row.charge, to_ms(row.start))
            found.setdefault(row.contract, []).append(charge)
        return found

    def prices(self, lines: Collection[tuple[str, int]]) -> Mapping[tuple[str, int], Price]:
        """Return the prices of lines by number and line, as their documents have them."""
        return self._ledger.prices(lines)

    def replaceable(self, periods: Collection[PeriodKey]) -> Mapping[PeriodKey, str]:
        """Return for each period the newest document that was void by then, and not replaced."""
        return {
            key_of_row(row): row.number for row in self._ask(_REPLACEABLE, self._asked(periods))
        }

    def numbers(self, periods: Collection[PeriodKey]) -> Mapping[PeriodKey, str]:
        """Return for each period the newest document of its own that stood."""
        return {key_of_row(row): row.number for row in self._ask(_NUMBERS, self._asked(periods))}

    def last_nets(self, periods: Collection[PeriodKey]) -> Mapping[PeriodKey, Decimal]:
        """Return nothing: whether a document was held does not stand in it."""
        del periods
        return {}

    def _asked(self, periods: Iterable[PeriodKey]) -> dict[str, Any]:
        keys = list(periods)
        befores = [self._moments[it.contract].before for it in keys]
        return {**asked(keys), "befores": befores}

    def _ask(self, question: Any, values: Mapping[str, Any]) -> Sequence[Row[Any]]:  # noqa: ANN401
        with store_faults(), self._engine.connect() as connection:
            return connection.execute(question, values).all()
