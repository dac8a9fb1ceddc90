"""A town in which documents are issued without a close: what comes after one is tested alone."""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Final

import sqlalchemy
from sqlalchemy import event

from billing.contracts import ContractVersion
from billing.crediting import Wanted
from billing.invoicing import Invoice
from billing.issued import Doing, IssuedDocument
from billing.store.issuing import issue_all
from billing.tax import Tax
from meter.domain.times import to_time
from tests.billing.invoices import INPUT, OUTPUT, VERSION, Sold, make_draft
from tests.billing.town import Town

STANDARD: Final = Tax(category="S", rate=Decimal(19))
NOVEMBER_MS: Final = 1_793_800_800_000
SOLD: Final = (
    Sold("kimi-k2.6", "high", INPUT, 2_000_000),
    Sold("kimi-k2.6", "high", OUTPUT, 1_000_000),
)
_SERIES: Final = itertools.count(1)
_PERIOD: Final = """
INSERT INTO billing_periods
VALUES ('{contract}', '{start}', '{end}', '{month}-01', '{start}', 'Europe/Berlin', '2026a',
        '{end}', 'closed', 'issued', '', '{end}', {cut_id}, {cut_id}, '\\x01')
ON CONFLICT DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class Client:
    """A contract of the town, with an invoice of 1.90 and 4.00, 19 % tax, 7.02 in all."""

    town: Town
    series: str

    @property
    def version(self) -> ContractVersion:
        """Return its contract."""
        return replace(VERSION, contract=self.series, series=self.series, tax=STANDARD)

    @property
    def invoice(self) -> str:
        """Return the number of its invoice."""
        return f"{self.series}-2026-000001"

    def numbers(self) -> list[str]:
        """Return the numbers of all its documents, in order."""
        return [str(number) for (number,) in self.ask("SELECT number", "ORDER BY 1")]

    def ask(self, selected: str, rest: str = "") -> list[tuple[object, ...]]:
        """Return what the view says of its documents."""
        return self.town.ask(f"{selected} FROM invoices WHERE contract = '{self.series}' {rest}")

    def note(self, serial: int) -> str:
        """Return the number of a credit note."""
        return f"{self.series}-C-2026-{serial:06}"

    def credit(
        self,
        wanted: Wanted,
        *,
        line: int = 2,
        credit_id: str = "c-1",
        number: str = "",
        reason: str = "slow",
    ) -> tuple[IssuedDocument, bool]:
        """Credit part of a line."""
        return self.town.billing.credit_notes.credit(
            number or self.invoice,
            line=line,
            wanted=wanted,
            reason=reason,
            credit_id=f"{self.series}-{credit_id}",
            doing=doing(self.town),
        )

    def void(self, number: str = "") -> tuple[IssuedDocument, IssuedDocument]:
        """Take an invoice back."""
        return self.town.billing.credit_notes.void(
            number or self.invoice, reason="wrong buyer", doing=doing(self.town)
        )


class Stop(Exception):
    """Stands for a process that is killed."""


def new_client(town: Town) -> Client:
    """Return a contract that nobody else has, with its invoice."""
    client = Client(town, f"S{next(_SERIES)}")
    assert issue(town, an_invoice(SOLD, version=client.version)) == client.invoice
    return client


def doing(town: Town) -> Doing:
    """Return that somebody with an API key does something now."""
    return Doing(key_id="key_1", now_ms=town.clock.now)


def issue(town: Town, invoice: Invoice) -> str:
    """Issue a draft for a period that is closed; return its number."""
    cut_id = town.host.cuts.take_cut(now_ms=town.clock.now).cut_id
    start, end = (to_time(it) for it in (invoice.span.start_ms, invoice.span.end_ms))
    statement = _PERIOD.format(
        contract=invoice.version.contract,
        start=start.isoformat(),
        end=end.isoformat(),
        month=invoice.month,
        cut_id=cut_id,
    )
    with town.lent.begin() as connection:
        connection.execute(sqlalchemy.text(statement))
        (issued,) = issue_all(
            connection,
            [replace(invoice, cut_id=cut_id)],
            terms_version=7,
            now_ms=town.clock.now,
        )
    assert issued.issue is not None
    return issued.issue.number


def an_invoice(sold: Iterable[Sold], *, version: ContractVersion = VERSION) -> Invoice:
    """Return the draft of an invoice of October."""
    return make_draft(sold, version=version)


def statements(town: Town, work: Callable[[], object], *, stop_at: int | None) -> int:
    """Do something, stopped before its n-th statement or commit; return how many there were."""
    seen = 0

    def count(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == stop_at:
            raise Stop

    moments = ("before_cursor_execute", "commit")
    for engine, moment in itertools.product(town.engines, moments):
        event.listen(engine, moment, count)
    try:
        work()
    except Stop:
        pass
    finally:
        for engine, moment in itertools.product(town.engines, moments):
            event.remove(engine, moment, count)
    return seen
