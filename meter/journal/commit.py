"""One group's commit: the order in which a transaction decides, claims, appends and saves."""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

import numpy as np

from meter.arbiter import Settlement
from meter.corrections import NewCorrection
from meter.domain.errors import MeterError, Reason, Refused
from meter.domain.event import (
    Claim,
    Claims,
    EventBatch,
    Evidence,
    IntArray,
    Origin,
    ProducerKey,
    Reports,
    SetAside,
)
from meter.domain.outcome import FIRST_QUARANTINED, Outcome
from meter.journal.observing import Observing
from meter.journal.protocol import ProducerState, Verdict
from meter.segment import Gathered, gather

# Of each batch and each event: a member is looked up in its class five times slower than a name.
_RECORD: Final = Verdict.RECORD
_RECORDED: Final = int(Outcome.RECORDED)
# The store writes a segment while the next is packed, and the numbers of one stay near the
# processor.
_SEGMENT_EVENTS: Final = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A person's decision, made with an API key, to record a quarantine entry after all."""

    quarantine_id: int
    key_id: str


@dataclass(slots=True, kw_only=True)
class Submission:
    """A checked batch that waits for its commit.

    Of one that has a `read` nothing but its origin and size is known yet: `read` fills in `batch`
    and `set_aside`, or the `fault` that keeps it from being recorded, and is None from then on.

    `batch` holds the events to record, `set_aside` the others; `claims` is there when the events
    are counted by their ids, in the order of `batch`. `whole` is the payload to keep if the
    number turns out to be used with other bytes. `releases` names a quarantine entry that this
    submission records; `corrects` is the correction that `batch` holds, with its signs, and
    `settles` what the arbiter has decided by it.
    `size_bytes` is what it takes of the buffer.
    """

    origin: Origin
    batch: EventBatch
    set_aside: Sequence[SetAside] = ()
    claims: Claims | None = None
    whole: bytes = b""
    releases: Release | None = None
    corrects: NewCorrection | None = None
    settles: Settlement | None = None
    size_bytes: int = 0
    read: Callable[[], None] | None = None
    fault: Exception | None = None


@dataclass(slots=True, kw_only=True)
class Result:
    """What became of a submission.

    `verdict` is RECORD for calls without a number; `next_sequence` is the number expected next;
    `set_aside` pairs entries with their quarantine ids; `outcomes` has one number for each event
    of a call with claims, in the order of its batch. `correction_id` is 0 where another correction
    of the same event was first. `known_dimension_count` is of those that this server met for the
    first time: how many the database had. `differing_count` is of those observed whose counts are
    others than those of the report that is counted.
    """

    verdict: Verdict
    next_sequence: int = 0
    set_aside: list[tuple[SetAside, int]] = field(default_factory=list)
    outcomes: Sequence[int] = ()
    recorded_count: int = 0
    correction_id: int = 0
    known_dimension_count: int = 0
    differing_count: int = 0


class Transaction(Protocol):
    """What the store can do within one transaction."""

    def lock_producers(self, keys: Collection[ProducerKey]) -> dict[ProducerKey, ProducerState]:
        """Lock and return those that no other server holds."""
        ...

    def save_producers(self, states: dict[ProducerKey, ProducerState], *, now_ms: int) -> None:
        """Write the states of locked producers."""
        ...

    def claim_events(self, claims: dict[bytes, bytes], *, now_ms: int) -> dict[bytes, bytes]:
        """Claim keys; return the hashes of those claimed before."""
        ...

    def claim_requests(self, claims: dict[bytes, Claim], *, now_ms: int) -> dict[bytes, Claim]:
        """Claim requests; return how those are counted that were claimed before."""
        ...

    def observe(self, evidence: Sequence[Evidence], *, now_ms: int) -> dict[bytes, bytes]:
        """Keep reports, each once; return the hashes of those kept before, by event and report."""
        ...

    def keep_originals(self, reports: Reports, *, span_ms: tuple[int, int], now_ms: int) -> None:
        """Keep usage objects as they came, of events that ended in a span, both ends included."""
        ...

    def append(self, part: Gathered) -> None:
        """Append a segment."""
        ...

    def set_aside(self, items: Sequence[tuple[Origin, SetAside]]) -> list[int]:
        """Quarantine events and return the entries' ids."""
        ...

    def release(self, quarantine_id: int, *, key_id: str, now_ms: int) -> bool:
        """Mark a held entry as released."""
        ...

    def correct(self, correction: NewCorrection, *, now_ms: int) -> int | None:
        """Note the correction that the next segment holds; None when another one was first."""
        ...

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """Note what is counted by corrections, each with its id in `after`."""
        ...


