"""A producer's stream as the server sees it, without input or output: facts in, answers out.

Invariants: an answer never claims more than the database has said; `durable_sequence` never
exceeds `recorded_sequence`; what was behind a hole is answered once, by the number to go back to.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from meter.domain.errors import InvalidArgument, MeterError, Reason, Refused, Unavailable
from meter.domain.event import SetAside
from meter.domain.limits import SEQUENCE_MAX, SEQUENCES_AHEAD_MAX
from meter.journal.commit import Result
from meter.journal.durability import Horizon
from meter.journal.protocol import ProducerState, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """Where to begin, or to go back to."""

    next_sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """All up to `sequence` is recorded, and up to `durable_sequence` for good.

    `set_aside` pairs what was kept in quarantine with the entries' ids.
    """

    sequence: int
    durable_sequence: int
    set_aside: Sequence[tuple[SetAside, int]] = ()

    def followed_by(self, later: "Ack") -> "Ack":
        """Return the one ack that says what two say of which nothing was set aside.

        It is the later one, but where that answers a number that came again.
        """
        if later.sequence >= self.sequence:
            return later
        return Ack(sequence=self.sequence, durable_sequence=later.durable_sequence)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What a stream had acknowledged at some moment, for whoever then looks at the database."""

    recorded_sequence: int
    rollback_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A producer as it was seen in the database, without locking it.

    `is_known` tells whether the database has ever heard of the stream's own instance. `is_told` is
    False while what the stream announced is not on disk: a commit held the producer.
    """

    instance: bytes
    sequence: int
    is_known: bool
    is_told: bool = True


class StreamSession:
    """One stream from its opening on; the caller records batches and carries the answers.

    Batches may be recorded while earlier ones are; results are given in the order of arrival.
    """

    def __init__(self, *, producer: str, instance: bytes, horizon: Horizon | None = None) -> None:
        """Take who opens, and what says how far standbys are; None where recorded is durable."""
        self._producer = producer
        self._instance = instance
        self._horizon = horizon
        self._generation = 0 if horizon is None else horizon.generation
        # The last number that was recorded in each round that is not durable yet.
        self._not_durable: deque[tuple[int, int]] = deque()
        self._durable_sequence = 0
        self._going_back_to: int | None = None
        self.recorded_sequence = 0
        """Highest number that the database has."""
        self.announced_sequence = 0
        """Highest number that the producer says it has given."""
        self.rollback_count = 0
        """How often the database turned out to be older than what was acknowledged."""

    @property
    def durable_sequence(self) -> int:
        """Highest number that the configured standbys have too, without any the recorded one."""
        horizon = self._horizon
        if horizon is None:
            return self.recorded_sequence
        if horizon.generation == self._generation:
            # A round that began after the record was made has seen an end behind it.
            while self._not_durable and self._not_durable[0][0] < horizon.durable_round:
                self._durable_sequence = self._not_durable.popleft()[1]
        return min(self._durable_sequence, self.recorded_sequence)

    def opened(self, state: ProducerState) -> Opened:
        """Begin at what is on disk; raises Refused (PRODUCER_TAKEN_OVER) where that is newer."""
        if state.instance != self._instance:
            raise taken_over(self._producer)
        self._record(state.sequence)
        return Opened(next_sequence=state.sequence + 1)

    def heard(self, last_sequence: int) -> None:
        """Take what a heartbeat announces; a lower number than before changes nothing.

        Raises InvalidArgument for one that no producer can have reached.
        """
        highest = min(self.recorded_sequence + SEQUENCES_AHEAD_MAX, SEQUENCE_MAX)
        if not 0 <= last_sequence <= highest:
            rule = f"0–{highest}, at most {SEQUENCES_AHEAD_MAX} above the last recorded number"
            raise InvalidArgument(
                Reason.ARGUMENT_INVALID,
                f"heartbeat.last_sequence must be {rule}.",
                field="heartbeat.last_sequence",
                rule=rule,
            )
        self.announced_sequence = max(self.announced_sequence, last_sequence)

    def beat(self) -> Ack:
        """Answer a heartbeat, once all that came before it is answered; raises as `answer`."""
        self._check_line()
        return Ack(sequence=self.recorded_sequence, durable_sequence=self.durable_sequence)

    def answer(self, sequence: int, result: Result) -> Opened | Ack | None:
        """Answer a batch; None for one behind a hole that was answered already.

        Raises Unavailable when the database is another one than at the opening, as after a
        failover: the stream ends, and what it still has in flight is sent again.
        """
        self._check_line()
        if result.verdict is Verdict.HOLE:
            return self._go_back(result.next_sequence)
        self._going_back_to = None
        self.announced_sequence = max(self.announced_sequence, sequence)
        if sequence > self.recorded_sequence:
            self._record(sequence)
        return Ack(
            sequence=sequence, durable_sequence=self.durable_sequence, set_aside=result.set_aside
        )

    def mark(self) -> Mark:
        """Return what is acknowledged by now; take it before looking at the database."""
        return Mark(recorded_sequence=self.recorded_sequence, rollback_count=self.rollback_count)

    def seen(self, mark: Mark, found: Seen | None) -> Opened | None:
        """Take what was seen of the producer after `mark` was taken; None when it is not there.

        A lower number than was acknowledged by then means that the database is older than it was:
        the producer is called back, though it says nothing. Raises Refused (PRODUCER_TAKEN_OVER)
        when a newer instance has opened, Unavailable when the database does not know this one any
        more: both end the stream.
        """
        self._check_line()
        if found is None:
            raise self._forgotten()
        if found.instance != self._instance:
            raise self.fenced(is_known=found.is_known)
        if mark.rollback_count != self.rollback_count or found.sequence >= mark.recorded_sequence:
            return None
        return self._go_back(found.sequence + 1)

    def fenced(self, *, is_known: bool) -> MeterError:
        """Return how the stream ends when the database has another instance as the newest.

        Where it has never heard of this one, it is older than the stream: nobody took over.
        """
        return taken_over(self._producer) if is_known else self._forgotten()

    def _check_line(self) -> None:
        if self._horizon is not None and self._horizon.generation != self._generation:
            raise Unavailable(
                Reason.STORE_UNAVAILABLE,
                "The database was restored, or another one has taken its place. Connect again.",
            )

    def _forgotten(self) -> Unavailable:
        self.rollback_count += 1
        return Unavailable(
            Reason.STORE_UNAVAILABLE,
            f"The database has lost what producer {self._producer} opened. Connect again.",
        )

    def _go_back(self, next_sequence: int) -> Opened | None:
        if next_sequence <= self.recorded_sequence:
            self._roll_back(next_sequence - 1)
        # What was already on its way behind the hole is answered once, not each time.
        if self._going_back_to == next_sequence:
            return None
        self._going_back_to = next_sequence
        return Opened(next_sequence=next_sequence)

    def _roll_back(self, sequence: int) -> None:
        self.rollback_count += 1
        self.recorded_sequence = sequence
        self._durable_sequence = min(self._durable_sequence, sequence)
        self._not_durable = deque(each for each in self._not_durable if each[1] < sequence)
        self._note()

    def _record(self, sequence: int) -> None:
        self.recorded_sequence = sequence
        self.announced_sequence = max(self.announced_sequence, sequence)
        self._note()

    def _note(self) -> None:
        if self._horizon is None:
            return
        waiting = self._not_durable
        if waiting and waiting[-1][0] == self._horizon.round:
            waiting.pop()
        waiting.append((self._horizon.round, self.recorded_sequence))


def taken_over(producer: str) -> Refused:
    """Return the error for an instance that a newer one has followed."""
    return Refused(
        Reason.PRODUCER_TAKEN_OVER,
        f"A newer instance of producer {producer} has opened a stream. Stop.",
    )
