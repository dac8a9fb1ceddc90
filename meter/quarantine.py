"""What was set aside, as others read it."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol


class QuarantineState(IntEnum):
    """What became of an entry; the wire's numbers."""

    HELD = 1
    RELEASED = 2
    REJECTED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineEntry:
    """An event (`index` from 0) or a whole batch (-1) with the bytes in which it came.

    `source` is who reported the event, 0 where nobody else does.
    """

    quarantine_id: int
    outcome: int
    state: QuarantineState
    received_ms: int
    key_id: str
    producer: str
    sequence: int
    index: int
    payload: bytes
    source: int = 0
    is_choice: bool = False


class Quarantine(Protocol):
    """Reads entries, and rejects them; a release is a commit of the journal."""

    def list_entries(
        self, *, state: QuarantineState | None, after_id: int, limit: int
    ) -> Sequence[QuarantineEntry]:
        """Return entries above an id, oldest first."""
        ...

    def get_entry(self, quarantine_id: int) -> QuarantineEntry:
        """Return an entry; raises NotFound (QUARANTINE_NOT_FOUND)."""
        ...

    def reject(self, quarantine_id: int, *, key_id: str, reason: str, now_ms: int) -> None:
        """Decide that an entry is never counted; raises NotFound or Refused."""
        ...

    def held_count(self) -> int:
        """Return how many entries wait for a person."""
        ...
