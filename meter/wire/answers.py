"""What a stream has to say, in order: what became of each batch, and what comes beside them."""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc
from prometheus_client import Counter as Series
from prometheus_client import Histogram

from meter.domain import limits
from meter.domain.clock import Clock
from meter.domain.errors import Reason, Refused
from meter.domain.event import SetAside
from meter.domain.outcome import Outcome
from meter.journal.commit import Result
from meter.journal.session import Ack, Mark, Opened, Seen, StreamSession
from meter.journal.writer import Decision
from meter.metrics import Metrics
from meter.sources.observation import Source
from meter.wire.bounds import Sender
from meter.wire.observed_counts import note_differing, note_observed, note_outcomes
from tokenworks.meter.v1 import meter_service_pb2

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Waiting:
    """A batch whose commit is awaited, until there is a `decision`.

    `source` is who reports, 0 where nobody else reports what the batch has.
    """

    sequence: int
    sender: Sender
    arrival_seconds: float
    source: int
    decision: Decision | None = None


@dataclass(frozen=True, slots=True)
class Beat:
    """A heartbeat to answer."""


@dataclass(frozen=True, slots=True)
class Look:
    """What was found of the producer in the database after a mark."""

    mark: Mark
    found: Seen | None


@dataclass(slots=True)
class _Said:
    """What was answered and is not sent yet: an ack, for how many batches, and how many events."""

    ack: Ack | None = None
    batch_count: int = 0
    recorded_count: int = 0


