"""The journal's upkeep: parts made ahead, and old ones written into files and dropped.

Whichever server comes first does it; the rules are the database's.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Final, Protocol

_log = logging.getLogger(__name__)
_DAY_MS: Final = 24 * 3600 * 1000


class Parts(Protocol):
    """The journal's parts, by name."""

    def make_parts(self) -> int:
        """Make those of this month and of three months ahead that are missing; return how many."""
        ...

    def ended_before(self, before_ms: int) -> Sequence[str]:
        """Return the parts that ended before an instant, oldest first."""
        ...

    def drop(self, part: str) -> str:
        """Drop a part whose files stand; return why it stays, or nothing."""
        ...


class Upkeep:
    """Does a step at a time, so that whoever ends a server waits for no more than one file."""

    def __init__(
        self,
        parts: Parts,
        *,
        archive_step: Callable[[str], object | None] | None,
        kept_days: int | None,
        now_ms: Callable[[], int],
    ) -> None:
        """Take the parts; what writes the next file of a part, and returns None when all stand.

        Without it, or without `kept_days`, nothing is dropped.
        """
        self._parts = parts
        self._archive_step = archive_step
        self._kept_days = kept_days
        self._now_ms = now_ms
        self._stays: dict[str, str] = {}

    def make_parts(self) -> None:
        """Make the parts that are missing; the next months are there long before they begin."""
        made = self._parts.make_parts()
        if made:
            _log.info("journal_parts_made", extra={"count": made})

    def kept_from_ms(self) -> int:
        """Return the time from which all is kept in the database; 0 where nothing ever goes."""
        return 0 if self._kept_days is None else self._now_ms() - self._kept_days * _DAY_MS

    def due(self) -> Sequence[str]:
        """Return the parts that are old enough to go, oldest first."""
        if self._archive_step is None or self._kept_days is None:
            return ()
        return self._parts.ended_before(self._now_ms() - self._kept_days * _DAY_MS)

    def step(self, part: str) -> bool:
        """Write the next file of a part, or drop it when all stand; tell whether there is more."""
        assert self._archive_step is not None
        if self._archive_step(part) is not None:
            return True
        why = self._parts.drop(part)
        if not why:
            _log.info("journal_part_dropped", extra={"part": part})
        elif self._stays.get(part) != why:
            _log.info("journal_part_stays", extra={"part": part, "why": why})
        self._stays[part] = why
        return False
