"""The periods as they are kept: what the close of a month asks of its store."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from billing.invoicing import Invoice
from billing.issued import Doing, Settling
from billing.ledger import PeriodKey
from billing.periods import Month
from billing.ports import PeriodState, StoredPeriod, Terms
from meter.audit_log import Change


class TermsMoved(Exception):
    """The terms are others than those that were read: whoever asks has to read them again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodQuery:
    """Which periods: of a month, of contracts, in a state, that have ended at an instant (ms).

    None stands for all.
    """

    month: Month | None = None
    contracts: Collection[str] | None = None
    state: PeriodState | None = None
    ended_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a period is closed: what came of it, by which cut, and what that settles.

    `draft` is what is issued for it; None: nothing is.
    """

    period: StoredPeriod
    outcome: str
    exception: str
    cut_id: int
    draft: Invoice | None
    settled: tuple[Settling, ...]


class PeriodsHeld(Protocol):
    """Periods that one transaction holds: nobody else closes them or bills their contracts."""

    @property
    def periods(self) -> Sequence[StoredPeriod]:
        """Those that are held, as they are; closed ones too."""
        ...

    @property
    def approved(self) -> Mapping[PeriodKey, Collection[Decimal]]:
        """The totals for which somebody has let invoices go."""
        ...

    def approve(self, period: StoredPeriod, *, total: Decimal, reason: str) -> None:
        """Keep that somebody lets an invoice of this total go."""
        ...

    def end(self, endings: Sequence[Ending]) -> Sequence[Invoice | None]:
        """Close periods, at most once a transaction; return what was issued for each."""
        ...

    def reopen(self, period: StoredPeriod) -> None:
        """Open a closed period again; all of it has to be looked at."""
        ...

    def log(self, *changes: Change) -> None:
        """Write into the audit log."""
        ...


class PeriodStore(Protocol):
    """Keeps the periods of all contracts."""

    def lay_out(
        self, terms: Terms, *, now_ms: int, contracts: Collection[str] | None = None
    ) -> None:
        """Open the periods that have begun, of all contracts or some; raises TermsMoved."""
        ...

    def find(
        self, query: PeriodQuery, *, after: PeriodKey | None, limit: int
    ) -> Sequence[StoredPeriod]:
        """Return periods by contract and time, after one of them."""
        ...

    def counts(self, query: PeriodQuery) -> Mapping[PeriodState, int]:
        """Return how many periods there are in each state."""
        ...

    def open_months(self, *, ended_ms: int) -> Sequence[Month]:
        """Return the months, in order, with an open period that has ended at an instant."""
        ...

    def open_before(
        self, contracts: Collection[str], month: Month
    ) -> Mapping[str, Sequence[StoredPeriod]]:
        """Return the open periods of contracts of earlier months, by time."""
        ...

    def holding(
        self,
        keys: Collection[PeriodKey],
        *,
        terms_version: int,
        doing: Doing,
        skip_locked: bool = False,
    ) -> AbstractContextManager[PeriodsHeld]:
        """Hold periods for a transaction that is committed at the block's end.

        Waits for whoever bills the same contracts, or (`skip_locked`) leaves them out. Raises
        TermsMoved.
        """
        ...
