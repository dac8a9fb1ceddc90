"""Some periods are closed: drafted, held or let go, and issued, all in one transaction.

Whatever stops it, nothing is half done: the next close finds these periods open.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from types import MappingProxyType
from typing import Final

from billing.actions import BillingAction
from billing.calendar import as_billed
from billing.close_result import Closed, Outcome
from billing.contracts import BillingPeriod
from billing.drafting import Draft, Drafting
from billing.holds import Hold, find_engine_drifts
from billing.invoicing import Invoice
from billing.issued import Doing, Settling
from billing.ledger import Ledger, PeriodKey
from billing.money import write_money
from billing.period_book import Ending, PeriodsHeld, PeriodStore, TermsMoved
from billing.periods import Span
from billing.ports import PeriodState, StoredPeriod, TermsStore
from billing.triage import Ready, Triage, key_of
from billing.verdict import Verdict, judge
from meter.audit_log import Change
from meter.consumption import Consumption
from meter.domain.account import AccountTree
from meter.domain.errors import Reason, Unavailable
from meter.domain.interval import interval_start_ms, next_edge_ms
from meter.engine_drift import EngineDrift, EngineDrifts
from meter.reporters import Reporters
from meter.usage import UsageFacts, UsageSums

# Terms that change all the time: somebody else is at work, and a close can be run again.
_LOOKS_MAX: Final = 10
_NOTHING: Final[Mapping[Span, Sequence[EngineDrift]]] = MappingProxyType({})


@dataclass(slots=True, kw_only=True)
class PeriodClosing:
    """The use case, over what it needs; remembers the last look at the terms."""

    terms: TermsStore
    periods: PeriodStore
    ledger: Ledger
    facts: UsageFacts
    sums: UsageSums
    reporters: Reporters
    consumption: Consumption
    engine_drifts: EngineDrifts
    tree: Callable[[], AccountTree]
    is_sandbox: bool
    _known: Drafting | None = None
    # Of the last cut: a close asks of the same months for each chunk of its contracts.
    _compared: tuple[int | None, Mapping[Span, Sequence[EngineDrift]]] = (None, _NOTHING)

    def look(self) -> Drafting:
        """Return what drafts by the terms and the accounts as they are."""
        terms, tree, known = self.terms.load(), self.tree(), self._known
        if known is None or known.terms is not terms or known.tree is not tree:
            known = self._known = Drafting(
                terms,
                tree,
                facts=self.facts,
                sums=self.sums,
                ledger=self.ledger,
                is_sandbox=self.is_sandbox,
            )
        return known

    def triage(self) -> Triage:
        """Return what sorts periods by the terms as they are."""
        return Triage(
            drafting=self.look(),
            periods=self.periods,
            ledger=self.ledger,
            reporters=self.reporters,
        )

    def close(
        self,
        ready: Sequence[Ready],
        *,
        cut_id: int,
        doing: Doing,
        skip_locked: bool = False,
        approval: str = "",
    ) -> list[Closed]:
        """Close periods of different contracts, by usage at or below a cut.

        With `skip_locked`, those that another job is at are left out. With an `approval`, the
        reason for it, what is held and may be let go is. Raises Unavailable.
        """
        for _ in range(_LOOKS_MAX):
            drafting = self.look()
            try:
                with self.periods.holding(
                    [it.key for it in ready],
                    terms_version=drafting.terms.version,
                    doing=doing,
                    skip_locked=skip_locked,
                ) as held:
                    found = self._judge_held(drafting, held, cut_id=cut_id, approval=approval)
                    exceptions = {it.key: it.exception for it in ready}
                    return self._end(held, found, exceptions, cut_id=cut_id, doing=doing)
            except TermsMoved:
                continue
        raise Unavailable(
            Reason.STORE_UNAVAILABLE, "The terms change all the time; close the month again."
        )

    def draft(self, ready: Sequence[Ready]) -> list[Closed]:
        """Return what closing periods would come to by all that is counted; changes nothing."""
        judged = self._judge(self.look(), [it.stored for it in ready], cut_id=None, approved={})
        exceptions = {it.key: it.exception for it in ready}
        found = []
        for it in judged:
            told = it.told(exception=exceptions[key_of(it.stored)])
            is_issued = told.outcome is Outcome.ISSUED
            found.append(replace(told, outcome=Outcome.DRAFTED) if is_issued else told)
        return found

    def _judge_held(
        self, drafting: Drafting, held: PeriodsHeld, *, cut_id: int, approval: str
    ) -> list["_Judged"]:
        is_open = [it for it in held.periods if it.state is PeriodState.OPEN]
        judged = self._judge(drafting, is_open, cut_id=cut_id, approved=held.approved)
        if not approval:
            return judged
        let_go = []
        for it in judged:
            if not it.verdict.is_approvable:
                let_go.append(it)
                continue
            total = it.draft.invoice.total
            held.approve(it.stored, total=total, reason=approval)
            let_go.append(replace(it, approved_for=approval, verdict=it.judge(approved=[total])))
        return let_go

    def _judge(
        self,
        drafting: Drafting,
        stored: Sequence[StoredPeriod],
        *,
        cut_id: int | None,
        approved: Mapping[PeriodKey, Collection[Decimal]],
    ) -> list["_Judged"]:
        contracts = drafting.terms.contracts
        periods = [as_billed(it, contracts) for it in stored]
        drafts = drafting.draft_many(periods, cut_id=cut_id, consumption=self.consumption)
        last_nets = self.ledger.last_nets([key_of(it) for it in stored])
        drifted = self._drifted(drafting, periods)
        compared = self._compare([it.span for it in stored], cut_id=cut_id)
        judged = []
        for each, draft in zip(stored, drafts, strict=True):
            key = key_of(each)
            end_ms = contracts.versions(each.contract)[-1].end_ms
            facts = _Facts(
                last_net=last_nets.get(key),
                is_drifted=key in drifted,
                engine_drifts=find_engine_drifts(
                    draft.invoice, compared[each.span], hold_ppm=self.engine_drifts.hold_ppm
                ),
                is_last=end_ms is not None and each.span.end_ms >= end_ms,
                is_in_force=draft.period.is_in_force,
            )
            verdict = facts.judge(draft.invoice, approved=approved.get(key, ()))
            judged.append(_Judged(stored=each, draft=draft, facts=facts, verdict=verdict))
        return judged

    def _compare(
        self, spans: Collection[Span], *, cut_id: int | None
    ) -> Mapping[Span, Sequence[EngineDrift]]:
        """Return what engines counted in periods, beside what was metered; none where none holds.

        Within a cut it is asked once of each time.
        """
        if self.engine_drifts.hold_ppm is None:
            return dict.fromkeys(spans, ())
        known_cut_id, known = self._compared
        found = dict(known) if cut_id is not None and cut_id == known_cut_id else {}
        for span in set(spans) - found.keys():
            start_ms, end_ms = next_edge_ms(span.start_ms), interval_start_ms(span.end_ms)
            found[span] = self.engine_drifts.compare(start_ms=start_ms, end_ms=end_ms)
        self._compared = (cut_id, found)
        return found

    def _drifted(
        self, drafting: Drafting, periods: Sequence[BillingPeriod]
    ) -> frozenset[PeriodKey]:
        """Return the periods with an account whose sums are not its usage."""
        by_span: dict[Span, dict[PeriodKey, frozenset[str]]] = defaultdict(dict)
        for it in periods:
            key = PeriodKey(it.version.contract, it.span.start_ms)
            by_span[it.span][key] = drafting.accounts(it)
        found: set[PeriodKey] = set()
        for span, accounts in by_span.items():
            drifted = self.sums.drifted(
                account_ids=sorted(frozenset[str]().union(*accounts.values())),
                start_ms=span.start_ms,
                end_ms=span.end_ms,
            )
            found.update(key for key, own in accounts.items() if own & drifted)
        return frozenset(found)

    def _end(
        self,
        held: PeriodsHeld,
        judged: Sequence["_Judged"],
        exceptions: Mapping[PeriodKey, str],
        *,
        cut_id: int,
        doing: Doing,
    ) -> list[Closed]:
        ending = [it for it in judged if not it.verdict.holds]
        issued = held.end(
            [it.ending(exception=exceptions[key_of(it.stored)], cut_id=cut_id) for it in ending]
        )
        by_key = {key_of(it.stored): each for it, each in zip(ending, issued, strict=True)}
        done = [
            it.told(exception=exceptions[key_of(it.stored)], issued=by_key.get(key_of(it.stored)))
            for it in judged
        ]
        held.log(*_changes(judged, done, cut_id=cut_id, doing=doing))
        # Whoever held these contracts before has closed them.
        closed = [it for it in held.periods if it.state is PeriodState.CLOSED]
        return [*done, *self.triage().told(closed)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """What decides beside a draft; see `judge`."""

    last_net: Decimal | None
    is_drifted: bool
    engine_drifts: tuple[EngineDrift, ...]
    is_last: bool
    is_in_force: bool

    def judge(self, draft: Invoice, *, approved: Collection[Decimal]) -> Verdict:
        return judge(
            draft,
            last_net=self.last_net,
            is_drifted=self.is_drifted,
            is_last=self.is_last,
            is_in_force=self.is_in_force,
            has_engine_drift=bool(self.engine_drifts),
            approved=approved,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """A period, its draft, and what becomes of it; `approved_for` is why somebody let it go."""

    stored: StoredPeriod
    draft: Draft
    facts: _Facts
    verdict: Verdict
    approved_for: str = ""

    def judge(self, *, approved: Collection[Decimal]) -> Verdict:
        return self.facts.judge(self.draft.invoice, approved=approved)

    def ending(self, *, exception: str, cut_id: int) -> Ending:
        return Ending(
            period=self.stored,
            outcome=self.verdict.outcome.value,
            exception=exception,
            cut_id=cut_id,
            draft=self.draft.invoice if self.verdict.outcome is Outcome.ISSUED else None,
            settled=tuple(
                Settling(contract=it.contract, start_ms=it.start_ms, terms=it.terms)
                for it in self.draft.settled
                if self.verdict.is_settled
            ),
        )

    def told(self, *, exception: str, issued: Invoice | None = None) -> Closed:
        return Closed(
            period=self.draft.period,
            outcome=self.verdict.outcome,
            invoice=issued or self.draft.invoice,
            holds=self.verdict.holds,
            engine_drifts=(self.facts.engine_drifts if Hold.ENGINES in self.verdict.holds else ()),
            exception="" if self.verdict.holds else exception,
        )


def _changes(
    judged: Sequence[_Judged], done: Sequence[Closed], *, cut_id: int, doing: Doing
) -> Iterator[Change]:
    """Yield what the audit log is told: what was let go, what was closed, which numbers."""

    def change(action: BillingAction, subject: str, **detail: object) -> Change:
        return Change(
            at_ms=doing.now_ms, key_id=doing.key_id, action=action, subject=subject, detail=detail
        )

    for it in judged:
        if it.approved_for:
            invoice = it.draft.invoice
            yield change(
                BillingAction.PERIOD_APPROVE,
                it.stored.contract,
                month=str(it.stored.month),
                total=write_money(invoice.total, invoice.currency),
                reason=it.approved_for,
            )
    ended = [it for it in done if not it.holds]
    for month in sorted({it.period.month for it in ended}):
        own = [it for it in ended if it.period.month == month]
        yield change(
            BillingAction.PERIOD_CLOSE,
            str(month),
            cut_id=cut_id,
            count=len(own),
            outcomes={name.value: n for name, n in Counter(it.outcome for it in own).items()},
            contracts=[it.period.version.contract for it in own],
            exceptions={it.period.version.contract: it.exception for it in own if it.exception},
        )
    yield from (
        change(
            BillingAction.INVOICE_ISSUE,
            series,
            first=numbers[0],
            last=numbers[-1],
            count=len(numbers),
            cut_id=cut_id,
        )
        for series, numbers in sorted(_numbers(ended).items())
    )


def _numbers(ended: Sequence[Closed]) -> Mapping[str, Sequence[str]]:
    """Return the numbers that were taken, by series, in order."""
    found: dict[str, list[str]] = defaultdict(list)
    for it in ended:
        if it.invoice is not None and it.invoice.issue is not None:
            found[it.invoice.issue.series].append(it.invoice.issue.number)
    return {series: sorted(numbers) for series, numbers in found.items()}
