"""What documents have billed, asked of their rows."""

from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import Engine, Row, select, text

from billing.charging import BilledCharge
from billing.difference import BilledLine
from billing.documents.canonical import from_json
from billing.ledger import PeriodKey
from billing.ports import PeriodState, StoredPeriod
from billing.price_book import MODE_NAMES, Price
from billing.rating import LineKey
from billing.store.contract_locks import BY_INDEX
from billing.store.period_rows import instant, to_period
from billing.store.tables import billing_periods, issued_invoices
from meter.domain.times import to_ms, to_time
from meter.domain.tokens import TokenClass
from meter.runtime.engine import store_faults

_MODES: Final = {name: mode for mode, name in MODE_NAMES.items()}
# What a document is worth as long as nothing takes it back; with `:before`, as it was then.
_STANDS: Final = """
    AND (CAST(:before AS bigint) IS NULL OR i.issue_order < :before)
    AND NOT EXISTS (
        SELECT 1 FROM invoice_voids v JOIN issued_invoices c ON c.number = v.credit_note
        WHERE v.number = i.number
          AND (CAST(:before AS bigint) IS NULL OR c.issue_order < :before)
        OFFSET 0
    )
"""
_ASKED: Final = """
    unnest(CAST(:contracts AS text[]), CAST(:starts AS timestamptz[])) AS p (contract, start)
"""
# OFFSET 0 has each contract's documents, and each document's lines, read by their index: a plan
# that was made while there were few would walk through all of them for each batch.
_LINES: Final = """
    CROSS JOIN LATERAL (SELECT * FROM issued_lines n WHERE n.number = i.number OFFSET 0) l
"""
# Adjustments are borne by documents of later periods, or of the period itself.
_BILLED: Final = f"""
    SELECT p.contract, p.start, l.number, l.line, l.group_account, l.model, l.tier, l.mode,
           l.token_class, l.above, l.window_name, l.book, l.price_from, l.unit_price, l.quantity,
           l.billed
    FROM {_ASKED}
    CROSS JOIN LATERAL (
        SELECT number, period_start, issue_order FROM issued_invoices i
        WHERE i.contract = p.contract COLLATE "C" AND i.period_start >= p.start {_STANDS} OFFSET 0
    ) i
    {_LINES}
    WHERE (l.kind = 'usage' AND i.period_start = p.start)
       OR (l.kind = 'adjustment' AND l.origin_start = p.start)
    ORDER BY i.issue_order, l.line
"""  # noqa: S608  own parts
_CHARGES: Final = f"""
    SELECT i.contract, l.charge, coalesce(l.origin_start, i.period_start) AS start
    FROM unnest(CAST(:contracts AS text[])) AS p (contract)
    CROSS JOIN LATERAL (
        SELECT contract, number, period_start FROM issued_invoices i
        WHERE i.contract = p.contract COLLATE "C" AND i.period_start >= :since {_STANDS} OFFSET 0
    ) i
    {_LINES}
    WHERE l.kind = 'charge'
"""  # noqa: S608  own parts
_REPLACEABLE: Final = f"""
    SELECT DISTINCT ON (p.contract, p.start) p.contract, p.start, i.number
    FROM {_ASKED}
    CROSS JOIN LATERAL (
        SELECT number, issue_order FROM issued_invoices i
        WHERE i.contract = p.contract COLLATE "C" AND i.period_start = p.start OFFSET 0
    ) i
    JOIN invoice_voids v ON v.number = i.number
    WHERE NOT EXISTS (SELECT 1 FROM issued_invoices r WHERE r.replaces = i.number OFFSET 0)
    ORDER BY p.contract, p.start, i.issue_order DESC
"""  # noqa: S608  own parts
_NUMBERS: Final = f"""
    SELECT DISTINCT ON (p.contract, p.start) p.contract, p.start, i.number
    FROM {_ASKED}
    CROSS JOIN LATERAL (
        SELECT number, issue_order FROM issued_invoices i
        WHERE i.contract = p.contract COLLATE "C" AND i.period_start = p.start
          AND i.refers_to IS NULL AND i.kind <> 'write_off' {_STANDS} OFFSET 0
    ) i
    ORDER BY p.contract, p.start, i.issue_order DESC
"""  # noqa: S608  own parts
# A month in parts is compared with a month in parts, whole with whole.
_LAST_NETS: Final = f"""
    SELECT p.contract, p.start, last.net
    FROM {_ASKED}
    CROSS JOIN LATERAL (
        SELECT month FROM billing_periods o
        WHERE o.contract = p.contract COLLATE "C" AND o.period_start = p.start OFFSET 0
    ) own
    CROSS JOIN LATERAL (
        SELECT sum(i.total - i.tax) AS net
        FROM billing_periods b
        JOIN issued_invoices i ON i.contract = b.contract AND i.period_start = b.period_start
        WHERE b.contract = p.contract COLLATE "C" AND b.period_start < p.start
          AND b.month < own.month AND i.kind = 'invoice' {_STANDS}
        GROUP BY b.month ORDER BY b.month DESC LIMIT 1
    ) AS last
"""  # noqa: S608  own parts


