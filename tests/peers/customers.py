"""Customers of the town and clients of the meter that the tests share, each with its account."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

from billing.close_result import Closed
from billing.invoicing import Invoice, InvoiceLine
from billing.periods import read_month
from tests.billing.town import Town, TownEvent, book_toml, contract_toml
from tests.wire.session import Session
from tokenworks.client import Meter
from tokenworks.client.connection import Interceptor

OCTOBER: Final = "2026-10"
WAIT_SECONDS: Final = 20


def ms(text: str) -> int:
    """Return an instant that is written in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


NOW_MS: Final = ms("2026-11-05")


class Customer:
    """Whose usage is billed in months of UTC; everything costs 3 dollars a million unless told.

    The name is the account's id, the book's and the contract's, and in capitals the series.
    """

    def __init__(
        self, town: Town, name: str, *, prices: Sequence[str] = (), zone: str = "UTC"
    ) -> None:
        self.town = town
        self.name = name
        self._zone = zone
        town.add_account(name)
        self.import_book(*prices)
        self.set_contract()

    def import_book(self, *prices: str, start: str = "2026-01-01T00:00:00") -> None:
        """Take in a version of the customer's book."""
        self.town.import_book(book_toml(*prices, book=self.name, start=start))

    def set_contract(
        self, *, start: str = "2026-10-01T00:00:00", until: str = "", extra: str = ""
    ) -> None:
        """Take in a version of the customer's contract."""
        self.town.set_contract(
            contract_toml(
                self.name,
                covers=self.name,
                start=start,
                until=until,
                zone=self._zone,
                book=self.name,
                series=self.name.upper(),
                extra=extra,
            )
        )

    def in_town(self, town: Town) -> Self:
        """Return the same customer of another town, which has its account and terms."""
        other = copy(self)
        other.town = town
        return other

    def event(self, at: str = "2026-10-10", *, tier: str = "high", **classes: int) -> TownEvent:
        """Return an event of llama-4 that ended then."""
        return TownEvent(account=self.name, end_ms=ms(at), tier=tier, classes=classes)

    def use(self, at: str = "2026-10-10", **classes: int) -> None:
        """Record and count one event."""
        self.town.record(TownEvent(account=self.name, end_ms=ms(at), classes=classes))

    def preview(self, month: str = OCTOBER) -> Invoice:
        """Return the one preview of a month."""
        (preview,) = self.town.billing.closing.preview(self.name, read_month(month))
        return preview

    def close(self, month: str = OCTOBER) -> tuple[Closed, ...]:
        """Close a month; return what became of its periods."""
        closing = self.town.billing.closing
        return closing.close_month(read_month(month), account_id=self.name, early=True).closed

    def invoice(self, month: str = OCTOBER) -> Invoice:
        """Close a month; return its one invoice."""
        (closed,) = self.close(month)
        assert closed.invoice is not None
        return closed.invoice

    def number(self, serial: int) -> str:
        """Return the number of an invoice in the customer's series."""
        return f"{self.name.upper()}-2026-{serial:06}"


def new_client(
    session: Session,
    account: str,
    *,
    target: str = "",
    spool: Path | None = None,
    interceptors: Sequence[Interceptor] = (),
) -> Meter:
    """Return a client that reports for an account under its name, to another target if told."""
    return Meter(
        target or session.meter.target,
        api_key=session.meter.api_key,
        producer=account,
        account=account,
        model="m",
        tier="high",
        flush_interval_seconds=0.01,
        spool=spool,
        interceptors=interceptors,
    )


@contextmanager
def client_of(
    session: Session, account: str, *, interceptors: Sequence[Interceptor] = ()
) -> Iterator[Meter]:
    """A client for a new account; when the block ends all is durable and nothing set aside."""
    session.create_account(account)
    with new_client(session, account, interceptors=interceptors) as client:
        yield client
        assert client.flush(WAIT_SECONDS)
        assert client.statistics.set_aside == 0


def quantity(lines: Sequence[InvoiceLine]) -> int:
    """Return the tokens of all lines."""
    return sum(line.token_count for line in lines)


def tokens_of(session: Session, account: str) -> dict[int, int]:
    """Return an account's tokens by class, over all tiers, once all is counted."""
    found: dict[int, int] = {}
    for (name, _, token_class), count in session.counted().items():
        if name == account:
            found[token_class] = found.get(token_class, 0) + count
    return found
