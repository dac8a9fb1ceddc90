"""Issued documents as they are kept, with all that a replay needs to make them again."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Engine, Row, text

from billing.crediting import TakenOff, Wanted
from billing.documents.canonical import from_json
from billing.invoicing import Invoice, number_of
from billing.periods import Month, Span
from billing.proving import Asked, Credited, KeptDocument, RowFault
from billing.store.issuing import invoice_row, line_rows
from meter.domain.times import to_ms
from meter.runtime.engine import SNAPSHOT, store_faults

# Documents that are held at a time.
_PAGE: Final = 500
# Periods begin at most so long before a month does in UTC, or after it has ended.
_MONTH: Final = """
    i.period_start >= CAST(:first AS timestamptz) - interval '1 day'
    AND i.period_start < CAST(:first AS timestamptz) + interval '1 month 1 day'
    AND date_trunc('month', i.period_start AT TIME ZONE i.zone) = CAST(:first AS timestamp)
"""
_SPAN: Final = text(f"""
    SELECT least(min(i.period_start), min(o.start)) AS start, max(i.period_end) AS until
    FROM issued_invoices i
    CROSS JOIN LATERAL (
        SELECT min(origin_start) AS start FROM issued_lines WHERE number = i.number
    ) o
    WHERE {_MONTH}
""")  # noqa: S608  own parts
# Numbers that were given and are not there: each series has all of them, from 1.
_MISSING: Final = text("""
    SELECT n.series, n.year, s.serial
    FROM invoice_numbers n CROSS JOIN LATERAL generate_series(1, n.last) AS s (serial)
    WHERE NOT EXISTS (
        SELECT 1 FROM issued_invoices i
        WHERE i.series = n.series AND i.year = n.year AND i.serial = s.serial
    )
    ORDER BY 1, 2, 3 LIMIT :limit
""")
_DOCUMENTS: Final = text(f"""
    SELECT i.*, v.number AS voids, v.reason AS void_reason, c.number AS credits,
           c.line AS credited_line, c.token_count AS credited_tokens, c.amount AS credited_amount,
           c.reason AS credit_reason
    FROM issued_invoices i
    LEFT JOIN invoice_voids v ON v.credit_note = i.number
    LEFT JOIN invoice_credits c ON c.credit_note = i.number
    WHERE {_MONTH} AND i.issue_order > :after
    ORDER BY i.issue_order LIMIT :limit
""")  # noqa: S608  own parts
_LINES: Final = text("""
    SELECT * FROM issued_lines WHERE number = ANY(CAST(:numbers AS text[])) ORDER BY number, line
""")
# Credit notes of before another one, in order.
_TAKEN: Final = text("""
    SELECT l.origin_line, l.quantity, l.billed
    FROM issued_lines l JOIN issued_invoices i USING (number)
    WHERE l.kind = 'credit' AND l.origin_number = :number AND i.issue_order < :before
    ORDER BY i.issue_order, l.line
