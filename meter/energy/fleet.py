"""Tokens of all servers, for the one that reads a pool's energy: its own are not all of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol, TypeAlias

from meter.domain.interval import INTERVAL_MS, interval_start_ms
from meter.energy.live import Served

# Pool, tier, model and the begin of the interval; and input, cached, output tokens, and requests.
ServedKey: TypeAlias = tuple[str, str, str, int]
ServedSums: TypeAlias = tuple[int, int, int, int]

# What is counted later than this is late for a live view; what is recorded has it.
_LATE_INTERVALS: Final = 2
_NOTHING: Final[ServedSums] = (0, 0, 0, 0)


class SumsReader(Protocol):
    """Where they are counted: `meter.store.pool_served.PoolServedStore`."""

    def sums(self, *, since_ms: int) -> Mapping[ServedKey, ServedSums]:
        """Return what is counted of each interval that began at `since_ms` or later."""
        ...


class FleetServed:
    """Looks at what was counted since the last look; for one thread at a time."""

    def __init__(
        self,
        reader: SumsReader,
        *,
        now_ms: Callable[[], int],
        is_alone: Callable[[], bool],
    ) -> None:
        """Take where to look; a server that `is_alone` knows of its tokens as it counts them."""
        self._reader = reader
        self._now_ms = now_ms
        self._is_alone = is_alone
        self._known: Mapping[ServedKey, ServedSums] | None = None

    def look(self) -> Sequence[Served]:
        """Return what all servers have counted since the last look; nothing at the first one.

        Raises Unavailable; the next look then returns it.
        """
        if self._is_alone():
            self._known = None
            return []
        since_ms = interval_start_ms(self._now_ms()) - _LATE_INTERVALS * INTERVAL_MS
        found = self._reader.sums(since_ms=since_ms)
        known, self._known = self._known, found
        if known is None:
            return []
        return [
            served
            for key, sums in found.items()
            if (served := _risen(key, sums, known.get(key, _NOTHING))) is not None
        ]


def _risen(key: ServedKey, sums: ServedSums, before: ServedSums) -> Served | None:
    """Return by how much a key's sums have risen; a correction takes nothing back here."""
    added = [max(0, now - then) for now, then in zip(sums, before, strict=True)]
    if not any(added):
        return None
    pool, tier, model, _ = key
    return Served(
        pool=pool,
        tier=tier,
        model=model,
        input_tokens=added[0],
        cached_tokens=added[1],
        output_tokens=added[2],
        request_count=added[3],
    )