class Answers:
    """What is queued for a stream's producer; one task says it.

    Of batches there are at most `BATCHES_IN_FLIGHT_MAX`, each with a permit that is given back when
    its ack is sent: of who takes no answers no more are read. `session` is that of the producer
    once it has opened.
    """

    def __init__(
        self,
        context: "grpc.aio.ServicerContext[Any, Any]",
        *,
        metrics: Metrics,
        clock: Clock,
        is_known: Callable[[], Awaitable[bool]],
    ) -> None:
        """Take where to write; `is_known` asks the database for the stream's own instance."""
        self._context = context
        self._metrics = metrics
        self._clock = clock
        self._is_known = is_known
        self._waiting: deque[Waiting | Beat | Look | None] = deque()
        # That something may be said: a batch whose commit is awaited is no news.
        self._has_news = asyncio.Event()
        self._in_flight_count = 0
        self._has_room = asyncio.Event()
        # Not before they are needed: a series that is there before its first ack has no quantile.
        self._ack_seconds: Histogram | None = None
        self._recorded: Series | None = None
        self.session = StreamSession(producer="", instance=b"")

    @property
    def is_full(self) -> bool:
        """Tell whether no further batch may be on its way by now."""
        return self._in_flight_count >= limits.BATCHES_IN_FLIGHT_MAX

    async def wait_for_room(self) -> None:
        """Wait until one batch more may be on its way."""
        while self.is_full:
            self._has_room.clear()
            await self._has_room.wait()

    def add(self, item: Waiting) -> None:
        """Queue a batch for which there is room; `decide` tells what became of it."""
        self._in_flight_count += 1
        self._waiting.append(item)

    def decide(self, item: Waiting, decision: Decision) -> None:
        """Take what became of a batch; what is told first holds."""
        if item.decision is None:
            item.decision = decision
            self._has_news.set()

    def end(self) -> None:
        """Say nothing more once all that is queued is said."""
        self._queue(None)

    def offer(self, item: Beat | Look) -> None:
        """Queue what nobody has to have answered.

        Behind many others it is left out: the batches among them are judged, which tells as much.
        """
        if len(self._waiting) < limits.BATCHES_IN_FLIGHT_MAX:
            self._queue(item)

    def _queue(self, item: Waiting | Beat | Look | None) -> None:
        self._waiting.append(item)
        self._has_news.set()

    async def run(self) -> None:
        """Say what there is to say until the end; raises what ends the stream."""
        while not await self._answer_decided():
            await self._has_news.wait()
            self._has_news.clear()

    async def _answer_decided(self) -> bool:
        """Answer what is decided by now, in order; tell whether that was the last.

        One commit decides many batches of a stream: one ack is of all of them.
        """
        said = _Said()
        try:
            while self._waiting and _is_decided(self._waiting[0]):
                item = self._waiting.popleft()
                if item is None:
                    return True
                if isinstance(item, Waiting):
                    said.batch_count += 1
                    if isinstance(item.decision, BaseException):
                        raise await self._end_of(item.decision)
                answer = self._answer_to(item, said)
                if isinstance(answer, Opened):
                    await self._send(said)
                    await self.send_opened(answer)
                elif answer is not None and (answer.set_aside or isinstance(item, Beat)):
                    # Each heartbeat has its answer, and what was set aside is of the batch whose
                    # number the ack has.
                    await self._send(said)
                    await self._send_ack(answer)
                elif answer is not None:
                    said.ack = answer if said.ack is None else said.ack.followed_by(answer)
            return False
        finally:
            await self._send(said)

    async def _send(self, said: "_Said") -> None:
        """Send the ack that was put off, and let as many batches more be read."""
        ack, said.ack = said.ack, None
        if said.recorded_count:
            if self._recorded is None:
                self._recorded = self._metrics.events.labels(Outcome.RECORDED.name)
            self._recorded.inc(said.recorded_count)
            said.recorded_count = 0
        if ack is not None:
            await self._send_ack(ack)
        if said.batch_count:
            # Not before it is sent: of who takes no answers no more batches are read.
            self._in_flight_count -= said.batch_count
            said.batch_count = 0
            self._has_room.set()

    def _answer_to(self, item: Waiting | Beat | Look, said: "_Said") -> Opened | Ack | None:
        rollback_count = self.session.rollback_count
        try:
            if isinstance(item, Waiting):
                return self._answer_to_batch(item, said)
            if isinstance(item, Beat):
                return self.session.beat()
            return self.session.seen(item.mark, item.found)
        finally:
            found_older = self.session.rollback_count - rollback_count
            if found_older:
                self._metrics.rollbacks.inc(found_older)
                _log.warning("database_rolled_back", extra={"count": found_older})

    def _answer_to_batch(self, item: Waiting, said: "_Said") -> Opened | Ack | None:
        result = item.decision
        assert isinstance(result, Result)
        item.sender.known(result.known_dimension_count)
        answer = self.session.answer(item.sequence, result)
        if isinstance(answer, Ack):
            if item.source or result.set_aside or result.outcomes:
                self._count_outcomes(result, source=item.source)
            else:
                said.recorded_count += result.recorded_count
            if self._ack_seconds is None:
                self._ack_seconds = self._metrics.ack_seconds.labels("stream")
            self._ack_seconds.observe(self._clock.monotonic_seconds() - item.arrival_seconds)
        return answer

    async def _end_of(self, fault: BaseException) -> BaseException:
        """Return how the stream ends when a batch could not be recorded."""
        if not isinstance(fault, Refused) or fault.reason is not Reason.PRODUCER_TAKEN_OVER:
            return fault
        # A database that was restored may have an older instance as its newest.
        error = self.session.fenced(is_known=await self._is_known())
        error.__cause__ = fault
        return error

    async def send_opened(self, opened: Opened) -> None:
        """Tell where to begin, or to go back to."""
        await self._context.write(
            meter_service_pb2.StreamUsageResponse(
                opened=meter_service_pb2.StreamOpened(
                    next_sequence=opened.next_sequence,
                    batches_in_flight_max=limits.BATCHES_IN_FLIGHT_MAX,
                )
            )
        )

    async def _send_ack(self, answer: Ack) -> None:
        message = meter_service_pb2.StreamUsageResponse()
        ack = message.ack
        ack.sequence = answer.sequence
        ack.durable_sequence = answer.durable_sequence
        if answer.set_aside:
            ack.set_aside_count = len(answer.set_aside)
            for item, quarantine_id in answer.set_aside[: limits.SET_ASIDE_LISTED_MAX]:
                ack.set_aside.append(_to_set_aside(item, quarantine_id))
        await self._context.write(message)

    def _count_outcomes(self, result: Result, *, source: int) -> None:
        counts = Counter(item.outcome for item, _ in result.set_aside)
        counts[Outcome.RECORDED] = result.recorded_count
        for outcome in (Outcome.DUPLICATE, Outcome.OBSERVED):
            counts[outcome] = list(result.outcomes).count(outcome)
        metrics = self._metrics
        if source:
            now_ms = self._clock.now_ms()
            note_observed(metrics, Source(source), counts, now_ms=now_ms)
            note_differing(metrics, Source(source), result)
        else:
            note_outcomes(metrics, counts)


def _is_decided(item: Waiting | Beat | Look | None) -> bool:
    return not isinstance(item, Waiting) or item.decision is not None


def _to_set_aside(item: SetAside, quarantine_id: int) -> meter_service_pb2.SetAside:
    message = meter_service_pb2.SetAside(index=item.index, quarantine_id=quarantine_id)
    message.outcome = item.outcome  # type: ignore[assignment]
    return message
