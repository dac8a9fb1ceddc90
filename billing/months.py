"""Months as somebody looks at them: where each period stands, and what is done by hand."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from billing.actions import BillingAction
from billing.calendar import as_billed
from billing.close_result import Closed, Outcome
from billing.closing import Closing
from billing.collecting import Collecting, Stage, collecting_of
from billing.drafting import Drafting
from billing.errors import BillingReason
from billing.holds import APPROVABLE
from billing.issued import Doing
from billing.ledger import PeriodKey
from billing.period_book import PeriodQuery
from billing.periods import Month
from billing.ports import PeriodState, StoredPeriod
from billing.triage import Triage, key_of
from meter.audit_log import Change
from meter.domain.errors import NotFound, Refused

_PAGE_SIZE: Final = 1_000
_STATES: Final = {
    Stage.OPEN: PeriodState.OPEN,
    Stage.COLLECTING: PeriodState.OPEN,
    Stage.DUE: PeriodState.OPEN,
    Stage.CLOSED: PeriodState.CLOSED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodsWanted:
    """Which periods: of a month, of a contract, that stand there; None stands for all."""

    month: Month | None = None
    contract: str | None = None
    stage: Stage | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodTold:
    """A period, where it stands, how long it is collected, and its newest document ("": none)."""

    stored: StoredPeriod
    stage: Stage
    collecting: Collecting
    number: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodPage:
    """Periods by contract and time; `more` tells whether some come after them."""

    periods: Sequence[PeriodTold]
    more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Months:
    """The use cases, beside the close of a month."""

    closing: Closing

    def list_periods(
        self, wanted: PeriodsWanted, *, after: PeriodKey | None, limit: int
    ) -> PeriodPage:
        """Return periods by contract and time, after one of them."""
        if after is None:
            self.closing.lay_out(
                now_ms=self.closing.clock.now_ms(),
                contracts=None if wanted.contract is None else [wanted.contract],
            )
        found: list[PeriodTold] = []
        for page in self._pages(wanted, after=after):
            found += page
            if len(found) > limit:
                break
        return PeriodPage(periods=found[:limit], more=len(found) > limit)

    def counts(self, wanted: PeriodsWanted) -> Mapping[Stage, int]:
        """Return how many periods stand where."""
        counts: Counter[Stage] = Counter()
        for page in self._pages(wanted, after=None):
            counts.update(it.stage for it in page)
        return counts

    def approve(self, contract: str, month: Month, *, reason: str, key_id: str) -> Sequence[Closed]:
        """Let a contract's invoices of a month go that are held, and issue them.

        Raises NotFound (PERIOD_NOT_FOUND), Refused (NOT_HELD) where nothing is held, or what holds
        it has to be mended first.
        """
        now_ms = self.closing.clock.now_ms()
        stored = self._find(contract, month)
        found = self._triage().sort(stored, now_ms=now_ms, early_by=None)
        drafts = [it for ready in found.ready for it in self.closing.closer.draft([ready])]
        if not any(it.holds and APPROVABLE.issuperset(it.holds) for it in drafts):
            raise Refused(
                BillingReason.NOT_HELD,
                f"{contract} has no invoice of {month} that somebody may let go:"
                f" {_state([*found.decided, *drafts])}.",
            )
        cut_id = self.closing.take_cut(now_ms=now_ms)
        doing = Doing(key_id=key_id, now_ms=now_ms)
        closed = list(found.decided)
        # One after the other: each part of a month knows what the one before has billed.
        for ready in found.ready:
            closed += self.closing.closer.close(
                [ready], cut_id=cut_id, doing=doing, approval=reason
            )
        return sorted(closed, key=lambda it: it.period.span.start_ms)

    def reopen(
        self, contract: str, month: Month, *, reason: str, key_id: str
    ) -> Sequence[PeriodTold]:
        """Open periods again that were closed without a document; open ones stay as they are.

        Raises NotFound (PERIOD_NOT_FOUND), Refused (PERIOD_ISSUED).
        """
        doing = Doing(key_id=key_id, now_ms=self.closing.clock.now_ms())
        drafting = self.closing.lay_out(now_ms=doing.now_ms, contracts=[contract])
        keys = [key_of(it) for it in self._find(contract, month)]
        with self.closing.periods.holding(
            keys, terms_version=drafting.terms.version, doing=doing
        ) as held:
            numbers = self.closing.closer.ledger.numbers(keys)
            for number in numbers.values():
                raise Refused(
                    BillingReason.PERIOD_ISSUED,
                    f"{contract} was billed for {month} by {number}: credit or void that document.",
                )
            for it in held.periods:
                if it.state is PeriodState.CLOSED:
                    held.reopen(it)
                    held.log(
                        Change(
                            at_ms=doing.now_ms,
                            key_id=key_id,
                            action=BillingAction.PERIOD_REOPEN,
                            subject=contract,
                            detail={"month": str(month), "outcome": it.outcome, "reason": reason},
                        )
                    )
        return self._told(self._triage(), self._find(contract, month))

    def _find(self, contract: str, month: Month) -> Sequence[StoredPeriod]:
        now_ms = self.closing.clock.now_ms()
        drafting = self.closing.lay_out(now_ms=now_ms, contracts=[contract])
        query = PeriodQuery(month=month, contracts=[contract])
        stored = self.closing.periods.find(query, after=None, limit=_PAGE_SIZE)
        if not stored:
            raise NotFound(BillingReason.PERIOD_NOT_FOUND, _no_period(drafting, contract, month))
        return stored

    def _triage(self) -> Triage:
        return self.closing.closer.triage()

    def _pages(
        self, wanted: PeriodsWanted, *, after: PeriodKey | None
    ) -> Iterator[list[PeriodTold]]:
        """Yield all periods that are asked for, some at a time."""
        query = PeriodQuery(
            month=wanted.month,
            contracts=None if wanted.contract is None else [wanted.contract],
            state=None if wanted.stage is None else _STATES[wanted.stage],
        )
        triage = self._triage()
        while page := self.closing.periods.find(query, after=after, limit=_PAGE_SIZE):
            after = key_of(page[-1])
            yield [it for it in self._told(triage, page) if wanted.stage in (None, it.stage)]

    def _told(self, triage: Triage, page: Sequence[StoredPeriod]) -> list[PeriodTold]:
        now_ms = self.closing.clock.now_ms()
        ended = [it for it in page if it.state is PeriodState.OPEN and it.span.end_ms <= now_ms]
        waits = triage.waits_for(ended)
        numbers = triage.ledger.numbers([key_of(it) for it in page])
        return [
            PeriodTold(
                stored=it,
                stage=triage.stage(it, waits.get(key_of(it), ()), now_ms=now_ms),
                collecting=collecting_of(
                    it.span.end_ms,
                    as_billed(it, triage.drafting.terms.contracts).version.closing,
                ),
                number=numbers.get(key_of(it), ""),
            )
            for it in page
        ]


def _state(closed: Sequence[Closed]) -> str:
    """Return how the periods stand that are not held, or cannot be let go."""
    words = []
    for it in closed:
        is_ready = it.outcome is Outcome.DRAFTED
        words.append("it can be closed as it is" if is_ready else str(it.outcome))
    return ", ".join(dict.fromkeys(words))


def _no_period(drafting: Drafting, contract: str, month: Month) -> str:
    if not drafting.terms.contracts.versions(contract):
        return f"There is no contract {contract}: `contracts list` names them."
    return f"{contract} has no period of {month}: it was not in force, or the month has not begun."
