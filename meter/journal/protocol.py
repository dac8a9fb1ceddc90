"""The rules of numbered batches, as pure functions of what is on disk."""

from enum import Enum
from typing import Final, NamedTuple

from meter.domain.limits import DIGESTS_KEPT

DIGEST_BYTES: Final = 8


class Verdict(Enum):
    """What becomes of a batch."""

    RECORD = "record"
    REPEATED = "repeated"
    CHANGED = "changed"
    HOLE = "hole"
    TAKEN_OVER = "taken over"


# Of each batch: a member is looked up in its class five times slower than a name here.
_RECORD: Final = Verdict.RECORD
_KEPT_BYTES: Final = DIGESTS_KEPT * DIGEST_BYTES


class ProducerState(NamedTuple):
    """A producer on disk: its newest instance, its last number, the digests of its last batches.

    `digests` holds up to `DIGESTS_KEPT` digests of 8 bytes, the last batch's at the end.
    `announced_sequence` is the highest number that it said it has given; 0 when it said nothing.
    """

    instance: bytes
    sequence: int
    digests: bytes
    announced_sequence: int = 0

    def judge(self, *, instance: bytes, sequence: int, digest: bytes) -> Verdict:
        """Tell what becomes of a batch; only RECORD moves the state."""
        if instance != self.instance:
            return Verdict.TAKEN_OVER
        if sequence == self.sequence + 1:
            return _RECORD
        if sequence > self.sequence:
            return Verdict.HOLE
        age = self.sequence - sequence
        if age >= len(self.digests) // DIGEST_BYTES:
            # Too old to compare, or passed over in a gap: nothing shows that these bytes were
            # recorded, so nothing is acknowledged. Who keeps to the protocol is never here.
            return Verdict.HOLE
        end = len(self.digests) - age * DIGEST_BYTES
        known = self.digests[end - DIGEST_BYTES : end]
        return Verdict.REPEATED if known == digest else Verdict.CHANGED

    def recorded(self, digest: bytes) -> "ProducerState":
        """Return the state after the next batch."""
        kept = (self.digests + digest)[-_KEPT_BYTES:]
        return ProducerState(self.instance, self.sequence + 1, kept, self.announced_sequence)

    def opened(
        self, *, instance: bytes, first_sequence: int, missing_from: int = 0
    ) -> "ProducerState":
        """Return the state after OpenStream.

        Numbers below `first_sequence` that never came are passed over; the caller records them as
        a gap. `first_sequence` 0 means that the producer holds nothing: what an earlier instance
        announced and never sent is lost then, and passed over too. With a `missing_from`, only
        where that is the next number: the producer may still hold what lies before it.
        """
        if missing_from not in (0, self.sequence + 1):
            return self._replace(instance=instance)
        if not first_sequence and instance != self.instance:
            first_sequence = self.announced_sequence + 1
        if first_sequence > self.sequence + 1:
            return self._replace(instance=instance, sequence=first_sequence - 1, digests=b"")
        return self._replace(instance=instance)
