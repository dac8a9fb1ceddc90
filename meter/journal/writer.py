"""Group commit: what waits is recorded together, by one thread, each sender's in its order."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple, Protocol, TypeAlias

from meter.domain.errors import MeterError, Overloaded, Reason, StoreRefusal, Unavailable
from meter.domain.event import Origin
from meter.domain.limits import (
    BUFFER_KEPT_PARTS,
    COMMIT_SECONDS_SLOW,
    GROUP_EVENTS_MAX,
    GROUP_SPANS_MAX,
    GROUP_SUBMISSIONS_MAX,
)
from meter.journal.commit import Result, Store, Submission, commit_group
from meter.journal.lanes import Lanes
from meter.spans import Trace, find_tracer

_log = logging.getLogger(__name__)
# A producer that another server holds is tried again this often before the call fails.
_PUT_OFF_MAX = 50
_PUT_OFF_SECONDS = 0.02
# An event for quarantine costs a row of its own, a claimed id one of an index.
_ROW_WEIGHT = 10
# What the database has not decided so long after `stop` is answered without it; shorter than the
# grace that the server gives its calls.
_STOP_SECONDS = 2.0


# What became of a submission, or what kept it from being recorded.
Decision: TypeAlias = Result | BaseException


class _Queued(NamedTuple):
    """A submission in its sender's lane, and who is told what became of it."""

    submission: Submission
    lane: tuple[str, str]
    decide: Callable[[Decision], None]


class Observer(Protocol):
    """Who is told what the writer does."""

    def committed(self, *, seconds: float, submissions: int, events: int) -> None:
        """Note a group's commit."""
        ...

    def buffered(self, size_bytes: int) -> None:
        """Note how much waits."""
        ...