class Store(Protocol):
    """The journal as the writer sees it."""

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Open a group's transaction."""
        ...

    def ensure_dimensions(self, batches: Sequence[EventBatch]) -> Sequence[int]:
        """Give database ids to dimensions that are new here.

        Returns for each batch how many of its own the database had already.
        """
        ...

    def dimension_ids(self, batch: EventBatch) -> IntArray:
        """Return each event's database id."""
        ...


def commit_group(
    store: Store, group: Sequence[Submission], *, now_ms: Callable[[], int]
) -> list[Result | MeterError | None]:
    """Record a group in one transaction and return a result for each, in order.

    None means: another server holds the producer; put it off to the next group. Raises
    `Unavailable` when the fate of the group is not known, `StoreRefusal` for data that the
    database refuses, and the `fault` of a submission that has one.
    """
    for item in group:
        if item.fault is not None:
            raise item.fault
    known = store.ensure_dimensions([item.batch for item in group])
    with store.transaction() as transaction:
        results = _Group(store, transaction, now_ms=now_ms()).record(group)
    if any(known):
        for result, count in zip(results, known, strict=True):
            if isinstance(result, Result):
                result.known_dimension_count = count
    return results


class _Group:
    def __init__(self, store: Store, transaction: Transaction, *, now_ms: int) -> None:
        self._store = store
        self._transaction = transaction
        self._now_ms = now_ms
        self._states: dict[ProducerKey, ProducerState] = {}

    def record(self, group: Sequence[Submission]) -> list[Result | MeterError | None]:
        keys = {item.origin.producer_key for item in group if _is_numbered(item)}
        self._states = self._transaction.lock_producers(keys)
        results = [self._judge(item) for item in group]
        recorded = [
            (item, result)
            for item, result in zip(group, results, strict=True)
            if isinstance(result, Result) and result.verdict is _RECORD
        ]
        reported = [(item, result) for item, result in recorded if item.corrects is None]
        self._append(self._claim(reported))
        self._correct(recorded)
        self._transaction.save_producers(self._states, now_ms=self._now_ms)
        self._keep_aside(group, results)
        return results

    def _judge(self, item: Submission) -> Result | MeterError | None:
        origin = item.origin
        release = item.releases
        if release is not None and not self._transaction.release(
            release.quarantine_id, key_id=release.key_id, now_ms=self._now_ms
        ):
            return Refused(Reason.RELEASE_REFUSED, "The entry was decided before.")
        if not _is_numbered(item):
            return Result(verdict=_RECORD, set_aside=[(it, 0) for it in item.set_aside])
        key = origin.producer_key
        state = self._states.get(key)
        if state is None:
            return None
        verdict = state.judge(
            instance=origin.instance, sequence=origin.sequence, digest=origin.digest
        )
        aside: Sequence[SetAside] = ()
        if verdict is _RECORD:
            self._states[key] = state = state.recorded(origin.digest)
            aside = item.set_aside
        elif verdict is Verdict.TAKEN_OVER:
            return Refused(
                Reason.PRODUCER_TAKEN_OVER,
                f"A newer instance of producer {origin.producer} has opened a stream. Stop.",
            )
        elif verdict is Verdict.CHANGED:
            aside = [SetAside(index=-1, outcome=Outcome.BATCH_CHANGED, payload=item.whole)]
        return Result(
            verdict=verdict,
            next_sequence=state.sequence + 1,
            set_aside=[(entry, 0) for entry in aside],
        )

    def _claim(self, items: Sequence[tuple[Submission, Result]]) -> list[tuple[Origin, EventBatch]]:
        wanted: dict[bytes, bytes] = {}
        wanted_count = 0
        for item, _ in items:
            if item.claims is not None and item.claims.reports is None:
                wanted_count += len(item.claims.keys)
                for key, content in zip(item.claims.keys, item.claims.hashes, strict=True):
                    wanted.setdefault(key, content)
        known = self._transaction.claim_events(wanted, now_ms=self._now_ms) if wanted else {}
        observing = Observing(self._transaction, now_ms=self._now_ms)
        observing.claim([(item.claims, item.origin, item.batch) for item, _ in items])
        batches = []
        # Mostly: then none of them has to be looked at.
        are_all_new = not known and len(wanted) == wanted_count
        taken: set[bytes] = set(known)
        contents = wanted if are_all_new else {**wanted, **known}
        for item, result in items:
            origin, batch = item.origin, item.batch
            if item.claims is not None:
                if item.claims.reports is not None:
                    outcomes, result.differing_count = observing.outcomes(item.claims)
                elif are_all_new:
                    outcomes = [_RECORDED] * len(item.claims.keys)
                else:
                    outcomes = _outcomes(item.claims, known=contents, taken=taken)
                result.outcomes = outcomes
                result.set_aside += [
                    (_kept_aside(item.claims, place, outcome=outcome), 0)
                    for place, outcome in enumerate(outcomes)
                    if outcome >= FIRST_QUARANTINED
                ]
                keep = np.array(outcomes, np.int64) == _RECORDED
                if not keep.all():
                    batch = batch.take(keep)
                    origin = _leaving_out(origin, item.claims, outcomes)
            result.recorded_count = len(batch)
            if len(batch):
                batches.append((origin, batch))
        return batches

    def _append(self, batches: Sequence[tuple[Origin, EventBatch]]) -> None:
        """Append batches, in segments of `_SEGMENT_EVENTS` and less than one batch more."""
        part: list[tuple[Origin, EventBatch]] = []
        event_count = 0
        for place, batch in enumerate(batches, 1):
            part.append(batch)
            event_count += len(batch[1])
            if event_count >= _SEGMENT_EVENTS or place == len(batches):
                self._transaction.append(gather(part, dimension_ids=self._store.dimension_ids))
                part, event_count = [], 0

    def _correct(self, recorded: Sequence[tuple[Submission, Result]]) -> None:
        """Append each correction as a segment of its own: counting tells them apart by that."""
        corrections = [
            (item.corrects, item, result) for item, result in recorded if item.corrects is not None
        ]
        settled: list[Settlement] = []
        # Sorted, so that two servers that correct the same events wait for each other in one order.
        for correction, item, result in sorted(corrections, key=lambda each: each[0].target):
            number = self._transaction.correct(correction, now_ms=self._now_ms)
            if number is not None:
                result.correction_id = number
                self._append([(item.origin, item.batch)])
                if item.settles is not None:
                    after = replace(item.settles.after, correction_id=number)
                    settled.append(replace(item.settles, after=after))
        if settled:
            self._transaction.settle(settled)

    def _keep_aside(
        self, group: Sequence[Submission], results: Sequence[Result | MeterError | None]
    ) -> None:
        items = [
            (submission.origin, entry)
            for submission, result in zip(group, results, strict=True)
            if isinstance(result, Result)
            for entry, _ in result.set_aside
        ]
        if not items:
            return
        ids = iter(self._transaction.set_aside(items))
        for result in results:
            if isinstance(result, Result):
                result.set_aside = [(entry, next(ids)) for entry, _ in result.set_aside]


