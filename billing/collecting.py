"""Where a period stands between its begin and its close, and whom it still waits for. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from billing.contracts import ClosingTerms

_HOUR_MS: Final = 3600 * 1000
# On the fifth day after its end a period is closed whoever is still waited for.
_WAIT_MS_MAX: Final = 120 * _HOUR_MS
# Producers that an exception names.
_NAMES_MAX: Final = 10


class Stage(StrEnum):
    """Where a period stands."""

    OPEN = "open"
    COLLECTING = "collecting"
    DUE = "due"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Collecting:
    """How long usage of a period is collected, in ms since 1970.

    From `collected_ms` on it is closed if all producers that reported for it were heard, and from
    `due_ms` on whoever was not.
    """

    end_ms: int
    collected_ms: int
    due_ms: int

    def stage(self, waits_for: Sequence[str], *, now_ms: int) -> Stage:
        """Return where an open period stands that waits for these producers."""
        if now_ms < self.end_ms:
            return Stage.OPEN
        if now_ms < self.collected_ms or (waits_for and now_ms < self.due_ms):
            return Stage.COLLECTING
        return Stage.DUE

    def exception(
        self, waits_for: Sequence[str], *, now_ms: int, early_by: str | None
    ) -> str | None:
        """Return why a period that has ended is closed now although usage may still come.

        Empty where none may; None where it is not to be closed yet. `early_by` is who closes it
        whatever may come; None: nobody does.
        """
        if self.stage(waits_for, now_ms=now_ms) is Stage.DUE:
            return _unheard(waits_for)
        if early_by is None or now_ms < self.end_ms:
            return None
        return "; ".join(filter(None, (f"early, by {early_by}", _unheard(waits_for))))


def collecting_of(end_ms: int, terms: ClosingTerms) -> Collecting:
    """Return how long usage of a period is collected that ends at an instant."""
    return Collecting(
        end_ms=end_ms,
        collected_ms=end_ms + terms.collect_hours * _HOUR_MS,
        due_ms=end_ms + _WAIT_MS_MAX,
    )


def _unheard(waits_for: Sequence[str]) -> str:
    if not waits_for:
        return ""
    more = len(waits_for) - _NAMES_MAX
    named = ", ".join(waits_for[:_NAMES_MAX])
    return f"without {named}" + (f" and {more} more" if more > 0 else "")
