"""The periods of a contract as time goes by: made once, by this one function, when they open. Pure.

Every instant at which a contract is in force belongs to one period. The times of a closed period
never move, and those of one that has ended only where a later version of the contract cuts it:
whatever an edition of the time zones says afterwards, the next one begins where it ends. An open
one that begins when no version is in force any more holds nothing of the next version's time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from billing.contracts import BillingPeriod, Contracts, ContractVersion
from billing.periods import Month, Span, month_of, month_start_ms
from billing.ports import PeriodState, StoredPeriod

# The most that an edition of the time zones has ever moved a midnight by: over the date line.
_SHIFT_MS_MAX: Final = 26 * 3600 * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What is to be kept: periods that open, and open ones that are otherwise than was thought."""

    opened: tuple[StoredPeriod, ...]
    changed: tuple[StoredPeriod, ...]


def lay_out(
    versions: Sequence[ContractVersion],
    stored: Sequence[StoredPeriod],
    *,
    now_ms: int,
    tzdata: str,
    newest_only: bool = False,
) -> Layout:
    """Return the periods of a contract that have begun at an instant, less what is stored so.

    `versions` are all of the contract's, in order, and `stored` its periods, in order; with
    `newest_only`, where no version was changed since, the newest of them are enough. `tzdata` is
    the edition of the time zones that is read.
    """
    opened: list[StoredPeriod] = []
    changed: list[StoredPeriod] = []
    walk = _Walk(versions, stored, now_ms=now_ms, tzdata=tzdata)
    begins = [it.span.start_ms for it in stored[:1]]
    if not (newest_only and begins):
        begins += [it.start_ms for it in versions[:1]]
    at_ms = min(begins, default=now_ms + 1)
    while at_ms <= now_ms:
        kept = walk.find_stored(at_ms)
        if kept is not None and kept.state is PeriodState.CLOSED:
            at_ms = walk.note(kept)
            continue
        version = walk.find_version(at_ms)
        if version is None:
            later = walk.next_begin_ms(at_ms)
            if later is None:
                break
            if kept is not None and later < kept.span.end_ms:
                changed.append(replace(kept, span=Span(start_ms=at_ms, end_ms=later)))
            at_ms = later
            continue
        period = walk.make(version, at_ms, kept)
        if kept is None:
            opened.append(period)
        elif period != kept:
            changed.append(period)
        at_ms = walk.note(period)
    return Layout(opened=tuple(opened), changed=tuple(changed))


def as_billed(stored: StoredPeriod, contracts: Contracts) -> BillingPeriod:
    """Return a stored period with its version of the contract as it is by now."""
    versions = contracts.versions(stored.contract)
    version = next(it for it in versions if it.start_ms == stored.version_start_ms)
    return BillingPeriod(version=version, month=stored.month, span=stored.span)


class _Walk:
    """One way through a contract's time."""

    def __init__(
        self,
        versions: Sequence[ContractVersion],
        stored: Sequence[StoredPeriod],
        *,
        now_ms: int,
        tzdata: str,
    ) -> None:
        self._versions = versions
        self._stored = {it.span.start_ms: it for it in stored}
        self._now_ms = now_ms
        self._tzdata = tzdata
        self._before: StoredPeriod | None = None

    def find_stored(self, at_ms: int) -> StoredPeriod | None:
        return self._stored.get(at_ms)

    def note(self, period: StoredPeriod) -> int:
        """Go past a period; return where it ends."""
        self._before = period
        return period.span.end_ms

    def find_version(self, at_ms: int) -> ContractVersion | None:
        return next((it for it in self._versions if it.holds_at(at_ms)), None)

    def next_begin_ms(self, at_ms: int) -> int | None:
        """Return the next instant at which a version or a stored period begins."""
        begins = [*(it.start_ms for it in self._versions), *self._stored]
        return min((it for it in begins if it > at_ms), default=None)

    def make(
        self, version: ContractVersion, start_ms: int, kept: StoredPeriod | None
    ) -> StoredPeriod:
        """Return the open period that begins at an instant, as it is by now."""
        has_ended = kept is not None and kept.span.end_ms <= self._now_ms
        if kept is not None and has_ended:
            month, end_ms, tzdata = kept.month, kept.span.end_ms, kept.tzdata
        else:
            month = self._month(version, start_ms)
            end_ms, tzdata = month_start_ms(month.next(), version.zone), self._tzdata
        # Where the next one is already; and where this version's time is over.
        limits = [it for it in self._stored if it > start_ms]
        if version.end_ms is not None:
            limits.append(version.end_ms)
        span = Span(start_ms=start_ms, end_ms=min([end_ms, *limits]))
        if kept is None:
            return opened_period(version, month=month, span=span, tzdata=tzdata)
        return replace(
            kept,
            month=month,
            span=span,
            version_start_ms=version.start_ms,
            zone=kept.zone if has_ended else version.zone.key,
            tzdata=tzdata,
        )

    def _month(self, version: ContractVersion, start_ms: int) -> Month:
        month = month_of(start_ms, version.zone)
        before = self._before
        if before is None or before.version_start_ms != version.start_ms:
            return month
        # By a later edition the month before may end later than its period did: what is between
        # belongs to the next month, and makes no period of an hour.
        is_its_end = before.span.end_ms == start_ms and before.month == month
        rest_ms = month_start_ms(month.next(), version.zone) - start_ms
        return month.next() if is_its_end and rest_ms <= _SHIFT_MS_MAX else month


def opened_period(
    version: ContractVersion, *, month: Month, span: Span, tzdata: str
) -> StoredPeriod:
    """Return a period as it is when it opens."""
    return StoredPeriod(
        contract=version.contract,
        month=month,
        span=span,
        version_start_ms=version.start_ms,
        zone=version.zone.key,
        tzdata=tzdata,
        state=PeriodState.OPEN,
        outcome="",
        exception="",
        close_ms=None,
        cut_id=None,
        settled_cut_id=None,
        settled_terms=None,
    )