def _outcomes(claims: Claims, *, known: dict[bytes, bytes], taken: set[bytes]) -> list[int]:
    outcomes: list[int] = []
    for key, content in zip(claims.keys, claims.hashes, strict=True):
        if key not in taken:
            taken.add(key)
            outcomes.append(_RECORDED)
        elif known[key] == content:
            outcomes.append(Outcome.DUPLICATE)
        else:
            outcomes.append(Outcome.CONFLICT)
    return outcomes


def _leaving_out(origin: Origin, claims: Claims, outcomes: Sequence[int]) -> Origin:
    """Return the origin of a batch that is not counted in whole; a call's has no places."""
    if not origin.producer:
        return origin
    left_out = [
        claims.indexes[place] for place, outcome in enumerate(outcomes) if outcome != _RECORDED
    ]
    return origin._replace(left_out=tuple(left_out))


def _kept_aside(claims: Claims, place: int, *, outcome: int) -> SetAside:
    index, reports = claims.indexes[place], claims.reports
    payload = claims.payload
    if outcome == Outcome.REQUEST_ID_REUSED:
        assert reports is not None
        payload = reports.apart
    return SetAside(
        index=index if claims.places is None else claims.places[index],
        outcome=outcome,
        payload=payload(index),
        source=0 if reports is None else reports.source,
        is_choice=reports is not None and reports.choices[place],
    )


def _is_numbered(item: Submission) -> bool:
    """Tell whether the producer's numbers decide: a released entry had its number before."""
    return bool(item.origin.sequence) and item.releases is None