class LedgerStore:
    """Reads what was billed; many periods by each question."""

    def __init__(self, engine: Engine) -> None:
        """Take the engine."""
        self._engine = engine

    def closed_periods(self, contracts: Collection[str]) -> Mapping[str, Sequence[StoredPeriod]]:
        """Return the closed periods of contracts, by time."""
        statement = (
            select(billing_periods)
            .where(
                billing_periods.c.contract.in_(sorted(contracts)),
                billing_periods.c.state == PeriodState.CLOSED.value,
            )
            .order_by(billing_periods.c.contract, billing_periods.c.period_start)
        )
        found: dict[str, list[StoredPeriod]] = {}
        with store_faults(), self._engine.connect() as connection:
            for row in connection.execute(statement):
                found.setdefault(row.contract, []).append(to_period(row))
        return found

    def billed(
        self, periods: Collection[PeriodKey], *, before: str = ""
    ) -> Mapping[PeriodKey, Sequence[BilledLine]]:
        """Return the lines for periods, of all documents that are not void, as they were issued.

        With the number of a document, what was there when it was issued.
        """
        found: dict[PeriodKey, list[BilledLine]] = {}
        order = self._order(before) if before else None
        for row in self._ask(_BILLED, asked(periods), before=order):
            found.setdefault(key_of_row(row), []).append(to_billed(row))
        return found

    def billed_charges(
        self, contracts: Collection[str], *, since_ms: int
    ) -> Mapping[str, Sequence[BilledCharge]]:
        """Return the charges that documents bear which are not void, for periods from then on."""
        found: dict[str, list[BilledCharge]] = {}
        values = {"contracts": sorted(contracts), "since": to_time(since_ms)}
        for row in self._ask(_CHARGES, values):
            charge = BilledCharge(row.charge, to_ms(row.start))
            found.setdefault(row.contract, []).append(charge)
        return found

    def prices(self, lines: Collection[tuple[str, int]]) -> Mapping[tuple[str, int], Price]:
        """Return the prices of lines by number and line, as their documents have them."""
        statement = select(issued_invoices.c.number, issued_invoices.c.document).where(
            issued_invoices.c.number.in_(sorted({number for number, _ in lines}))
        )
        with store_faults(), self._engine.connect() as connection:
            rows = connection.execute(statement).all()
        return {
            (row.number, line.line): line.price
            for row in rows
            for line in from_json(bytes(row.document)).lines
            if (row.number, line.line) in lines
        }

    def replaceable(self, periods: Collection[PeriodKey]) -> Mapping[PeriodKey, str]:
        """Return for each period the newest void document of it that none replaces, if any."""
        return {key_of_row(row): row.number for row in self._ask(_REPLACEABLE, asked(periods))}

    def numbers(self, periods: Collection[PeriodKey]) -> Mapping[PeriodKey, str]:
        """Return for each period the newest document of its own that is not void, if any."""
        return {key_of_row(row): row.number for row in self._ask(_NUMBERS, asked(periods))}

    def last_nets(self, periods: Collection[PeriodKey]) -> Mapping[PeriodKey, Decimal]:
        """Return what the contract's month before each period came to, without taxes."""
        return {key_of_row(row): row.net for row in self._ask(_LAST_NETS, asked(periods))}

    def _order(self, number: str) -> int:
        statement = select(issued_invoices.c.issue_order).where(issued_invoices.c.number == number)
        with store_faults(), self._engine.connect() as connection:
            return int(connection.execute(statement).scalar_one())

    def _ask(
        self, question: str, values: Mapping[str, Any], *, before: int | None = None
    ) -> Sequence[Row[Any]]:
        statement = text(question)
        with store_faults(), self._engine.connect() as connection:
            connection.execute(BY_INDEX)
            return connection.execute(statement, {**values, "before": before}).all()


def asked(periods: Collection[PeriodKey]) -> dict[str, Any]:
    """Return periods as a question's `contracts` and `starts`."""
    return {
        "contracts": [it.contract for it in periods],
        "starts": [instant(it.start_ms) for it in periods],
    }


def key_of_row(row: Row[Any]) -> PeriodKey:
    """Return the period that a row with `contract` and `start` is for."""
    return PeriodKey(row.contract, to_ms(row.start))


def to_billed(row: Row[Any]) -> BilledLine:
    """Return the billed line that a row of lines keeps."""
    return BilledLine(
        key=LineKey(
            group=row.group_account,
            model=row.model,
            tier=row.tier,
            mode=_MODES[row.mode],
            token_class=TokenClass[row.token_class.upper()],
            above=row.above,
            window=row.window_name,
            book=row.book,
            version_start_ms=to_ms(row.price_from),
            unit_price=row.unit_price,
        ),
        number=row.number,
        line=row.line,
        token_count=int(row.quantity),
        billed=row.billed,
    )
