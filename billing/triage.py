"""Before anything is priced: which periods are closed now, and what the others wait for."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from billing.calendar import as_billed
from billing.close_result import Closed, Outcome
from billing.collecting import Stage, collecting_of
from billing.contracts import BillingPeriod
from billing.drafting import Drafting
from billing.ledger import Ledger, PeriodKey
from billing.period_book import PeriodStore
from billing.periods import Span
from billing.ports import PeriodState, StoredPeriod
from meter.reporters import Reporter, Reporters

# What an answer names; the others are waited for as well.
_WAITS_TOLD_MAX = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A period that is closed now, and why although somebody is still waited for ("": nobody)."""

    stored: StoredPeriod
    exception: str

    @property
    def key(self) -> PeriodKey:
        """The period's key."""
        return key_of(self.stored)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sorted:
    """Periods that are closed now, by contract and time, and what is decided of the others."""

    ready: tuple[Ready, ...]
    decided: tuple[Closed, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Triage:
    """What decides, by the terms of one moment."""

    drafting: Drafting
    periods: PeriodStore
    ledger: Ledger
    reporters: Reporters

    def sort(self, periods: Sequence[StoredPeriod], *, now_ms: int, early_by: str | None) -> Sorted:
        """Sort some periods of one month, by contract and time.

        `early_by` is who closes what has ended although usage may still come; None: nobody does.
        """
        closed = [it for it in periods if it.state is PeriodState.CLOSED]
        ended = [it for it in periods if _is_open(it) and it.span.end_ms <= now_ms]
        decided = [
            *self.told(closed),
            *(
                Closed(period=self._billed(it), outcome=Outcome.NOT_ENDED)
                for it in periods
                if _is_open(it) and it.span.end_ms > now_ms
            ),
        ]
        waits = self.waits_for(ended)
        candidates: list[tuple[StoredPeriod, str]] = []
        for it in ended:
            period, waits_for = self._billed(it), waits.get(key_of(it), ())
            collecting = collecting_of(it.span.end_ms, period.version.closing)
            why = collecting.exception(waits_for, now_ms=now_ms, early_by=early_by)
            if why is None:
                decided.append(
                    Closed(
                        period=period,
                        outcome=Outcome.COLLECTING,
                        waits_for=waits_for[:_WAITS_TOLD_MAX],
                        due_ms=collecting.due_ms,
                    )
                )
            else:
                candidates.append((it, why))
        held = self._held_by_earlier([it for it, _ in candidates])
        return Sorted(
            ready=tuple(
                Ready(stored=it, exception=why) for it, why in candidates if key_of(it) not in held
            ),
            decided=(*decided, *held.values()),
        )

    def told(self, closed: Sequence[StoredPeriod]) -> list[Closed]:
        """Return what had become of periods that are closed."""
        numbers = self.ledger.numbers([key_of(it) for it in closed]) if closed else {}
        return [_told(it, self._billed(it), numbers.get(key_of(it), "")) for it in closed]

    def waits_for(self, periods: Sequence[StoredPeriod]) -> Mapping[PeriodKey, tuple[str, ...]]:
        """Return which producers may still have usage of periods; nobody has: it is absent."""
        found: dict[PeriodKey, tuple[str, ...]] = {}
        for span, some in _by_span(periods).items():
            accounts = {key_of(it): self.drafting.accounts(self._billed(it)) for it in some}
            waits = self.reporters.waited_for(
                sorted(frozenset[str]().union(*accounts.values())),
                start_ms=span.start_ms,
                end_ms=span.end_ms,
            )
            for key, own in accounts.items():
                reporters = {each for it in own if it in waits for each in waits[it]}
                if reporters:
                    found[key] = tuple(_name(it) for it in sorted(reporters))
        return found

    def stage(self, period: StoredPeriod, waits_for: Sequence[str], *, now_ms: int) -> Stage:
        """Return where a period stands that waits for these producers."""
        if period.state is PeriodState.CLOSED:
            return Stage.CLOSED
        terms = self._billed(period).version.closing
        return collecting_of(period.span.end_ms, terms).stage(waits_for, now_ms=now_ms)

    def _held_by_earlier(self, periods: Sequence[StoredPeriod]) -> Mapping[PeriodKey, Closed]:
        """Return those whose contract has an earlier open month with usage."""
        if not periods:
            return {}
        # Parts of one month, under two versions, are closed together and hold nobody up.
        month = periods[0].month
        before = self.periods.open_before({it.contract for it in periods}, month)
        held = {}
        for it in periods:
            earlier = next(
                (
                    each.month
                    for each in before.get(it.contract, ())
                    if self.drafting.has_usage(self._billed(each))
                ),
                None,
            )
            if earlier is not None:
                held[key_of(it)] = Closed(
                    period=self._billed(it), outcome=Outcome.HELD_EARLIER, earlier=earlier
                )
        return held

    def _billed(self, stored: StoredPeriod) -> BillingPeriod:
        return as_billed(stored, self.drafting.terms.contracts)


def key_of(stored: StoredPeriod) -> PeriodKey:
    """Return a period's key."""
    return PeriodKey(stored.contract, stored.span.start_ms)


def _is_open(stored: StoredPeriod) -> bool:
    return stored.state is PeriodState.OPEN


def _told(stored: StoredPeriod, period: BillingPeriod, number: str) -> Closed:
    outcome = Outcome(stored.outcome)
    if outcome is Outcome.ISSUED:
        outcome = Outcome.ALREADY_ISSUED
    return Closed(period=period, outcome=outcome, number=number, exception=stored.exception)


def _by_span(periods: Iterable[StoredPeriod]) -> Mapping[Span, list[StoredPeriod]]:
    found: dict[Span, list[StoredPeriod]] = defaultdict(list)
    for it in periods:
        found[it.span].append(it)
    return found


def _name(reporter: Reporter) -> str:
    return f"{reporter.key_account}/{reporter.producer}"
