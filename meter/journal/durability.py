"""How far the configured standbys have what the database recorded, as rounds of looking.

A round first gets its number, then looks at the database: where its log ends, and how far each
standby has it on disk. So whatever was recorded before a round began lies before the end that the
round saw; and once the standbys have that end, it is durable.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

# Rounds that wait for a standby; beyond, every second one is forgotten, which only delays.
_ROUNDS_MAX: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What a round saw.

    `line` names the one line of history that positions belong to: the timeline and the start of
    the server. `position` is where the log ended; `flushed` is up to where each standby has it on
    its disk, None for one that has not said so. A standby that is not connected is absent.
    """

    line: str
    position: int
    flushed: Mapping[str, int | None] = field(default_factory=dict)


class Horizon:
    """What is durable, by rounds; no clock and no database in it.

    `round` is the number of the newest round; `durable_round` the newest one whose end all
    standbys have on disk. `generation` moves when the database turned out to be another one or an
    older one: what was recorded in an earlier generation never becomes durable by a later round.
    """

    def __init__(self, standbys: Sequence[str]) -> None:
        """Take the standbys that have to have everything; there is one at least."""
        assert standbys
        self._standbys = tuple(standbys)
        self._ends: deque[tuple[int, int]] = deque()
        self._last: Sight | None = None
        self.round = 0
        self.durable_round = 0
        self.generation = 0
        self.missing: tuple[str, ...] = ()
        """Standbys that the last round did not find."""

    def begin(self) -> int:
        """Begin a round and return its number; look at the database only afterwards."""
        self.round += 1
        return self.round

    def take(self, number: int, sight: Sight) -> bool:
        """Take what a round saw; True when the database is another or an older one than before."""
        last, self._last = self._last, sight
        is_other = last is not None and (sight.line != last.line or sight.position < last.position)
        if is_other:
            self.generation += 1
            self._ends.clear()
        if self._ends and self._ends[-1][1] == sight.position:
            self._ends.pop()
        self._ends.append((number, sight.position))
        if len(self._ends) > _ROUNDS_MAX:
            self._ends = deque(list(self._ends)[::2])
        flushed = [sight.flushed.get(name) for name in self._standbys]
        self.missing = tuple(
            name for name, place in zip(self._standbys, flushed, strict=True) if place is None
        )
        known = [place for place in flushed if place is not None]
        if len(known) == len(self._standbys):
            while self._ends and self._ends[0][1] <= min(known):
                self.durable_round = self._ends.popleft()[0]
        return is_other
