"""What was billed already: the question that each draft asks of the documents that are not void."""

from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple, Protocol

from billing.charging import BilledCharge
from billing.difference import BilledLine
from billing.ports import StoredPeriod
from billing.price_book import Price


class PeriodKey(NamedTuple):
    """Which period: its contract, and when it begins (ms)."""

    contract: str
    start_ms: int


class Ledger(Protocol):
    """Reads what documents have billed; all of it by contract and begin of the period."""

    def closed_periods(self, contracts: Collection[str]) -> Mapping[str, Sequence[StoredPeriod]]:
        """Return the closed periods of contracts, by time."""
        ...

    def billed(
        self, periods: Collection[PeriodKey], *, before: str = ""
    ) -> Mapping[PeriodKey, Sequence[BilledLine]]:
        """Return the lines for periods, of all documents that are not void, as they were issued.

        They are the lines of usage of a period's own documents, and the adjustments that name it;
        credits take off money and no tokens, and are not there. With the number of a document,
        what was there when it was issued.
        """
        ...

    def billed_charges(
        self, contracts: Collection[str], *, since_ms: int
    ) -> Mapping[str, Sequence[BilledCharge]]:
        """Return the charges that documents bear which are not void, for periods from then on."""
        ...

    def prices(self, lines: Collection[tuple[str, int]]) -> Mapping[tuple[str, int], Price]:
        """Return the prices of lines by number and line, as their documents have them."""
        ...

    def replaceable(self, periods: Collection[PeriodKey]) -> Mapping[PeriodKey, str]:
        """Return for each period the newest void document of it that none replaces, if any."""
        ...

    def numbers(self, periods: Collection[PeriodKey]) -> Mapping[PeriodKey, str]:
        """Return for each period the newest document of its own that is not void, if any."""
        ...

    def last_nets(self, periods: Collection[PeriodKey]) -> Mapping[PeriodKey, Decimal]:
        """Return what the invoices of the contract's last month before each came to, without taxes.

        There is none for a period that has no invoice before it that is not void.
        """
        ...
