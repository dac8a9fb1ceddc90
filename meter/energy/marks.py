"""Which software served which pool from when on. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftwareMark:
    """A pool has a software, by name and version, from an instant (ms) until its next mark."""

    pool: str
    software: str
    start_ms: int


class SoftwareMarks(Protocol):
    """Keeps marks, which never change."""

    def mark(self, mark: SoftwareMark, *, key_id: str, now_ms: int) -> bool:
        """Keep a mark; False when the pool has this software at that time already.

        Raises Refused (FACTORY_REFUSED) when another software begins there at that very time.
        """
        ...

    def list_marks(self, *, pool: str = "") -> Sequence[SoftwareMark]:
        """Return marks by pool and time; an empty pool is all."""
        ...
