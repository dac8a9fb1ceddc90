"""From what callers left to sealed batches: on the sender's thread, as much as there is."""

from collections.abc import Mapping, Sequence

from tokenworks.client import limits
from tokenworks.client.columns import ColumnEncoder, SealedBatch
from tokenworks.client.events import DimensionKey, Raw, RawEvent
from tokenworks.client.hold import SpooledBatch
from tokenworks.client.intake import Intake
from tokenworks.client.session import Session
from tokenworks.client.tally import Tally
from tokenworks.client.vocabulary import Source


class Sealer:
    """Seals what lies in an intake, and hands it to a session."""

    def __init__(
        self, intake: Intake, *, tally: Tally, defaults: DimensionKey, source: Source | None = None
    ) -> None:
        """`defaults` stand in for dimensions that an event leaves open; `source` is who reports."""
        self._intake = intake
        self._tally = tally
        self._encoder = ColumnEncoder(defaults=defaults, source=source)
        self.is_spooled = False
        """Whether the progress of running reports is worth writing down."""
        self.taken_count = 0
        """Events that were taken from the intake."""

    def seal(self, session: Session, *, is_everything: bool) -> None:
        """Seal full batches always, and all there is if asked; each event is taken once.

        What comes while this runs is for the next time.
        """
        changed = self._intake.take_changed() if is_everything and self.is_spooled else {}
        spooled: list[SpooledBatch] = []
        left = len(self._intake.pending)
        while left >= limits.BATCH_EVENTS_MAX or (is_everything and left):
            raws = self._intake.take(min(left, limits.BATCH_EVENTS_MAX))
            left -= len(raws)
            self.taken_count += len(raws)
            spooled += [SpooledBatch(batch=batch) for batch in self._encode(raws)]
            if len(spooled) >= limits.BATCHES_APPENDED_MAX:
                session.take(spooled)
                spooled = []
        ended = self._finals() if is_everything else []
        spooled += ended
        progress = self._progress(changed)
        for final in ended:
            for key in final.settles:
                progress.pop(key, None)
        if spooled or progress or (is_everything and self.is_spooled):
            session.take(spooled, progress=progress)

    def give_up(self) -> int:
        """Take all that is left, for nobody can send it any more; returns how much it was."""
        count = self._intake.event_count
        self._intake.pending.clear()
        self._intake.finals.clear()
        self.taken_count += count
        return count

    def _finals(self) -> list[SpooledBatch]:
        """Seal the ends of running reports."""
        ended: list[SpooledBatch] = []
        left = len(self._intake.finals)
        while left:
            finals = self._intake.take_finals(min(left, limits.BATCH_EVENTS_MAX))
            left -= len(finals)
            self.taken_count += len(finals)
            # Those with an id share no batch with those without.
            ended += self._sealed(sorted(finals, key=_has_id))
        return ended

    def _sealed(self, finals: Sequence[tuple[int, RawEvent]]) -> list[SpooledBatch]:
        """Seal each report in the batch that has its key: a crash in between must not part them.

        Where they do not fit into one batch, or one of them is unfit, they are halved.
        """
        if len(finals) == 1:
            ((key, raw),) = finals
            return [SpooledBatch(batch=batch, settles=(key,)) for batch in self._encode([raw])]
        encoded = self._encoder.encode([raw for _, raw in finals])
        if not encoded.unfit and len(encoded.batches) == 1:
            return [SpooledBatch(batch=encoded.batches[0], settles=tuple(key for key, _ in finals))]
        middle = len(finals) // 2
        return self._sealed(finals[:middle]) + self._sealed(finals[middle:])

    def _progress(self, changed: Mapping[int, RawEvent]) -> dict[int, bytes]:
        progress = {}
        for key, raw in changed.items():
            encoded = self._encoder.encode([raw])
            if encoded.batches:
                # What is unfit is counted at the end of the report, not each time.
                progress[key] = encoded.batches[0].payload
        return progress

    def _encode(self, raws: Sequence[RawEvent]) -> Sequence[SealedBatch]:
        encoded = self._encoder.encode(raws)
        for kind, count in encoded.unfit.items():
            self._tally.refuse(kind, count=count)
        return encoded.batches


def _has_id(final: tuple[int, RawEvent]) -> bool:
    return Raw(*final[1]).event_id is not None
