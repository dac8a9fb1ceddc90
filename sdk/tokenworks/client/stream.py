"""The protocol of numbered batches, without input or output: facts go in, messages come out.

Invariants: the batches held have consecutive numbers; a number, once given, keeps its bytes; a
batch is let go only when the meter has said that it is durable. Numbers are given after the meter
has said which one it expects, since nothing about them survives the process.
"""

from collections import deque
from dataclasses import dataclass
from enum import Enum

from tokenworks.client.columns import SealedBatch


class Verdict(Enum):
    """What has to happen after a message of the meter."""

    CONTINUE = "continue"
    REOPEN = "reopen"
    """End this connection and open another: the two sides disagree about what is held."""
    TAKEN_OVER = "taken_over"
    """Somebody else has written under this producer's name: stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberedBatch:
    """A batch under its number, for good."""

    sequence: int
    batch: SealedBatch


class UsageStream:
    """One process's side of a producer's stream, over all its connections."""

    def __init__(self) -> None:
        self._waiting: deque[SealedBatch] = deque()
        self._held: deque[NumberedBatch] = deque()
        self._next_sequence = 0
        """The number that the next new batch gets; 0 until the meter has named one."""
        self._cursor = 0
        """The number to send next: of a held batch, or `_next_sequence`."""
        self._recorded = 0
        """The meter has said that it recorded up to this number."""
        self._in_flight_max = 0
        """0 while no stream is open."""
        self._sent = 0
        """The highest number that ever went out."""
        self.held_event_count = 0
        """Events offered and not durable yet."""
        self.offered_count = 0
        """Batches that were offered."""
        self.settled_count = 0
        """Batches of those that are durable; always the first ones."""
        self.acknowledged_event_count = 0
        """Events that are durable."""
        self.set_aside_event_count = 0
        """Events that the meter has set aside, as far as its acks arrived."""
        self.resent_count = 0
        """Batches that went out a second time."""
        self.gap_count = 0
        """Numbers that were durable here and that the meter has lost since."""

    @property
    def is_open(self) -> bool:
        """Whether the meter has answered the opening of this connection."""
        return self._in_flight_max > 0

    @property
    def has_room(self) -> bool:
        """Whether a batch that is offered now could be sent at once."""
        return self.is_open and not self._waiting and self._in_flight < self._in_flight_max

    @property
    def _in_flight(self) -> int:
        return self._cursor - 1 - self._recorded

    def offer(self, batch: SealedBatch) -> None:
        """Take over a batch; it is sent in its turn."""
        self._waiting.append(batch)
        self.offered_count += 1
        self.held_event_count += batch.event_count

    def connect(self) -> int:
        """Begin a connection; returns the `first_sequence` to open it with."""
        self._in_flight_max = 0
        return self._held[0].sequence if self._held else 0

    def disconnect(self) -> None:
        """Note that the connection is gone."""
        self._in_flight_max = 0

    def opened(self, *, next_sequence: int, in_flight_max: int) -> Verdict:
        """Take the number that the meter expects next: its first answer, or a call to go back."""
        assigned = self._next_sequence
        if self._held and next_sequence > assigned:
            # Numbers beyond ours are recorded, so they are somebody else's, and perhaps ours too.
            return Verdict.TAKEN_OVER
        if next_sequence < 1:
            return Verdict.REOPEN
        oldest = self._held[0].sequence if self._held else assigned
        if next_sequence < oldest:
            # The meter came back older than it was. What we let go is lost to it; opening anew
            # tells it so, and a stream that holds nothing simply goes on from there.
            self.gap_count += oldest - next_sequence
            if self._held:
                return Verdict.REOPEN
        if not self._held:
            self._next_sequence = next_sequence
            self._sent = next_sequence - 1
        self._recorded = next_sequence - 1
        self._cursor = next_sequence
        self._in_flight_max = max(in_flight_max, 1)
        return Verdict.CONTINUE

    def acknowledged(
        self, *, sequence: int, durable_sequence: int, set_aside_count: int = 0
    ) -> Verdict:
        """Take an ack: all up to `sequence` is recorded, up to `durable_sequence` for good."""
        if not self.is_open:
            return Verdict.REOPEN
        if sequence >= self._next_sequence:
            return Verdict.REOPEN
        if sequence > self._recorded:
            self._recorded = sequence
            self._cursor = max(self._cursor, sequence + 1)
            self.set_aside_event_count += set_aside_count
        while self._held and self._held[0].sequence <= min(durable_sequence, self._recorded):
            event_count = self._held.popleft().batch.event_count
            self.settled_count += 1
            self.held_event_count -= event_count
            self.acknowledged_event_count += event_count
        return Verdict.CONTINUE

    def next_batch(self) -> NumberedBatch | None:
        """Return the batch to send now; None where there is none, or too many are in flight."""
        if not self.is_open or self._in_flight >= self._in_flight_max:
            return None
        if self._cursor < self._next_sequence:
            numbered = self._held[self._cursor - self._held[0].sequence]
        elif self._waiting:
            numbered = NumberedBatch(sequence=self._next_sequence, batch=self._waiting.popleft())
            self._held.append(numbered)
            self._next_sequence += 1
        else:
            return None
        self._cursor = numbered.sequence + 1
        if numbered.sequence <= self._sent:
            self.resent_count += 1
        self._sent = max(self._sent, numbered.sequence)
        return numbered