""")
# What a row has that its document does not say.
_NOT_SAID: Final = frozenset({"terms_version", "issue_order", "serial"})
# What reading a document raises that is not what was written.
_UNREADABLE: Final = (ValueError, KeyError, TypeError, IndexError, AttributeError, ArithmeticError)


class ProofStore:
    """Reads documents and their rows, some hundred at a time."""

    def __init__(self, engine: Engine) -> None:
        """Take the engine."""
        self._engine = engine

    def find_span(self, month: Month) -> Span | None:
        """Return the time that a month's documents bill, that of adjustments with it."""
        with store_faults(), self._engine.connect() as connection:
            row = connection.execute(_SPAN, _first(month)).one()
        if row.until is None:
            return None
        return Span(start_ms=to_ms(row.start), end_ms=to_ms(row.until))

    def missing_numbers(self) -> Sequence[str]:
        """Return the numbers whose documents are gone, of any month; some hundred at most."""
        with store_faults(), self._engine.connect() as connection:
            rows = connection.execute(_MISSING, {"limit": _PAGE})
            return [number_of(row.series, row.year, row.serial) for row in rows]

    def documents(self, month: Month) -> Iterator[KeptDocument]:
        """Yield the documents of a month's periods, in the order of their issue."""
        after = 0
        while True:
            values = {**_first(month), "after": after, "limit": _PAGE}
            with store_faults(), self._engine.connect() as connection:
                connection.execute(SNAPSHOT)
                rows = connection.execute(_DOCUMENTS, values).all()
                numbers = [it.number for it in rows]
                lines: dict[str, list[Mapping[str, Any]]] = {it: [] for it in numbers}
                for line in connection.execute(_LINES, {"numbers": numbers}).mappings():
                    lines[line["number"]].append(dict(line))
            if not rows:
                return
            yield from (_to_kept(row, lines[row.number]) for row in rows)
            after = rows[-1].issue_order

    def find(self, number: str) -> Invoice | None:
        """Return a document as it was issued."""
        statement = text("SELECT document FROM issued_invoices WHERE number = :number")
        with store_faults(), self._engine.connect() as connection:
            document = connection.execute(statement, {"number": number}).scalar()
        return None if document is None else from_json(bytes(document))

    def taken_off(self, number: str, *, before: int) -> Sequence[TakenOff]:
        """Return what credit notes had taken off a document when one of this order was issued."""
        with store_faults(), self._engine.connect() as connection:
            rows = connection.execute(_TAKEN, {"number": number, "before": before})
            return [
                TakenOff(
                    line=row.origin_line,
                    token_count=int(row.quantity) or None,
                    amount=-row.billed,
                )
                for row in rows
            ]

    def terms_version(self, number: str) -> int | None:
        """Return the version of the terms that a document was made by; None where none is kept."""
        statement = text("SELECT terms_version FROM issued_invoices WHERE number = :number")
        with store_faults(), self._engine.connect() as connection:
            return connection.execute(statement, {"number": number}).scalar() or None


def _first(month: Month) -> dict[str, str]:
    return {"first": f"{month}-01"}


def _to_kept(row: Row[Any], lines: Sequence[Mapping[str, Any]]) -> KeptDocument:
    document = bytes(row.document)
    faults: list[RowFault] = []
    invoice: Invoice | None = None
    try:
        invoice = from_json(document)
        faults += _compare(invoice, row, lines, document=document)
    except _UNREADABLE as error:
        faults.append(RowFault(place="document", kept="", said=f"cannot be read: {error}"))
    credited = None
    if row.credits is not None:
        wanted = Wanted(token_count=row.credited_tokens, amount=row.credited_amount)
        asked = Asked(line=row.credited_line, wanted=wanted)
        credited = Credited(number=row.credits, asked=asked, reason=row.credit_reason)
    elif row.voids is not None:
        credited = Credited(number=row.voids, asked=None, reason=row.void_reason)
    return KeptDocument(
        number=row.number,
        contract=row.contract,
        version_start_ms=to_ms(row.version_start),
        serial=row.serial,
        cut_id=row.cut_id,
        terms_version=row.terms_version or None,
        issue_order=row.issue_order,
        document=document,
        invoice=invoice,
        credited=credited,
        faults=tuple(faults),
    )


def _compare(
    invoice: Invoice, row: Row[Any], lines: Sequence[Mapping[str, Any]], *, document: bytes
) -> Iterator[RowFault]:
    """Yield where rows are not what their document says."""
    if hashlib.sha256(document).digest() != bytes(row.sha256):
        yield RowFault(place="sha256", kept=bytes(row.sha256).hex(), said="another")
    said = invoice_row(invoice, serial=row.serial, terms_version=row.terms_version)
    # The document's bytes are compared with those of the replay.
    kept = row._mapping  # noqa: SLF001  SQLAlchemy's own name for it
    names = said.keys() - _NOT_SAID - {"document", "sha256"}
    yield from _differences("", {name: kept[name] for name in names}, said)
    said_lines = {it["line"]: it for it in line_rows(invoice)}
    kept_lines = {it["line"]: it for it in lines}
    for place in sorted(said_lines.keys() | kept_lines.keys()):
        if place not in kept_lines:
            yield RowFault(place=f"line {place}", kept="no row", said="a line")
        elif place not in said_lines:
            yield RowFault(place=f"line {place}", kept="a row", said="no line")
        else:
            kept_line, said_line = kept_lines[place], said_lines[place]
            own = {name: kept_line[name] for name in said_line}
            yield from _differences(f"line {place}, ", own, said_line)


def _differences(
    place: str, kept: Mapping[str, Any], said: Mapping[str, Any]
) -> Iterator[RowFault]:
    for name in sorted(kept):
        if kept[name] != said[name]:
            yield RowFault(place=f"{place}{name}", kept=str(kept[name]), said=str(said[name]))
