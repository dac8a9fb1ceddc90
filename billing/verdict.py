"""What becomes of a period by its draft: held, carried on, closed for nothing, or issued. Pure."""

from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal

from billing.close_result import HELD, Outcome
from billing.holds import APPROVABLE, Hold, holds_of
from billing.invoicing import Invoice


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What becomes of a period, every reason why it is held, and whether nothing of it is left."""

    outcome: Outcome
    holds: tuple[Hold, ...] = ()
    is_settled: bool = False

    @property
    def is_approvable(self) -> bool:
        """Tell whether somebody may let it go."""
        return bool(self.holds) and APPROVABLE.issuperset(self.holds)


def judge(
    draft: Invoice,
    *,
    last_net: Decimal | None,
    is_drifted: bool,
    is_last: bool,
    is_in_force: bool = True,
    has_engine_drift: bool = False,
    approved: Collection[Decimal] = (),
) -> Verdict:
    """Return what becomes of a period; see `holds_of`.

    `is_last`: its contract ends with it. Not `is_in_force`: it ends before it, by now, and nothing
    comes of a period that was open when its contract was set to end before. What a version that
    begins within it has used, or an earlier document has billed for it, is left to the next one.
    """
    if not is_in_force:
        is_settled = _is_nothing(draft) and not (_is_left(draft) or draft.unpriced)
        return Verdict(outcome=Outcome.NO_USAGE, is_settled=is_settled)
    holds = holds_of(
        draft,
        last_net=last_net,
        is_drifted=is_drifted,
        has_engine_drift=has_engine_drift,
        approved=approved,
    )
    if holds:
        return Verdict(outcome=HELD[holds[0]], holds=holds)
    version = draft.version
    if not version.zero_documents and _is_nothing(draft):
        outcome = Outcome.ZERO if draft.lines or draft.charges else Outcome.NO_USAGE
        return Verdict(outcome=outcome, is_settled=not _is_left(draft))
    if 0 < draft.net < version.minimum and not is_last:
        return Verdict(outcome=Outcome.CARRIED)
    return Verdict(outcome=Outcome.ISSUED, is_settled=True)


def _is_nothing(draft: Invoice) -> bool:
    """Tell whether there is no amount on it, above 0 or below."""
    return not (any(it.billed for it in draft.lines) or any(it.billed for it in draft.charges))


def _is_left(draft: Invoice) -> bool:
    """Tell whether a later rounding may make something of what comes to nothing now."""
    return any(it.exact for it in draft.lines) or any(it.exact for it in draft.charges)
