"""What this process has just committed, added up from memory: it is neither read back nor unpacked.

The journal stays the truth. What is held here is counted only where the journal names the very
rows, above the watermark and in the transaction that moves it; all else is read from there.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, NamedTuple

from meter.counting.aggregate import UsageDelta, aggregate
from meter.domain.event import SIGN
from meter.domain.limits import FRESH_BYTES_MAX, GROUP_EVENTS_MAX
from meter.segment import Gathered

# What counting reads of a segment, beside its tokens.
_COUNTED: Final = ("dimension", "end_ms", "finish", "quality", SIGN)
_INT64_BYTES: Final = 8
# So many events are worth adding up before a round does: fewer of them cost it next to nothing.
_AHEAD_EVENTS_MIN: Final = 65_536
# Of a row of sums, beside its tokens.
_KEYS_AND_COUNTS: Final = 7
# What a segment takes beside its numbers, and each of its batches: where events are few, it is all.
_SEGMENT_BYTES: Final = 2_048
_BATCH_BYTES: Final = 320


class Written(NamedTuple):
    """A row of the journal without its body: it tells one from another at the same position."""

    position: int
    event_count: int
    commit_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Segments that lie one behind the other, added up.

    `reported` is of all but corrections, None where there is nothing else. `unnoted` are the
    segments that may say something new of who reported for whom.
    """

    delta: UsageDelta
    reported: UsageDelta | None
    event_count: int
    unnoted: Sequence[Gathered]


@dataclass(frozen=True, slots=True, kw_only=True)
class FreshRun:
    """A run that was added up from memory, and the rows that the journal has to have of it."""

    rows: Sequence[Written]
    run: Run
    size_bytes: int


def add_up(segments: Sequence[Gathered], *, is_noted: Callable[[Gathered], bool]) -> Run:
    """Add segments up, at least one; `is_noted` tells which of them say nothing new."""
    delta = aggregate(segments)
    reported = [part for part in segments if not part.is_correction]
    is_all = len(reported) == len(segments)
    return Run(
        delta=delta,
        reported=delta if is_all else aggregate(reported) if reported else None,
        event_count=sum(map(len, segments)),
        unnoted=[part for part in segments if not is_noted(part)],
    )


class Fresh:
    """Holds what was committed until it is counted; the committing thread gives, counting takes.

    Of one shard, in order, without a hole. What is given while it is full is left out, and with it
    all behind it until what is held has been counted: the oldest are wanted next.
    """

    def __init__(self, *, bytes_max: int = FRESH_BYTES_MAX) -> None:
        """Begin with nothing; one group of segments more than `bytes_max` is held at most."""
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Begin anew: the database may be an older one than before."""
        with self._lock:
            self._shard = 0
            self._next_position = 0
            self._waiting: deque[tuple[Written, Gathered]] = deque()
            self._waiting_events = 0
            self._runs: deque[FreshRun] = deque()
            self.size_bytes = 0

    def hold(self, shard: int, written: Sequence[tuple[Written, Gathered]]) -> None:
        """Take what a transaction has written to a shard, after its commit."""
        if not written:
            return
        with self._lock:
            is_next = (shard, written[0][0].position) == (self._shard, self._next_position)
            is_empty = not self._waiting and not self._runs
            if not (is_next or is_empty) or self.size_bytes >= self._bytes_max:
                return
            self._shard = shard
            self._next_position = written[-1][0].position + 1
            for row, segment in written:
                part = _without_the_rest(segment)
                self._waiting.append((row, part))
                self._waiting_events += row.event_count
                self.size_bytes += _size_of_segment(part)

    def without_held(self, shard: int, rows: Sequence[Written]) -> Sequence[Written]:
        """Return of a shard's next rows those that lie before what is held."""
        with self._lock:
            first = self._runs[0].rows[0] if self._runs else None
            if first is None and self._waiting:
                first = self._waiting[0][0]
        if first is None or self._shard != shard:
            return rows
        return [row for row in rows if row.position < first.position]

    def add_up_ahead(self, *, is_noted: Callable[[Gathered], bool]) -> None:
        """Add up what waits and is enough for a run: a round finds sums, and memory is free."""
        while self._waiting_events >= _AHEAD_EVENTS_MIN:
            self._add_up(is_noted)

    def take(
        self, shard: int, *, after: int, is_noted: Callable[[Gathered], bool]
    ) -> FreshRun | None:
        """Return the run that lies right behind a position of a shard; it is held no more."""
        with self._lock:
            while self._runs and not self._is_behind(self._runs[0].rows[0], shard, after):
                self._let_go_of_run()
            while self._waiting and not self._is_behind(self._waiting[0][0], shard, after):
                self._let_go_of_segment()
        if self._waiting and not self._runs:
            self._add_up(is_noted)
        with self._lock:
            if not self._runs or self._runs[0].rows[0].position != after + 1:
                return None
            return self._let_go_of_run()

    def _is_behind(self, row: Written, shard: int, position: int) -> bool:
        return self._shard == shard and row.position > position

    def _add_up(self, is_noted: Callable[[Gathered], bool]) -> None:
        """Add up what waits, as much as is counted at a time; on the counting thread alone."""
        rows: list[Written] = []
        segments: list[Gathered] = []
        event_count = 0
        with self._lock:
            for row, segment in self._waiting:
                event_count += row.event_count
                if rows and event_count > GROUP_EVENTS_MAX:
                    break
                rows.append(row)
                segments.append(segment)
        run = add_up(segments, is_noted=is_noted)
        size_bytes = _size_of_run(run)
        with self._lock:
            for _ in rows:
                self._let_go_of_segment()
            self._runs.append(FreshRun(rows=rows, run=run, size_bytes=size_bytes))
            self.size_bytes += size_bytes

    def _let_go_of_segment(self) -> None:
        row, segment = self._waiting.popleft()
        self._waiting_events -= row.event_count
        self.size_bytes -= _size_of_segment(segment)

    def _let_go_of_run(self) -> FreshRun:
        found = self._runs.popleft()
        self.size_bytes -= found.size_bytes
        return found


def _without_the_rest(segment: Gathered) -> Gathered:
    """Return what counting reads of a segment."""
    columns = {name: it for name, it in segment.columns.items() if name in _COUNTED}
    return replace(segment, columns=columns, event_ids=b"", request_ids=())


def _size_of_segment(segment: Gathered) -> int:
    columns = sum(it.nbytes for it in (*segment.columns.values(), *segment.tokens.values()))
    return columns + _SEGMENT_BYTES + _BATCH_BYTES * len(segment.origins)


def _size_of_run(run: Run) -> int:
    deltas = {id(it): it for it in (run.delta, run.reported) if it is not None}.values()
    numbers = sum(
        len(it) * (_KEYS_AND_COUNTS + len(it.tokens)) + 2 * len(it.sampled.end_ms) for it in deltas
    )
    return numbers * _INT64_BYTES + sum(map(_size_of_segment, run.unnoted))
