"""Counts of what was turned away."""

from collections.abc import Mapping
from threading import RLock


class Tally:
    """Events turned away, and why; any thread may add to it.

    The lock is taken only when an event is turned away, and never around input or output. It is
    reentrant, because a destructor that reports may run while it is held.
    """

    def __init__(self) -> None:
        self._lock = RLock()
        self._dropped = 0
        self._invalid: dict[str, int] = {}

    @property
    def dropped(self) -> int:
        """Events for which there was no room, or nobody to send them."""
        return self._dropped

    @property
    def invalid(self) -> int:
        """Events that the wire cannot carry."""
        with self._lock:
            return sum(self._invalid.values())

    @property
    def invalid_by_kind(self) -> Mapping[str, int]:
        """Events that the wire cannot carry, by what is wrong with them."""
        with self._lock:
            return dict(self._invalid)

    def drop(self, *, count: int = 1) -> None:
        """Count events that were dropped."""
        with self._lock:
            self._dropped += count

    def refuse(self, kind: str, *, count: int = 1) -> None:
        """Count events of a closed set of kinds that the wire cannot carry."""
        with self._lock:
            self._invalid[kind] = self._invalid.get(kind, 0) + count
