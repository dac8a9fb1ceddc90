"""The rules of numbered batches, without input or output: facts go in, messages come out.

Batches lie in a `Hold` under local numbers; a batch's number at the meter is its local number
plus an offset. Invariants: a number, once it went out, keeps its bytes, over restarts too; a batch
is released only when the meter has said that it is durable; a batch that never went out may still
get another number. The offset is fixed at the first contact, on disk before the first batch goes.
"""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from enum import Enum

from tokenworks.client.columns import SealedBatch
from tokenworks.client.hold import Hold


class Verdict(Enum):
    """What has to happen after a message of the meter."""

    CONTINUE = "continue"
    REOPEN = "reopen"
    """End this connection and open another: the two sides disagree about what is held."""
    TAKEN_OVER = "taken_over"
    """Somebody else has written under this producer's name: stop."""
    FORKED = "forked"
    """Somebody else has a copy of this hold, and the meter cannot tell whose numbers are whose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberedBatch:
    """A batch under its number, for good."""

    sequence: int
    batch: SealedBatch
    is_doubtful: bool = False
    """The meter is to keep it aside: it may have been reported under another number."""


class UsageStream:
    """A producer's side of its stream, over all connections of one start of the process."""

    def __init__(self, hold: Hold, *, doubts_when_behind: bool = False) -> None:
        """`doubts_when_behind`: a hold that the meter is ahead of is a copy of another one.

        So it is when all that was ever sent was on its disk before. What it holds and nobody can
        vouch for then goes to the meter as doubtful, to be kept aside.
        """
        self._hold = hold
        self._doubts_when_behind = doubts_when_behind
        self._sent = hold.first - 1 if hold.offset is None else hold.next - 1
        """The highest local number that may ever have gone out."""
        self._cursor = hold.first
        """The local number to send next."""
        self._recorded = hold.first - 1
        """The meter has recorded up to this local number."""
        self._settled = self._settled_before = hold.released
        """The highest local number that ever was durable at the meter."""
        self._in_flight_max = 0
        """0 while no stream is open."""
        self._is_proven = hold.offset is None
        """Whether all that the meter has below the number it expects is known to be ours."""
        self._comparing: int | None = None
        """The local number that is sent again to see whether its bytes are those recorded."""
        self._is_compared_soon = False
        """Whether it still has to be sent."""
        self._expected = 0
        """What the meter expects, while there is something to compare."""
        self._has_differed = False
        """Whether a comparison has shown other bytes than ours."""
        self._open_from: int | None = None
        """The next connection passes over what lies before this local number: it is lost."""
        self.missing_from = 0
        """The first number that the connection passes over; 0 where nothing before is held."""
        self.acknowledged_event_count = 0
        """Events that are durable."""
        self.set_aside_event_count = 0
        """Events that the meter has set aside, as far as its acks arrived."""
        self.resent_count = 0
        """Batches that went out a second time, as far as this process knows."""
        self.gap_count = 0
        """Numbers that were durable here and that the meter has lost since."""

    @property
    def is_open(self) -> bool:
        """Whether the meter has answered the opening of this connection."""
        return self._in_flight_max > 0

    @property
    def is_comparing(self) -> bool:
        """Whether the answer to a comparison is awaited: nothing else may be asked until then."""
        return self._comparing is not None

    @property
    def has_room(self) -> bool:
        """Whether a batch that is added now could be sent at once."""
        idle = self.is_open and not self.is_comparing and self._cursor == self._hold.next
        return idle and self._in_flight < self._in_flight_max

    @property
    def must_reopen(self) -> bool:
        """Whether the way on is a new connection, which passes over a hole."""
        return self._open_from is not None

    @property
    def settled(self) -> int:
        """The highest local number that was durable, as all before it were."""
        return self._settled

    @property
    def settled_count(self) -> int:
        """Batches that became durable since the start."""
        return self._settled - self._settled_before

    @property
    def last_sequence(self) -> int:
        """The highest number that a batch has so far; 0 while none is known."""
        offset = self._hold.offset
        return 0 if offset is None else max(self._hold.next - 1 + offset, 0)

    @property
    def _in_flight(self) -> int:
        return self._cursor - 1 - self._recorded

    def connect(self) -> int:
        """Begin a connection; returns the `first_sequence` to open it with."""
        self.disconnect()
        if self._open_from is None:
            self.missing_from = 0
        else:
            # The meter counts the numbers before it as missing, so nobody gets them any more.
            self._sent = max(self._sent, self._open_from - 1)
            return self._number(self._open_from)
        oldest = self._find_present(self._hold.first)
        return 0 if oldest is None or oldest > self._sent else self._number(oldest)

    def disconnect(self) -> None:
        """Note that the connection is gone."""
        self._in_flight_max = 0
        self._comparing = None

    def opened(self, *, next_sequence: int, in_flight_max: int) -> Verdict:
        """Take the number that the meter expects next: its first answer, or a call to go back.

        Raises DiskFault where the numbers could not be written down: nothing may be sent then.
        """
        if next_sequence < 1:
            return Verdict.REOPEN
        if self._comparing is not None:
            return self._give_up_comparing(next_sequence, in_flight_max=in_flight_max)
        self._open_from = None
        if not self._is_proven:
            self._comparing = self._find_doubtful(next_sequence)
            if self._comparing is not None:
                self._expected = next_sequence
                self._is_compared_soon = True
                self._in_flight_max = max(in_flight_max, 1)
                return Verdict.CONTINUE
        elif self._is_beyond(next_sequence) and self._hold.released < self._sent:
            # Numbers that we did not give are recorded, so they are somebody else's, and perhaps
            # ours too.
            return Verdict.TAKEN_OVER
        verdict = self._go_to(next_sequence)
        if verdict is Verdict.CONTINUE:
            self._is_proven = True
            self._in_flight_max = max(in_flight_max, 1)
        return verdict

    def acknowledged(
        self,
        *,
        sequence: int,
        durable_sequence: int,
        set_aside_count: int = 0,
        is_changed: bool = False,
    ) -> Verdict:
        """Take an ack: all up to `sequence` is recorded, up to `durable_sequence` for good.

        `is_changed`: other bytes were recorded under the number before, ours are in quarantine.
        Raises DiskFault like `opened`.
        """
        if not self.is_open:
            return Verdict.REOPEN
        if self.is_comparing:
            verdict = self._compare(sequence, is_changed=is_changed)
            if verdict is not Verdict.CONTINUE:
                return verdict or Verdict.CONTINUE
            sequence = self._expected - 1
        elif sequence >= self._number(self._sent + 1):
            return Verdict.REOPEN
        recorded = self._find_up_to(sequence)
        if recorded > self._recorded:
            self._recorded = recorded
            self._cursor = max(self._cursor, recorded + 1)
            self.set_aside_event_count += set_aside_count
        durable = min(self._find_up_to(durable_sequence), self._recorded)
        if durable > self._hold.released:
            self._release(durable)
        return Verdict.CONTINUE

    def next_batch(self) -> NumberedBatch | None:
        """Return the batch to send now; None where there is none, or too many are in flight.

        Raises DiskFault where it cannot be read now.
        """
        if not self.is_open:
            return None
        if self._comparing is not None:
            return self._compared_batch(self._comparing)
        local = self._cursor
        if local >= self._hold.next or self._in_flight >= self._in_flight_max:
            return None
        batch = self._hold.batch(local)
        if batch is None:
            held = self._find_present(self._hold.released + 1)
            if held is None or held > local:
                # All before the hole is durable: now the meter can be told to pass over it, and
                # will not have lost what is before it by then.
                self._open_from = self._find_present(local + 1)
                self.missing_from = self._number(local)
            return None
        self._cursor = local + 1
        if local <= self._sent:
            self.resent_count += 1
        self._sent = max(self._sent, local)
        return self._numbered(local, batch)

    def _give_up_comparing(self, sequence: int, *, in_flight_max: int) -> Verdict:
        """Go on though what the meter has under our numbers is too old to be compared."""
        if self._has_differed:
            # The copy went its own way for long: who is right is for a person to say.
            return Verdict.FORKED
        self._comparing = None
        oldest = self._find_present(self._hold.released + 1)
        if oldest is None or self._number(oldest) >= sequence:
            # All that is held has numbers which the meter does not have yet.
            verdict = self._go_to(sequence)
        else:
            verdict = self._renumber(sequence, first=oldest, doubtful_below=self._hold.next)
        self._is_proven = True
        self._in_flight_max = max(in_flight_max, 1)
        return verdict

    def _compared_batch(self, local: int) -> NumberedBatch | None:
        if not self._is_compared_soon:
            return None
        batch = self._hold.batch(local)
        self._is_compared_soon = False
        if batch is None:
            # Found to be damaged just now: it cannot be compared. A new connection looks again.
            self._open_from = self._find_present(self._hold.first)
            self.missing_from = 0
            return None
        self.resent_count += 1
        return self._numbered(local, batch)

    def _compare(self, sequence: int, *, is_changed: bool) -> Verdict | None:
        """Take the answer to a comparison; None where the next one is to come."""
        local = self._comparing
        assert local is not None
        if self._is_compared_soon or sequence < self._number(local):
            return None
        before = None
        if is_changed:
            self._has_differed = True
            self.set_aside_event_count += self._hold.event_count(local)
            before = self._find_present_below(local)
        self._comparing = before
        self._is_compared_soon = before is not None
        if before is not None:
            return None
        verdict = self._go_to(self._expected)
        self._is_proven = True
        return verdict

    def _is_beyond(self, sequence: int) -> bool:
        return self._hold.offset is not None and sequence > self._number(self._sent + 1)

    def _go_to(self, sequence: int) -> Verdict:
        """Have `sequence` sent next; below it all is recorded, and what we sent of it is ours."""
        hold = self._hold
        if hold.offset is None:
            return self._renumber(sequence)
        if self._is_beyond(sequence):
            doubtful_below = hold.next if self._doubts_when_behind else 0
            return self._renumber(sequence, doubtful_below=doubtful_below)
        oldest = self._number(self._range().start)
        if sequence < oldest:
            # The meter came back older than it was. What is no longer kept is lost to it; opening
            # anew tells it so, and a stream that keeps nothing simply goes on from there.
            never_durable = max(hold.first - 1 - self._settled, 0)
            self.gap_count += max(oldest - sequence - never_durable, 0)
            return self._pass_over(hold.first, sequence=sequence)
        local = self._find_from(sequence)
        if self._number(local) > sequence:
            # The numbers between were somebody else's, and the meter has lost them.
            return self._pass_over(local, sequence=sequence)
        return self._place(local)

    def _pass_over(self, local: int, *, sequence: int) -> Verdict:
        """Leave out the numbers from `sequence` on that nobody has any more."""
        if local > self._sent:
            return self._renumber(sequence)
        self._open_from = self._find_present(local)
        self.missing_from = sequence
        return Verdict.REOPEN

    def _renumber(
        self, sequence: int, *, first: int | None = None, doubtful_below: int = 0
    ) -> Verdict:
        """Let what never went out, or what is held from `first` on, begin at `sequence`."""
        local = self._sent + 1 if first is None else first
        self._hold.set_offset(sequence - local, first_local=local, doubtful_below=doubtful_below)
        return self._place(local)

    def _place(self, local: int) -> Verdict:
        if local <= self._hold.released:
            # Lost by a meter that came back older: what is kept of it is held again.
            self._hold.release(local - 1)
        self._recorded = local - 1
        self._cursor = local
        return Verdict.CONTINUE

    def _release(self, local: int) -> None:
        for durable in range(self._settled + 1, local + 1):
            self.acknowledged_event_count += self._hold.event_count(durable)
        self._settled = max(self._settled, local)
        self._hold.release(local)

    def _number(self, local: int) -> int:
        offset = self._hold.offset_of(local)
        assert offset is not None, "numbers are asked for after the first contact"
        return local + offset

    def _numbered(self, local: int, batch: SealedBatch) -> NumberedBatch:
        return NumberedBatch(
            sequence=self._number(local), batch=batch, is_doubtful=self._hold.is_doubtful(local)
        )

    def _find_up_to(self, sequence: int) -> int:
        """The newest local number that went out under this number or a lower one."""
        went_out = self._range()
        found = went_out.start - 1 + bisect_right(went_out, sequence, key=self._number)
        if found < went_out.start <= self._sent and sequence < self._number(went_out.start) - 1:
            # What went out between is no longer kept: nothing says that the meter has it.
            return min(found, self._recorded)
        return found

    def _find_from(self, sequence: int) -> int:
        """The oldest local number that went out under this number or a higher one, or the next."""
        went_out = self._range()
        return went_out.start + bisect_left(went_out, sequence, key=self._number)

    def _range(self) -> range:
        """The local numbers that went out, from the first that is kept and has a number."""
        unsent = self._sent + 1
        first = min(self._find_present(self._hold.first) or unsent, unsent)
        while first < unsent and self._hold.offset_of(first) is None:
            first += 1
        return range(first, unsent)

    def _find_present(self, local: int) -> int | None:
        numbers = range(max(local, self._hold.first), self._hold.next)
        return next((number for number in numbers if self._hold.event_count(number)), None)

    def _find_present_below(self, local: int) -> int | None:
        numbers = range(local - 1, self._hold.first - 1, -1)
        return next((number for number in numbers if self._hold.event_count(number)), None)

    def _find_doubtful(self, sequence: int) -> int | None:
        """The newest batch that the meter must have, if it is ours."""
        return self._find_present_below(self._find_up_to(sequence - 1) + 1)
