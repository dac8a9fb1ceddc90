"""The audit: windows of event time, one snapshot each, in which journal and usage are compared."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Final, Protocol

from meter.counting.audit import Catalogue, CutMarks, Difference, Ledger, UsageRows, Window
from meter.counting.findings import (
    Check,
    Drift,
    EnergyFault,
    Finding,
    different_sum,
    drifted_total,
    energy_apart,
    missing_segments,
    number_again,
    repeated_id,
    wrong_segment,
)
from meter.counting.repeats import BatchNumbers, EventIds, Place
from meter.counting.windows import Extent, Weights, cut_into_windows
from meter.domain.interval import INTERVAL_MS
from meter.segment import READ_FAULTS, Segment, decode

# Findings of one check that are told; the rest is only counted.
_FINDINGS_MAX: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSegment:
    """A row of the journal; times in ms."""

    shard: int
    position: int
    event_count: int
    first_end_ms: int
    last_end_ms: int
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What is there to audit, by one look from afar.

    `missing` are the holes in each shard's positions, as first and last of each run, and
    `stray` what lies above its newest position. `released` are numbers of batches under which
    quarantined events were recorded, and how often.
    """

    since_ms: int
    until_ms: int
    positions: Mapping[int, int]
    segment_count: int
    missing: Sequence[tuple[int, int, int]]
    stray: Sequence[tuple[int, int]]
    extents: Sequence[Extent]
    weights: Weights
    released: Mapping[tuple[str, str, int], int]


class AuditSnapshot(Protocol):
    """One moment of the database, read only; nothing in it waits for anybody."""

    def catalogue(self) -> Catalogue:
        """Return the dictionaries."""
        ...

    def cut_marks(self) -> CutMarks:
        """Return where cuts were taken."""
        ...

    def usage(self, window: Window) -> UsageRows:
        """Return the rows of a window."""
        ...

    def segments(self, window: Window) -> Iterator[StoredSegment]:
        """Yield what is counted and may hold events of a window, by shard and position."""
        ...


class AuditStore(Protocol):
    """Where the audit reads."""

    def survey(self, *, since_ms: int | None, until_ms: int | None) -> Survey:
        """Look at all that there is; None stands for the first and the last event."""
        ...

    def energy_faults(
        self, *, since_ms: int | None, until_ms: int | None
    ) -> tuple[int, Sequence[EnergyFault]]:
        """Return how many intervals of pools are attributed, and those that do not add up."""
        ...

    def drifts(self, *, since_ms: int | None, until_ms: int | None) -> Iterator[Drift]:
        """Yield some of what was added up by parts of months and is not its usage."""
        ...

    def snapshot(self, survey: Survey) -> AbstractContextManager[AuditSnapshot]:
        """Open a snapshot of now."""
        ...


