"""Follows the journal: reads what is not counted, adds it up, moves the watermark with it."""

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from meter import segment
from meter.counting.aggregate import UsageDelta, merge
from meter.counting.fresh import Run, add_up
from meter.domain.errors import MeterError
from meter.domain.limits import GROUP_EVENTS_MAX
from meter.segment import Gathered
from meter.spans import find_tracer

_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.5
_RETRY_SECONDS = 1.0
# Counting takes a fifth of the time, so that many small commits are added up together: rows of a
# round cost Postgres the same however many events they sum.
_PAUSE_PER_WORK = 4.0
# What is committed once a round has read waits for its end, the pause, and the next round: for so
# long, as far as two rounds take no longer. Behind slower ones there is no pause.
_BEHIND_SECONDS = 3.5
# How often a pause looks for what was committed meanwhile and can be added up: at full rate there
# is some then, and memory is free again.
_LOOK_SECONDS = 0.1
# A round reads for so long, as its rows cost Postgres the same however many events they sum; and no
# longer, for a cut waits for its end.
_READ_SECONDS_MAX = 2.0
# Rows of a round's parts that are held until they are added up.
_ROWS_HELD_MAX = 2_000_000
# Events whose reporters are looked for at a time: what was found a moment ago is not known before
# the round is committed, and would be found again by each look; more of them would take memory.
_NOTED_EVENTS = 2_000_000
_DAY_MS = 24 * 3600 * 1000


class CountingTransaction(Protocol):
    """A shard's watermark, locked, with what lies above it."""

    def recall(self) -> Run | None:
        """Return the next segments from memory, added up; None where they have to be read.

        Each call goes on behind the last one, or behind the last one of `read`.
        """
        ...

    def read(self, *, events_max: int) -> Sequence[bytes]:
        """Return the bodies of the next segments, at least one if there is any.

        Each call goes on behind the last one, or behind the last one of `recall`.
        """
        ...

    def add(self, delta: UsageDelta) -> None:
        """Add to usage, under the cut that is open."""
        ...

    def note_reports(self, segments: Sequence[Gathered]) -> None:
        """Note which producers reported for which accounts; written by `advance`."""
        ...

    def advance(self) -> None:
        """Move the watermark over what was read."""
        ...


class CountingStore(Protocol):
    """Where the follower reads and writes."""

    def counting(self, shard: int | None = None) -> AbstractContextManager[CountingTransaction]:
        """Open a transaction that holds the watermark of our own shard, or of one that is named."""
        ...

    def add_up_ahead(self) -> None:
        """Add up what was just committed, for the next round; asks no database."""
        ...

    def find_orphans(self) -> Sequence[int]:
        """Return the shards that have something to count, and nobody who does."""
        ...

    def take_cut_if_due(self, *, now_ms: int, every_ms: int) -> int | None:
        """Take the day's cut when the last one is old; return its id."""
        ...


class _Round:
    """What one transaction counts, summed part by part; `has_more` tells that it was cut short."""

    def __init__(self) -> None:
        self.event_count = 0
        self.row_count = 0
        self.has_more = False
        self._runs: list[Run] = []

    def take(self, run: Run) -> None:
        """Take a part."""
        self._runs.append(run)
        self.event_count += run.event_count
        self.row_count += len(run.delta)

    def sums(self) -> tuple[UsageDelta | None, UsageDelta | None]:
        """Return what all of it comes to, and what was reported: all but corrections.

        None stands for nothing.
        """
        deltas = [run.delta for run in self._runs]
        reported = [run.reported for run in self._runs if run.reported is not None]
        whole = merge(deltas) if deltas else None
        if all(run.reported is run.delta for run in self._runs):
            return whole, whole
        return whole, merge(reported) if reported else None


