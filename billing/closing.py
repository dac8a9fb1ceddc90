"""Closing months, and their preview: the same calculation, with and without a cut and an issue.

An invoice is a function of the usage at or below a cut and of the terms. Whatever stops a close,
the next one goes on where it stopped, and what was issued is never issued again.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, TypeVar

from billing.calendar import as_billed
from billing.close_result import Closed, CloseResult, Outcome, Tally
from billing.closers import Chunk, Closers, MakeClosers, OwnProcess
from billing.contracts import BillingPeriod
from billing.drafting import UTC_ZONE, Drafting
from billing.errors import BillingReason
from billing.invoicing import Invoice
from billing.issued import Doing
from billing.ledger import PeriodKey
from billing.period_book import PeriodQuery, PeriodStore, TermsMoved
from billing.period_closing import PeriodClosing
from billing.periods import Month, month_of, month_span
from billing.ports import PeriodState, StoredPeriod
from billing.previewing import Preview, preview
from billing.triage import Ready, key_of
from meter.audit_log import JOB
from meter.domain.clock import Clock
from meter.domain.errors import Reason, Refused, Unavailable
from meter.domain.interval import interval_start_ms
from meter.usage import Cuts, UsageFacts

# Counting follows recording by seconds; after an outage it has more to do than a close waits for.
_COUNTED_SECONDS_MAX: Final = 30.0
_POLL_SECONDS: Final = 0.1
# Periods of one look, and of one transaction: what is held in memory, and done again after a kill.
_PAGE_SIZE: Final = 1_000
_CHUNK_SIZE: Final = 500
_LOOKS_MAX: Final = 10
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseOrder:
    """What is to be closed: a month, or all that is due (None), of all contracts or an account's.

    `early` closes what has ended although usage may still come. `key_id` is who orders it. So many
    processes share the work as `job_count` says, where there can be more than this one.
    """

    month: Month | None
    account_id: str | None = None
    dry_run: bool = False
    early: bool = False
    key_id: str = JOB
    job_count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """The use cases, over what they need; `pause` waits for some seconds.

    `make_closers` makes processes; None: all is done in this one.
    """

    closer: PeriodClosing
    cuts: Cuts
    clock: Clock
    pause: Callable[[float], object]
    make_closers: MakeClosers | None = None

    @property
    def periods(self) -> PeriodStore:
        """Where periods are kept."""
        return self.closer.periods

    def previous_month(self) -> Month:
        """Return the last month that has ended in UTC."""
        return month_of(self.clock.now_ms(), UTC_ZONE).previous()

    def close_month(
        self,
        month: Month,
        *,
        account_id: str | None = None,
        dry_run: bool = False,
        early: bool = False,
    ) -> CloseResult:
        """Close a month as a job on the database does; see `close`."""
        return self.close(
            CloseOrder(month=month, account_id=account_id, dry_run=dry_run, early=early)
        )

    def close(
        self, order: CloseOrder, *, on_progress: Callable[[int], None] = lambda _: None
    ) -> CloseResult:
        """Issue the invoices of periods that are due, and say what the others wait for.

        Doing it again issues nothing. `on_progress` is told how many periods are looked after.
        Raises Refused (MONTH_NOT_ENDED) for a month that has not ended under any contract,
        NotFound (ACCOUNT_NOT_COVERED), Unavailable when usage is not counted in time.
        """
        now_ms = self.clock.now_ms()
        with self._closers(order) as closers:
            drafting = self.lay_out(now_ms=now_ms)
            contracts = _contracts(drafting, order)
            if order.month is not None:
                self._check_ended(order.month, contracts, now_ms=now_ms)
            # Also what only is looked at, and not closed, is of all that was recorded.
            wait_until_counted(self.closer.facts, clock=self.clock, pause=self.pause)
            month = order.month
            months = self.periods.open_months(ended_ms=now_ms) if month is None else [month]
            run = _Run(self, order, closers=closers, now_ms=now_ms, on_progress=on_progress)
            for month in months:
                run.close(month, contracts=contracts)
        run.tally.add(_late_after_final(drafting, now_ms=now_ms, contracts=contracts))
        uncovered = {it for month in months for it in drafting.uncovered(month)}
        return CloseResult(
            month=order.month,
            cut_id=run.cut_id,
            closed=tuple(run.tally.told()),
            counts=dict(run.tally.counts),
            uncovered=tuple(sorted(uncovered)) if order.account_id is None else (),
        )

    def preview(self, account_id: str, month: Month | None) -> Sequence[Invoice]:
        """Return what the invoices of a month, or of this one, would be; see `previews`."""
        return [it.invoice for it in self.previews(account_id, month)]

    def previews(self, account_id: str, month: Month | None) -> Sequence[Preview]:
        """Return what the invoices of a month, or of this one, would be by all that is counted.

        There is one for each version of a contract that bills the account in that month. Raises
        NotFound (ACCOUNT_NOT_COVERED).
        """
        drafting, now_ms = self.closer.look(), self.clock.now_ms()
        if month is None:
            billing = drafting.coverage.find(account_id, interval_start_ms(now_ms))
            month = month_of(now_ms, UTC_ZONE if billing is None else billing.zone)
        expected = drafting.periods(month, account_id=account_id)
        contracts = {it.version.contract for it in expected}
        drafting = self.lay_out(now_ms=now_ms, contracts=contracts)
        query = PeriodQuery(month=month, contracts=contracts)
        stored = self.periods.find(query, after=None, limit=_PAGE_SIZE)
        begun = [as_billed(it, drafting.terms.contracts) for it in stored]
        periods = _with_expected(begun, expected)
        return preview(drafting, periods, consumption=self.closer.consumption)

    def lay_out(self, *, now_ms: int, contracts: Collection[str] | None = None) -> Drafting:
        """Open the periods that have begun; return what drafts by the terms they were laid out by.

        Raises Unavailable.
        """
        for _ in range(_LOOKS_MAX):
            drafting = self.closer.look()
            try:
                self.periods.lay_out(drafting.terms, now_ms=now_ms, contracts=contracts)
            except TermsMoved:
                continue
            return drafting
        raise Unavailable(
            Reason.STORE_UNAVAILABLE, "The terms change all the time; close the month again."
        )

    def take_cut(self, *, now_ms: int) -> int:
        """Take a cut of all that was recorded before this moment; return its id."""
        wait_until_counted(self.closer.facts, clock=self.clock, pause=self.pause)
        return self.cuts.take_cut(now_ms=now_ms).cut_id

    @contextmanager
    def _closers(self, order: CloseOrder) -> Iterator[Closers]:
        """Start what closes: processes read the terms while this one lays the periods out."""
        if self.make_closers is None or order.job_count <= 1 or order.dry_run:
            yield OwnProcess(self.closer)
            return
        with self.make_closers(order.job_count) as closers:
            yield closers

    def _check_ended(self, month: Month, contracts: Collection[str] | None, *, now_ms: int) -> None:
        ended = PeriodQuery(month=month, contracts=contracts, ended_ms=now_ms)
        if self.periods.find(ended, after=None, limit=1):
            return
        begun = PeriodQuery(month=month, contracts=contracts)
        has_begun = bool(self.periods.find(begun, after=None, limit=1))
        if has_begun or month_span(month, UTC_ZONE).end_ms > now_ms:
            raise Refused(
                BillingReason.MONTH_NOT_ENDED,
                f"{month} has not ended under any contract: `invoices preview` shows how it"
                " stands.",
            )


@dataclass(slots=True)
class _Run:
    """One close, on its way."""

    closing: Closing
    order: CloseOrder
    closers: Closers = field(kw_only=True)
    now_ms: int = field(kw_only=True)
    on_progress: Callable[[int], None] = field(kw_only=True)
    tally: Tally = field(default_factory=Tally)
    cut_id: int | None = None

    def close(self, month: Month, *, contracts: Collection[str] | None) -> None:
        """Close a month, and tell of it."""
        # Whoever asks for a month is told of all of it; what is due is open.
        state = PeriodState.OPEN if self.order.month is None else None
        query = PeriodQuery(month=month, contracts=contracts, state=state)
        pages: Iterator[Sequence[StoredPeriod]] = self._pages(query)
        while True:
            # Parts of a month follow each other: each knows what the one before has billed.
            later: list[StoredPeriod] = []
            self._close_round(self._ready(pages, later))
            if not later:
                return
            pages = iter([later])

    def _close_round(self, ready: Iterator[Ready]) -> None:
        if self.order.dry_run:
            for some in _chunks(ready):
                self.tally.add(self.closing.closer.draft(some))
                self.on_progress(self.tally.total())
            return
        left: list[Ready] = []
        for done in self.closers.run(self._to_chunks(ready)):
            self.tally.count(done.counts, done.told)
            left += done.left
            self.on_progress(self.tally.total())
        for some in _chunks(iter(left)):
            # Now whoever was at them is waited for.
            assert self.cut_id is not None, "they were in a chunk"
            self.tally.add(self.closing.closer.close(some, cut_id=self.cut_id, doing=self._doing()))

    def _to_chunks(self, ready: Iterator[Ready]) -> Iterator[Chunk]:
        for some in _chunks(ready):
            if self.cut_id is None:
                # One for all, and none when there is nothing to do.
                self.cut_id = self.closing.take_cut(now_ms=self.now_ms)
            yield Chunk(
                ready=tuple(some),
                cut_id=self.cut_id,
                doing=self._doing(),
                tells_all=not self.tally.is_full(),
            )

    def _ready(
        self, pages: Iterator[Sequence[StoredPeriod]], later: list[StoredPeriod]
    ) -> Iterator[Ready]:
        """Yield what is to be closed, at most one period of each contract; others are put off."""
        taken: set[str] = set()
        early_by = self.order.key_id if self.order.early else None
        for page in pages:
            found = self.closing.closer.triage().sort(page, now_ms=self.now_ms, early_by=early_by)
            self.tally.add(found.decided)
            for it in found.ready:
                if it.stored.contract in taken:
                    later.append(it.stored)
                else:
                    taken.add(it.stored.contract)
                    yield it

    def _pages(self, query: PeriodQuery) -> Iterator[Sequence[StoredPeriod]]:
        after: PeriodKey | None = None
        while page := self.closing.periods.find(query, after=after, limit=_PAGE_SIZE):
            yield page
            after = key_of(page[-1])

    def _doing(self) -> Doing:
        return Doing(key_id=self.order.key_id, now_ms=self.now_ms)


def _contracts(drafting: Drafting, order: CloseOrder) -> Collection[str] | None:
    """Return the contracts that are to be closed; None: all."""
    if order.account_id is None:
        return None
    if order.month is not None:
        billing = drafting.periods(order.month, account_id=order.account_id)
        return {it.version.contract for it in billing}
    tree, account_id = drafting.tree, order.account_id
    return {
        it.contract
        for it in drafting.terms.contracts
        if any(account_id in tree.ever_below(root) for root in it.covers)
    }


def _late_after_final(
    drafting: Drafting, *, now_ms: int, contracts: Collection[str] | None
) -> Iterator[Closed]:
    """Yield closed periods of contracts that have ended with more usage than was billed.

    There is no next invoice that could bring it: somebody has to say what becomes of it.
    """
    known = drafting.terms.contracts
    last_ms = {it.contract: it.end_ms for it in known}
    ended = {
        contract: end_ms
        for contract, end_ms in last_ms.items()
        if end_ms is not None and end_ms <= now_ms and (contracts is None or contract in contracts)
    }
    for some in _chunks(iter(sorted(ended))):
        closed = drafting.ledger.closed_periods(some)
        final = [
            it
            for contract, periods in closed.items()
            if periods[-1].span.end_ms >= ended[contract]
            for it in periods
        ]
        for draft in drafting.left_over(final):
            yield Closed(
                period=draft.period, outcome=Outcome.LATE_AFTER_FINAL, invoice=draft.invoice
            )


def _with_expected(
    begun: Sequence[BillingPeriod], expected: Sequence[BillingPeriod]
) -> list[BillingPeriod]:
    """Return periods that have begun, under versions that are expected, and those yet to come."""

    def is_begun(it: BillingPeriod) -> bool:
        return any(
            each.version.contract == it.version.contract and each.span.holds(it.span.start_ms)
            for each in begun
        )

    versions = {(it.version.contract, it.version.start_ms) for it in expected}
    found = [it for it in begun if (it.version.contract, it.version.start_ms) in versions]
    found += [it for it in expected if not is_begun(it)]
    return sorted(found, key=lambda it: (it.version.contract, it.span.start_ms))


def wait_until_counted(
    facts: UsageFacts, *, clock: Clock, pause: Callable[[float], object]
) -> None:
    """Wait until all that was recorded before this moment is in usage; raises Unavailable."""
    positions = facts.recorded_up_to()
    end = clock.monotonic_seconds() + _COUNTED_SECONDS_MAX
    while not facts.is_counted(positions):
        if clock.monotonic_seconds() > end:
            raise Unavailable(
                Reason.STORE_UNAVAILABLE,
                "Usage that was recorded is not counted yet: let the meter run, and close again.",
            )
        pause(_POLL_SECONDS)


def _chunks(every: Iterator[_T]) -> Iterator[list[_T]]:
    some: list[_T] = []
    for it in every:
        some.append(it)
        if len(some) == _CHUNK_SIZE:
            yield some
            some = []
    if some:
        yield some