@dataclass(slots=True, kw_only=True)
class Audit:
    """What an audit of the journal has found.

    `journal` and `usage` are sums by name; `counts` has the findings of each check, `findings` the
    first ones of each.
    """

    since_ms: int
    until_ms: int
    segment_count: int
    producer_count: int = 0
    batch_count: int = 0
    id_count: int = 0
    id_blocks: int = 0
    energy_count: int = 0
    event_count: int = 0
    journal: Counter[str] = field(default_factory=Counter)
    usage: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    counts: Counter[Check] = field(default_factory=Counter)

    def find(self, found: Finding) -> None:
        """Take a finding."""
        self.counts[found.check] += 1
        if self.counts[found.check] <= _FINDINGS_MAX:
            self.findings.append(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A segment that an audit has read, for a window: its usage there carries the cut."""

    segment: Segment
    cut_id: int
    window: Window
    catalogue: Catalogue


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an audit has come: the window that is done, and the events of all so far."""

    window: Window
    event_count: int


class Auditor:
    """Audits the journal against usage."""

    def __init__(self, store: AuditStore) -> None:
        """Take the store."""
        self._store = store

    def audit(
        self,
        *,
        since_ms: int | None,
        until_ms: int | None,
        on_progress: Callable[[Progress], None] = lambda _: None,
        on_read: Callable[[Read], None] = lambda _: None,
    ) -> Audit:
        """Audit events that ended in a span, on edges; None stands for the first and the last.

        `on_read` hears of each segment, once for each window that it has a part in. Raises
        Unavailable, StoreRefusal.
        """
        survey = self._store.survey(since_ms=since_ms, until_ms=until_ms)
        audit = Audit(
            since_ms=survey.since_ms, until_ms=survey.until_ms, segment_count=survey.segment_count
        )
        for shard, first, last in survey.missing:
            audit.find(missing_segments(shard, first, last))
        for shard, position in survey.stray:
            audit.find(wrong_segment(shard, position, "lies above the shard's newest position"))
        audit.energy_count, faults = self._store.energy_faults(since_ms=since_ms, until_ms=until_ms)
        for fault in faults:
            audit.find(energy_apart(fault))
        for drift in self._store.drifts(since_ms=since_ms, until_ms=until_ms):
            audit.find(drifted_total(drift))
        ids = EventIds()
        numbers = BatchNumbers(released=survey.released)
        for window in cut_into_windows(survey.weights, extents=survey.extents, span=_span(survey)):
            with self._store.snapshot(survey) as snapshot:
                _WindowAudit(
                    window, snapshot, audit=audit, ids=ids, numbers=numbers, on_read=on_read
                ).run()
            on_progress(Progress(window=window, event_count=audit.event_count))
        audit.id_count, audit.id_blocks = ids.seen_count, ids.shortened_count
        audit.producer_count, audit.batch_count = numbers.producer_count, numbers.seen_count
        return audit


class _WindowAudit:
    def __init__(
        self,
        window: Window,
        snapshot: AuditSnapshot,
        *,
        audit: Audit,
        ids: EventIds,
        numbers: BatchNumbers,
        on_read: Callable[[Read], None],
    ) -> None:
        self._on_read = on_read
        self._window = window
        self._snapshot = snapshot
        self._audit = audit
        self._ids = ids
        self._numbers = numbers
        self._catalogue = snapshot.catalogue()
        self._marks = snapshot.cut_marks()
        usage = snapshot.usage(window)
        self._ledger = Ledger(window, catalogue=self._catalogue, usage=usage)

    def run(self) -> None:
        for stored in self._snapshot.segments(self._window):
            segment = self._read(stored)
            if segment is not None:
                self._take(stored, segment)
        for repeat in self._ids.end_window(self._window.end_ms):
            self._audit.find(repeated_id(repeat, self._catalogue))
        self._compare()

    def _read(self, stored: StoredSegment) -> Segment | None:
        """Return a segment; tells of one that is not what it says, in the first of its windows."""
        try:
            segment, fault = decode(stored.body), ""
        except READ_FAULTS as error:
            segment, fault = None, f"cannot be read: {error}"
        if not self._window.start_ms <= stored.first_end_ms < self._window.end_ms:
            return segment
        if segment is not None:
            fault = _fault_of(stored, segment)
            self._take_numbers(stored, segment)
        if fault:
            self._audit.find(wrong_segment(stored.shard, stored.position, fault))
        return segment

    def _take(self, stored: StoredSegment, segment: Segment) -> None:
        cut_id = self._marks.cut_of(stored.shard, stored.position)
        self._ledger.add(segment, cut_id=cut_id)
        self._on_read(
            Read(segment=segment, cut_id=cut_id, window=self._window, catalogue=self._catalogue)
        )
        if not segment.event_ids:
            return
        for repeat in self._ids.add(
            segment,
            self._ledger.account_numbers(segment),
            shard=stored.shard,
            position=stored.position,
            span_ms=(self._window.start_ms, self._window.end_ms),
        ):
            self._audit.find(repeated_id(repeat, self._catalogue))

    def _take_numbers(self, stored: StoredSegment, segment: Segment) -> None:
        for origin, _ in segment.origins:
            producer = (origin.account_id, origin.producer)
            if origin.sequence and not self._numbers.add(producer, origin.sequence):
                continue
            if origin.sequence:
                place = Place(
                    account_id=origin.account_id,
                    producer=origin.producer,
                    sequence=origin.sequence,
                    shard=stored.shard,
                    position=stored.position,
                )
                self._audit.find(number_again(place))

    def _compare(self) -> None:
        ledger, audit = self._ledger, self._audit
        journal, usage = ledger.totals()
        audit.journal.update(journal)
        audit.usage.update(usage)
        audit.event_count += ledger.event_count
        for dimension_id in sorted(ledger.unknown_dimensions):
            says = f"the journal names dimension {dimension_id}, which does not exist"
            facts = {"dimension_id": dimension_id}
            audit.find(Finding(check=Check.SUMS, says=says, facts=facts))
        for number in sorted(ledger.unknown_classes):
            says = f"the journal has token class {number}, which does not exist"
            audit.find(Finding(check=Check.SUMS, says=says, facts={"token_class": number}))
        for difference in ledger.differences():
            is_first = not audit.counts[Check.SUMS]
            places = self._places_of(difference) if is_first else ()
            audit.find(different_sum(difference, places))

    def _places_of(self, difference: Difference) -> Sequence[tuple[int, int]]:
        start_ms = difference.interval_start_ms
        places = []
        for stored in self._snapshot.segments(
            Window(start_ms=start_ms, end_ms=start_ms + INTERVAL_MS)
        ):
            cut_id = self._marks.cut_of(stored.shard, stored.position)
            try:
                segment = decode(stored.body)
            except READ_FAULTS:
                continue
            if self._ledger.holds(segment, cut_id=cut_id, key=difference.key):
                places.append((stored.shard, stored.position))
        return places


def _span(survey: Survey) -> Window:
    return Window(start_ms=survey.since_ms, end_ms=survey.until_ms)


def _fault_of(stored: StoredSegment, segment: Segment) -> str:
    if len(segment) != stored.event_count:
        return f"says {stored.event_count:,} events and holds {len(segment):,}"
    end_ms = segment.columns["end_ms"]
    if len(end_ms) and (int(end_ms.min()), int(end_ms.max())) != (
        stored.first_end_ms,
        stored.last_end_ms,
    ):
        return "holds events of another span of time than it says"
    return ""