class JournalWriter:
    """Takes checked submissions and answers each once it is on disk.

    All methods run on the event loop, commits on a thread of their own. What waits is bounded by
    `buffer_bytes_max`: a call above it is refused at once; a stream waits, so that its sender
    feels the push-back. Senders are served in turn, and the last part of the buffer is kept for
    those who hold little of it: a flood fills neither the buffer nor the next groups alone.
    """

    def __init__(
        self,
        store: Store,
        *,
        observer: Observer,
        now_ms: Callable[[], int],
        monotonic_seconds: Callable[[], float],
        buffer_bytes_max: int,
        on_commit: Callable[[], None],
    ) -> None:
        """Take the store and the bound in bytes; `on_commit` is told after each group."""
        self._store = store
        self._observer = observer
        self._now_ms = now_ms
        self._monotonic_seconds = monotonic_seconds
        self._buffer_bytes_max = buffer_bytes_max
        self._on_commit = on_commit
        self._waiting: Lanes[_Queued] = Lanes()
        self._buffered_bytes = 0
        self._held_bytes: dict[tuple[str, str], int] = {}
        self._put_off: dict[int, int] = {}
        # Where a submission came from, while somebody traces.
        self._traces: dict[int, Trace] = {}
        self._filled = asyncio.Event()
        self._drained = asyncio.Condition()
        self._under_way: Sequence[_Queued] = ()
        self.stopping = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")

    def is_full(self, origin: Origin) -> bool:
        """Tell whether nothing more of a sender is taken now."""
        part = self._buffer_bytes_max // BUFFER_KEPT_PARTS
        left = self._buffer_bytes_max - self._buffered_bytes
        return left <= 0 or (left <= part and self._held_bytes.get(lane_of(origin), 0) > part)

    def submit(self, submission: Submission) -> "asyncio.Future[Result]":
        """Queue a submission; its future ends when it is on disk. Raises as `hand_in`."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.hand_in(submission, partial(_settle, future))
        return future

    def hand_in(self, submission: Submission, decide: Callable[[Decision], None]) -> None:
        """Queue a submission; `decide` is called when it is on disk, or cannot be.

        It may be called again, and what it is told first holds. Raises Overloaded when the buffer
        is full and Unavailable when the writer stops.
        """
        if self.stopping.is_set():
            raise shutting_down()
        if self.is_full(submission.origin):
            raise Overloaded(Reason.OVERLOADED, "The buffer is full. Wait a second and send again.")
        lane = lane_of(submission.origin)
        self._waiting.put(lane, _Queued(submission, lane, decide))
        self._held_bytes[lane] = self._held_bytes.get(lane, 0) + submission.size_bytes
        self._buffered_bytes += submission.size_bytes
        self._observer.buffered(self._buffered_bytes)
        tracer = find_tracer()
        trace = None if tracer is None else tracer.find_trace()
        if trace is not None:
            self._traces[id(submission)] = trace
        self._filled.set()

    async def wait_for_room(self, origin: Origin, *, seconds: float) -> None:
        """Return when there is room for a sender; raises Overloaded after `seconds`."""
        if not self.is_full(origin):
            return
        try:
            async with asyncio.timeout(seconds), self._drained:
                await self._drained.wait_for(lambda: not self.is_full(origin))
        except TimeoutError as error:
            message = "The buffer stays full. Wait a second and send again."
            raise Overloaded(Reason.OVERLOADED, message) from error

    async def run(self) -> None:
        """Commit groups until `stop`, then what is left."""
        while self._waiting or not self.stopping.is_set():
            await self._filled.wait()
            self._filled.clear()
            while group := self._take_group():
                self._under_way = group
                await self._deliver(group, await self._commit([it.submission for it in group]))
        self._thread.shutdown()

    def stop(self) -> None:
        """Take nothing more; `run` returns when all that waits is decided."""
        if not self.stopping.is_set():
            self.stopping.set()
            self._filled.set()
            asyncio.get_running_loop().call_later(_STOP_SECONDS, self._give_up)

    def _give_up(self) -> None:
        """Answer what is still not decided: its fate is not known, and a repeat is harmless."""
        for each in (*self._under_way, *self._waiting.take_all()):
            each.decide(shutting_down())

    def _take_group(self) -> list[_Queued]:
        group: list[_Queued] = []
        events = 0
        while self._waiting and len(group) < GROUP_SUBMISSIONS_MAX:
            submission = self._waiting.peek().submission
            if submission.read is not None:
                submission.read()
            rows = len(submission.set_aside)
            rows += 0 if submission.claims is None else len(submission.claims.keys)
            events += len(submission.batch) + _ROW_WEIGHT * rows
            if group and events > GROUP_EVENTS_MAX:
                break
            group.append(self._waiting.take())
        return group

    async def _commit(self, group: Sequence[Submission]) -> Sequence[Decision | None]:
        """Commit a group; one that cannot be recorded is split until the culprit is alone.

        A fault that nobody foresaw is the answer to its culprit: it ends neither the writer nor
        what came with it.
        """
        begin = self._monotonic_seconds()
        commit = partial(commit_group, self._store, group, now_ms=self._now_ms)
        committing = asyncio.get_running_loop().run_in_executor(self._thread, commit)
        await asyncio.wait([committing])
        fault = committing.exception()
        if fault is not None:
            is_everyones = isinstance(fault, MeterError) and not isinstance(fault, StoreRefusal)
            if is_everyones or len(group) == 1:
                return [fault] * len(group)
            half = len(group) // 2
            return [*await self._commit(group[:half]), *await self._commit(group[half:])]
        self._on_commit()
        self._note(self._monotonic_seconds() - begin, group)
        return committing.result()

    def _note(self, seconds: float, group: Sequence[Submission]) -> None:
        submissions, events = len(group), sum(len(item.batch) for item in group)
        self._observer.committed(seconds=seconds, submissions=submissions, events=events)
        if seconds >= COMMIT_SECONDS_SLOW:
            told = {"seconds": round(seconds, 3), "submissions": submissions, "events": events}
            _log.warning("commit_slow", extra=told)
        tracer = find_tracer()
        if tracer is not None:
            traces = [self._traces[id(it)] for it in group if id(it) in self._traces]
            for trace in traces[:GROUP_SPANS_MAX]:
                size = {"tokenworks.submissions": submissions, "tokenworks.events": events}
                tracer.record("commit", seconds=seconds, trace=trace, attributes=size)

    async def _deliver(
        self,
        group: Sequence[_Queued],
        outcomes: Sequence[Decision | None],
    ) -> None:
        put_off = []
        for each, outcome in zip(group, outcomes, strict=True):
            if outcome is None and self._may_wait(each.submission):
                put_off.append(each)
                continue
            self._let_go(each)
            each.decide(outcome or _held_elsewhere())
        self._observer.buffered(self._buffered_bytes)
        if put_off:
            # Ahead of what came later, so that a producer's batches keep their order.
            self._waiting.put_back((each.lane, each) for each in put_off)
            await asyncio.sleep(_PUT_OFF_SECONDS)
        async with self._drained:
            self._drained.notify_all()

    def _may_wait(self, submission: Submission) -> bool:
        tries = self._put_off[id(submission)] = self._put_off.get(id(submission), 0) + 1
        return tries <= _PUT_OFF_MAX

    def _let_go(self, queued: _Queued) -> None:
        submission, lane, _ = queued
        held_bytes = self._held_bytes.get(lane, 0) - submission.size_bytes
        if held_bytes > 0:
            self._held_bytes[lane] = held_bytes
        else:
            # What takes none of the buffer may come more than once.
            self._held_bytes.pop(lane, None)
        if self._traces:
            self._traces.pop(id(submission), None)
        if self._put_off:
            self._put_off.pop(id(submission), None)
        self._buffered_bytes -= submission.size_bytes


def _settle(future: "asyncio.Future[Result]", outcome: Decision) -> None:
    if future.done():
        return
    if isinstance(outcome, Result):
        future.set_result(outcome)
    else:
        future.set_exception(outcome)
        # A call that has ended does not ask what became of its events; that is no fault.
        future.exception()


def lane_of(origin: Origin) -> tuple[str, str]:
    """Return who sends: a producer of an account, or an API key that reports by calls."""
    return (origin.account_id, origin.producer or origin.key_id)


def shutting_down() -> Unavailable:
    """Return the error for whoever comes, or still waits, while the server stops."""
    return Unavailable(Reason.SHUTTING_DOWN, "The server is stopping. Connect again.")


def _held_elsewhere() -> Unavailable:
    return Unavailable(
        Reason.STORE_UNAVAILABLE, "Another server holds this producer. Connect again."
    )
