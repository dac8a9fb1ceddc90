"""Stories lived by the product on a real Postgres, through its own use cases and stores."""

from collections.abc import Sequence
from itertools import count

from billing.close_result import Closed, Outcome
from billing.closing import CloseOrder
from billing.crediting import Wanted
from billing.invoicing import Invoice
from billing.issued import Doing
from billing.periods import month_of, read_month
from billing.ports import Terms
from meter.domain.errors import MeterError
from tests.acceptance.oracle_bills import Event, Period
from tests.acceptance.stories import Story
from tests.billing.town import Town, TownEvent

_KEY = "key_1"


class Lived:
    """A town in which a story happens."""

    def __init__(self, story: Story, town: Town) -> None:
        self._town = town
        self._ids: dict[str, int] = {}
        self._credits = count(1)
        for account_id, account in story.tree.items():
            town.add_account(account_id, handle=account.handle, moves=account.parents)

    def set_book(self, text: str) -> None:
        """Agree on a version of a book; nothing is corrected yet."""
        self._town.billing.terms.add_book(
            text, key_id=_KEY, now_ms=self._town.clock.now, judge=_allow
        )

    def set_contract(self, text: str) -> None:
        """Agree on a version of a contract, or on another text of it."""
        self._town.billing.terms.set_contract(
            text, key_id=_KEY, now_ms=self._town.clock.now, judge=_allow
        )

    def count(self, event: Event, *, sign: int) -> None:
        """Record an event, or void it."""
        if sign > 0:
            number = self._ids[event.request_id] = len(self._ids) + 1
            self._town.record(TownEvent(**event._asdict(), event_id=number))
        else:
            self._town.correct(self._ids[event.request_id])

    def close(self, month: str) -> list[tuple[Period, str, Invoice | None]]:
        """Close a month; return what came of each period, by contract and time."""
        result = self._town.billing.closing.close(
            CloseOrder(month=read_month(month), early=True, key_id=_KEY)
        )
        found = [_told(it) for it in result.closed if it.outcome is not Outcome.LATE_AFTER_FINAL]
        return sorted(found, key=lambda it: it[0])

    def correct(self, periods: Sequence[Period], *, write_off: bool) -> list[Invoice]:
        """Issue what all periods of a contract's month have left over."""
        terms = self._town.billing.terms.load()
        first = periods[0]
        version = next(
            it for it in terms.contracts.versions(first.contract) if it.holds_at(first.start_ms)
        )
        month = month_of(first.start_ms, version.zone)
        found = self._town.billing.correcting.correct(
            first.contract, month, reason="a test", key_id=_KEY, write_off=write_off
        )
        return list(found)

    def credit(self, number: str, line: int, *, wanted: Wanted) -> Invoice | MeterError:
        """Credit a line, or return why that is refused."""
        try:
            note, _ = self._town.billing.credit_notes.credit(
                number,
                line=line,
                wanted=wanted,
                reason="a test",
                credit_id=f"credit-{next(self._credits)}",
                doing=self._doing(),
            )
        except MeterError as refusal:
            return refusal
        return note.invoice

    def void(self, number: str) -> Invoice:
        """Take a document back; return the credit note."""
        _, note = self._town.billing.credit_notes.void(number, reason="a test", doing=self._doing())
        return note.invoice

    def invoice(self, number: str) -> Invoice:
        """Return a document."""
        found = self._town.billing.documents.find(number)
        assert found is not None
        return found.invoice

    def _doing(self) -> Doing:
        return Doing(key_id=_KEY, now_ms=self._town.clock.now)


def _allow(_before: Terms, _after: Terms) -> None:
    """Take terms in whatever they change."""


def _told(closed: Closed) -> tuple[Period, str, Invoice | None]:
    outcome = closed.outcome.value
    if closed.outcome is Outcome.HELD_EARLIER:
        outcome = "held earlier"
    elif closed.holds:
        outcome = "held"
    issued = closed.invoice if closed.outcome is Outcome.ISSUED else None
    period = closed.period
    return Period(period.version.contract, period.span.start_ms), outcome, issued