class Follower:
    """Runs on a thread of its own; `wake` tells it that there is more."""

    def __init__(
        self,
        store: CountingStore,
        *,
        now_ms: Callable[[], int],
        monotonic_seconds: Callable[[], float],
        on_counted: Callable[[UsageDelta], None],
        on_death: Callable[[], None] = lambda: None,
    ) -> None:
        """Take the store; `on_counted` hears of what was counted, after its commit.

        `on_death` is told when a fault that nobody foresaw ends the thread.
        """
        self._store = store
        self._now_ms = now_ms
        self._monotonic_seconds = monotonic_seconds
        self._on_counted = on_counted
        self._on_death = on_death
        self._looked_seconds: float | None = None
        self._woken = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def wake(self) -> None:
        """Say that the journal grew."""
        self._woken.set()

    def stop(self) -> None:
        """Count what is there, then end."""
        self._stopping.set()
        self._woken.set()
        self._thread.join()

    def count_once(self, shard: int | None = None) -> int:
        """Count the next segments in one transaction and return how many events they held.

        Of our own shard, or of one that is named and that nobody counts.
        """
        return self._count_round(shard).event_count

    def _count_round(self, shard: int | None = None) -> _Round:
        with self._store.counting(shard) as transaction:
            round_ = self._read_round(transaction)
            counted, reported = round_.sums()
            if counted is not None:
                transaction.add(counted)
                transaction.advance()
        # A correction is no production, and counters never fall.
        if reported is not None:
            self._on_counted(reported)
        return round_

    def _read_round(self, transaction: CountingTransaction) -> _Round:
        """Read what there is, a part at a time, as long as a round may take."""
        begin = self._monotonic_seconds()
        round_ = _Round()
        unnoted: list[Gathered] = []
        while not round_.has_more and (run := transaction.recall() or _read(transaction)):
            unnoted += run.unnoted
            if sum(map(len, unnoted)) >= _NOTED_EVENTS:
                transaction.note_reports(unnoted)
                unnoted = []
            round_.take(run)
            round_.has_more = (
                self._monotonic_seconds() - begin >= _READ_SECONDS_MAX
                or round_.row_count >= _ROWS_HELD_MAX
            )
        if unnoted:
            transaction.note_reports(unnoted)
        return round_

    def count_orphans(self) -> int:
        """Count what lies in shards that nobody counts any more; return how many events."""
        return sum(self.count_once(shard) for shard in self._store.find_orphans())

    def _run(self) -> None:
        try:
            self._follow()
        finally:
            if not self._stopping.is_set():
                self._on_death()

    def _follow(self) -> None:
        while True:
            stopping = self._stopping.is_set()
            try:
                has_counted = self._count_and_rest()
                # After each round: under load there is always more to count.
                self._store.take_cut_if_due(now_ms=self._now_ms(), every_ms=_DAY_MS)
                if not stopping:
                    has_counted |= self._look_for_orphans()
            except (MeterError, ValueError) as error:
                # ValueError: a segment of a later version. It waits for the upgrade.
                told = {"fault": str(error), "cause": getattr(error, "cause", None)}
                _log.warning("counting_waits", extra=told)
                if stopping:
                    return
                self._stopping.wait(_RETRY_SECONDS)
                continue
            if has_counted:
                continue
            if stopping:
                return
            self._woken.wait(_POLL_SECONDS)
            self._woken.clear()

    def _count_and_rest(self) -> bool:
        begin = self._monotonic_seconds()
        round_ = self._count_round()
        took = self._monotonic_seconds() - begin
        tracer = find_tracer() if round_.event_count else None
        if tracer is not None:
            counted = {"tokenworks.events": round_.event_count}
            tracer.record("counting round", seconds=took, trace=None, attributes=counted)
        if round_.event_count and not round_.has_more:
            self._rest(pause_seconds(took))
        return round_.event_count > 0

    def _rest(self, seconds: float) -> None:
        """Pause, and add up meanwhile what is committed."""
        end = self._monotonic_seconds() + seconds
        while (left := end - self._monotonic_seconds()) > 0:
            if self._stopping.wait(min(left, _LOOK_SECONDS)):
                return
            self._store.add_up_ahead()

    def _look_for_orphans(self) -> bool:
        """Look at what others have left behind, as often as at what there is when nothing wakes."""
        now_seconds = self._monotonic_seconds()
        looked_seconds = self._looked_seconds
        if looked_seconds is not None and now_seconds - looked_seconds < _POLL_SECONDS:
            return False
        self._looked_seconds = now_seconds
        return self.count_orphans() > 0


def pause_seconds(took: float) -> float:
    """Return for how long counting rests after a round that took so many seconds."""
    return min(_PAUSE_PER_WORK * took, max(_BEHIND_SECONDS - 2 * took, 0.0))


def _read(transaction: CountingTransaction) -> Run | None:
    """Read the next segments back and add them up; None when there are none."""
    bodies = transaction.read(events_max=GROUP_EVENTS_MAX)
    if not bodies:
        return None
    return add_up([segment.decode(body) for body in bodies], is_noted=lambda _: False)
