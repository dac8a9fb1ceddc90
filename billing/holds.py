"""Why an invoice is held until somebody has looked at it. Pure."""

from collections.abc import Collection, Iterable
from decimal import Decimal
from enum import StrEnum
from typing import Final

from billing.invoicing import Invoice
from billing.money import multiply
from meter.engine_drift import EngineDrift


class Hold(StrEnum):
    """A reason to hold; the worst comes first."""

    UNPRICED = "unpriced"
    DRIFT = "drift"
    ENGINES = "engines"
    FIRST = "first"
    JUMP = "jump"


# What somebody may let go; the others have to be mended.
APPROVABLE: Final = frozenset({Hold.ENGINES, Hold.FIRST, Hold.JUMP})


def holds_of(
    draft: Invoice,
    *,
    last_net: Decimal | None,
    is_drifted: bool,
    has_engine_drift: bool = False,
    approved: Collection[Decimal] = (),
) -> tuple[Hold, ...]:
    """Return every reason why a draft is held, the worst first; none where it may go.

    `last_net` is what the contract's last invoice came to without taxes; None: there is none.
    `is_drifted` says that the sums of its usage are not its usage, `has_engine_drift` that engines
    counted too much else of its models. `approved` are totals for which somebody has let this very
    invoice go.
    """
    terms = draft.version.closing
    found = []
    if draft.unpriced:
        found.append(Hold.UNPRICED)
    if is_drifted:
        found.append(Hold.DRIFT)
    if draft.total not in approved:
        if has_engine_drift:
            found.append(Hold.ENGINES)
        if terms.hold_first and last_net is None:
            found.append(Hold.FIRST)
        if _is_jump(draft.net, last_net, factor=terms.hold_jump):
            found.append(Hold.JUMP)
    return tuple(found)


def find_engine_drifts(
    draft: Invoice, drifts: Iterable[EngineDrift], *, hold_ppm: int | None
) -> tuple[EngineDrift, ...]:
    """Return the drifts that hold a draft: of `hold_ppm` or more, in a model that it bills."""
    if hold_ppm is None:
        return ()
    billed = {line.model for line in draft.lines}
    return tuple(it for it in drifts if abs(it.ppm) >= hold_ppm and billed & it.models)


def _is_jump(net: Decimal, last_net: Decimal | None, *, factor: Decimal | None) -> bool:
    # From nothing, everything is a jump: an invoice of 0 says nothing about the next.
    if factor is None or last_net is None or last_net <= 0:
        return False
    return net > multiply(last_net, factor)
