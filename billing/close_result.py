"""What a close did: with each period, and in all. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from billing.contracts import BillingPeriod
from billing.holds import Hold
from billing.invoicing import Invoice
from billing.periods import Month
from meter.engine_drift import EngineDrift

# Periods that an answer tells of; the others are counted.
TOLD_MAX: Final = 1_000


class Outcome(StrEnum):
    """What a close did with a period; those that close it are kept with it by these values."""

    ISSUED = "issued"
    DRAFTED = "drafted"
    ALREADY_ISSUED = "already issued"
    NO_USAGE = "no usage"
    ZERO = "zero"
    CARRIED = "carried"
    HELD_UNPRICED = "held, usage without a price"
    HELD_DRIFT = "held, sums are not what is counted"
    HELD_ENGINES = "held, engines counted otherwise"
    HELD_FIRST = "held, it is the first invoice"
    HELD_JUMP = "held, far above the last one"
    HELD_EARLIER = "held, an earlier month is open"
    COLLECTING = "collecting"
    NOT_ENDED = "not ended"
    LATE_AFTER_FINAL = "usage came after the final invoice"


HELD: Final = {
    Hold.UNPRICED: Outcome.HELD_UNPRICED,
    Hold.DRIFT: Outcome.HELD_DRIFT,
    Hold.ENGINES: Outcome.HELD_ENGINES,
    Hold.FIRST: Outcome.HELD_FIRST,
    Hold.JUMP: Outcome.HELD_JUMP,
}
# Somebody has to do something, or nothing more comes of it by itself.
HELD_OUTCOMES: Final = frozenset({*HELD.values(), Outcome.HELD_EARLIER, Outcome.LATE_AFTER_FINAL})
# The period is not closed, or not all of it is billed.
OPEN_OUTCOMES: Final = HELD_OUTCOMES | {Outcome.COLLECTING, Outcome.NOT_ENDED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """What a close did with one period.

    `invoice` is what it issued or drafted, `number` that of an earlier close, `earlier` the month
    that has to be closed first, and `holds` every reason why it is held. `engine_drifts` are what
    engines counted otherwise, where it is held for that. `waits_for` are producers,
    as ACCOUNT/NAME, and `due_ms` is when it is closed whoever of them was not heard. `exception`
    says why it was closed although somebody was still waited for.
    """

    period: BillingPeriod
    outcome: Outcome
    invoice: Invoice | None = None
    number: str = ""
    earlier: Month | None = None
    holds: tuple[Hold, ...] = ()
    engine_drifts: tuple[EngineDrift, ...] = ()
    waits_for: tuple[str, ...] = ()
    due_ms: int | None = None
    exception: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseResult:
    """All that a close did; `uncovered` are accounts with usage that no contract bills.

    `month` is None where it was all that is due. `closed` are by contract and time, at most
    TOLD_MAX, those first that wait for somebody; `counts` are of all.
    """

    month: Month | None
    cut_id: int | None
    closed: tuple[Closed, ...]
    counts: Mapping[Outcome, int]
    uncovered: tuple[str, ...]


@dataclass(slots=True)
class Tally:
    """Counts what came of periods, and keeps those that are told, however many there are."""

    counts: Counter[Outcome] = field(default_factory=Counter)
    _waiting: list[Closed] = field(default_factory=list)
    _others: list[Closed] = field(default_factory=list)

    def add(self, closed: Iterable[Closed]) -> None:
        """Count some."""
        for it in closed:
            self.counts[it.outcome] += 1
            self._keep(it)

    def count(self, counts: Mapping[Outcome, int], told: Iterable[Closed]) -> None:
        """Add what another tally has counted, of which it tells these."""
        self.counts.update(counts)
        for it in told:
            self._keep(it)

    def total(self) -> int:
        """Return how many were counted."""
        return self.counts.total()

    def waiting(self) -> Sequence[Closed]:
        """Return those that are told and wait for somebody, by contract and time."""
        return sorted(self._waiting, key=_place)

    def is_full(self) -> bool:
        """Tell whether no more is told of those that wait for nobody."""
        return len(self._others) >= TOLD_MAX

    def told(self) -> Sequence[Closed]:
        """Return those that are told, by contract and time, those first that wait."""
        others = sorted(self._others, key=_place)
        return [*self.waiting(), *others][:TOLD_MAX]

    def _keep(self, it: Closed) -> None:
        kept = self._waiting if it.outcome in OPEN_OUTCOMES else self._others
        if len(kept) < TOLD_MAX:
            kept.append(it)


def _place(it: Closed) -> tuple[str, int]:
    return it.period.version.contract, it.period.span.start_ms
