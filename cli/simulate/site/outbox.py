"""What one producer holds, without input or output: batches from their sealing until durable."""

from collections import deque
from typing import NamedTuple


class Sealed(NamedTuple):
    """A batch that is to be sent: which prepared one, from when on, and when it was sealed.

    `sealed_seconds` is of the monotonic clock.
    """

    batch: int
    base_ms: int
    sealed_seconds: float


class NumbersDiffer(Exception):
    """The meter expects a number that cannot be: the message says which, and what is held."""


class Outbox:
    """Numbers batches from where the meter begins, and keeps each until it is durable."""

    def __init__(self) -> None:
        self._held: deque[Sealed] = deque()
        self._first = 0
        """The number of the oldest batch held, else the next one's; 0 before the first contact."""
        self._cursor = 0
        """The number to send next."""
        self._recorded = 0
        """The meter has recorded up to this number."""
        self._told = 0
        """The highest number that was ever recorded."""
        self._highest = 0
        """The highest number that went out."""
        self._in_flight_max = 0
        self.resent_count = 0
        """Batches that went out a second time."""

    @property
    def first_sequence(self) -> int:
        """What a stream is opened with: the oldest number held, 0 for none."""
        return self._first if self._held else 0

    @property
    def unrecorded_count(self) -> int:
        """Batches that no ack has come of."""
        return self.last_sequence - self._told

    @property
    def is_idle(self) -> bool:
        """Whether all that was sealed went out."""
        return self._cursor >= self._first + len(self._held)

    @property
    def last_sequence(self) -> int:
        """The number of the newest batch that was sealed."""
        return self._first + len(self._held) - 1

    @property
    def is_empty(self) -> bool:
        """Whether all that was sealed is durable."""
        return not self._held

    def seal(self, sealed: Sealed) -> None:
        """Hold a batch, under the next number; only after the first contact."""
        assert self._first, "numbers are known since the first contact"
        self._held.append(sealed)

    def opened(self, *, next_sequence: int, in_flight_max: int) -> list[Sealed]:
        """Go to the number that the meter expects; returns what turned out to be recorded.

        Raises NumbersDiffer.
        """
        if not self._first:
            self._first = next_sequence
            self._told = self._highest = next_sequence - 1
        end = self._first + len(self._held)
        if not self._first <= next_sequence <= end:
            raise NumbersDiffer(
                f"the meter expects batch {next_sequence}, and {self._first} to {end - 1} are held"
            )
        # It may lie before what was acknowledged, and not called durable.
        self._recorded = next_sequence - 1
        self._cursor = next_sequence
        self._in_flight_max = max(in_flight_max, 1)
        return self._tell()

    def take(self) -> tuple[int, Sealed] | None:
        """Return the batch to send now, under its number; None where there is none, or no room."""
        cursor = self._cursor
        if cursor >= self._first + len(self._held):
            return None
        if cursor - 1 - self._recorded >= self._in_flight_max:
            return None
        self._cursor = cursor + 1
        if cursor <= self._highest:
            self.resent_count += 1
        self._highest = max(self._highest, cursor)
        return cursor, self._held[cursor - self._first]

    def acknowledged(self, *, sequence: int, durable_sequence: int) -> list[Sealed]:
        """Take an ack of all up to a number; returns the batches that it is the first of."""
        self._recorded = max(self._recorded, min(sequence, self._cursor - 1))
        told = self._tell()
        while self._held and self._first <= min(durable_sequence, self._recorded):
            self._held.popleft()
            self._first += 1
        return told

    def _tell(self) -> list[Sealed]:
        told = [
            self._held[each - self._first] for each in range(self._told + 1, self._recorded + 1)
        ]
        self._told = max(self._told, self._recorded)
        return told
