"""The thread that sends: everything about the stream's state happens on it."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Final, TypeAlias

import grpc

from tokenworks.client import limits
from tokenworks.client.clock import monotonic
from tokenworks.client.columns import ColumnEncoder
from tokenworks.client.connection import (
    HEARTBEAT_MESSAGE,
    Address,
    Connection,
    Ended,
    Received,
    batch_message,
    open_message,
)
from tokenworks.client.events import DimensionKey, RawEvent
from tokenworks.client.notices import Notices
from tokenworks.client.retry import DISAGREED, OVERTAKEN, SILENT, Backoff, Failure, Fate
from tokenworks.client.stream import UsageStream, Verdict
from tokenworks.client.tally import Tally
from tokenworks.client.vocabulary import State
from tokenworks.meter.v1.meter_service_pb2 import BatchAck

_LOG: Final = logging.getLogger("tokenworks.client")


class Intake:
    """Where callers leave events and the sender takes them.

    Appending to a list, copying a part of it and deleting a part are each one step under the
    interpreter's lock, and only the sender ever removes: so nobody waits for anybody.
    """

    __slots__ = ("pending", "room")

    def __init__(self) -> None:
        self.pending: list[RawEvent] = []
        self.room = 0
        """So many events may be pending; 0 sends the caller the long way, which decides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often things happen, in seconds."""

    flush_interval: float = limits.FLUSH_INTERVAL_SECONDS_DEFAULT
    heartbeat_min: float = limits.HEARTBEAT_SECONDS_MIN
    heartbeat_idle: float = limits.HEARTBEAT_IDLE_SECONDS
    silence_max: float = limits.SILENCE_SECONDS_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who reports."""

    producer: str
    instance: bytes
    defaults: DimensionKey
    """Dimensions of events that leave them open; none of them is None."""


@dataclass(slots=True, kw_only=True, eq=False)
class Flush:
    """A wish that all which was recorded so far becomes durable."""

    target: int | None = None
    """Batches that have to be durable; None until everything recorded is sealed."""
    reached: bool = False
    done: Event = field(default_factory=Event)


@dataclass(frozen=True, slots=True)
class _Stop:
    """No more is wanted."""


_News: TypeAlias = Received | Ended | Flush | _Stop


class Sender:
    """Takes events from the intake and sees them to the meter, on a thread of its own."""

    def __init__(
        self,
        intake: Intake,
        *,
        tally: Tally,
        address: Address,
        identity: Identity,
        buffer_events_max: int,
        pace: Pace,
        backoff: Backoff,
    ) -> None:
        """`buffer_events_max` bounds the events that are not durable yet."""
        self._intake = intake
        self._tally = tally
        self._address = address
        self._identity = identity
        self._buffer_events_max = buffer_events_max
        self._pace = pace
        self._backoff = backoff
        self._encoder = ColumnEncoder(defaults=identity.defaults)
        self._notices = Notices(_LOG, tally=tally)
        self._news: SimpleQueue[_News] = SimpleQueue()
        self._flushes: list[Flush] = []
        self._channel: grpc.Channel | None = None
        self._connection: Connection | None = None
        now = monotonic()
        self._sealed_time = self._retry_time = self._heard_time = self._heartbeat_time = now
        self._stopping = False
        self._thread = Thread(target=self._run, name="tokenworks-sender", daemon=True)
        self.stream = UsageStream()
        self.state = State.IDLE
        self.taken_count = 0
        """Events that were taken from the intake."""
        self.unfit_count = 0
        """Events of those that the wire cannot carry."""
        self.lost_count = 0
        """Events of those that were given up at the end."""

    @property
    def is_running(self) -> bool:
        """Whether the thread lives."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread. Raises RuntimeError where the process has no room for another."""
        self._intake.room = self._buffer_events_max
        self._thread.start()

    def flush(self) -> Flush:
        """Ask for all that was recorded so far to become durable; `done` is set at the end."""
        flush = Flush()
        self._news.put(flush)
        if not self.is_running:
            flush.done.set()
        return flush

    def stop(self, *, timeout_seconds: float) -> None:
        """End the thread; what is not durable by then is dropped."""
        self._intake.room = 0
        self._news.put(_Stop())
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._take_news()
                self._advance(monotonic())
        finally:
            self._end()

    def _take_news(self) -> None:
        """Wait for news, no longer than until it is time to look around, and take all there is."""
        tick = min(self._pace.flush_interval, limits.FLUSH_INTERVAL_SECONDS_DEFAULT)
        try:
            self._take(self._news.get(timeout=tick))
            while True:
                self._take(self._news.get_nowait())
        except Empty:
            pass

    def _take(self, news: _News) -> None:
        if isinstance(news, Flush):
            self._flushes.append(news)
        elif isinstance(news, _Stop):
            self._stopping = True
        elif news.connection is not self._connection:
            pass  # of a connection that was given up
        elif isinstance(news, Ended):
            self._disconnect(news.failure)
        else:
            self._heard_time = monotonic()
            self._hear(news)

    def _hear(self, news: Received) -> None:
        response = news.response
        kind = response.WhichOneof("message")
        if kind == "opened":
            verdict = self.stream.opened(
                next_sequence=response.opened.next_sequence,
                in_flight_max=response.opened.batches_in_flight_max,
            )
            if verdict is Verdict.CONTINUE:
                self._enter(State.STREAMING)
        elif kind == "ack":
            verdict = self._hear_ack(response.ack)
        else:
            verdict = Verdict.CONTINUE  # a message of a later version
        if verdict is Verdict.REOPEN:
            self._disconnect(DISAGREED)
        elif verdict is Verdict.TAKEN_OVER:
            self._disconnect(OVERTAKEN)

    def _hear_ack(self, ack: BatchAck) -> Verdict:
        verdict = self.stream.acknowledged(
            sequence=ack.sequence,
            durable_sequence=ack.durable_sequence,
            set_aside_count=ack.set_aside_count,
        )
        self._backoff.succeeded()
        if ack.set_aside_count:
            self._notices.events_set_aside(
                outcomes=[entry.outcome for entry in ack.set_aside],
                count=self.stream.set_aside_event_count,
            )
        return verdict

    def _advance(self, now: float) -> None:
        if self._stopping:
            return
        if self._connection is None:
            if now >= self._retry_time:
                self._connect(now)
        elif now - self._heard_time > self._pace.silence_max:
            self._disconnect(SILENT)
        self._seal(now)
        self._transmit()
        self._beat(now)
        self._intake.room = max(self._buffer_events_max - self.stream.held_event_count, 0)
        self._settle_flushes()
        self._notices.tell(now)

    def _connect(self, now: float) -> None:
        if self.state is State.IDLE:
            self._enter(State.CONNECTING)
        self._heard_time = now
        if self._channel is None:
            self._channel = self._address.channel()
        connection = Connection(
            self._channel, api_key=self._address.api_key, deliver=self._news.put
        )
        opening = open_message(
            producer=self._identity.producer,
            instance=self._identity.instance,
            first_sequence=self.stream.connect(),
        )
        connection.send(opening)
        self._connection = connection

    def _disconnect(self, failure: Failure) -> None:
        if self._connection is not None:
            self._connection.cut()
            self._connection = None
        self.stream.disconnect()
        if failure.fate is Fate.STOP:
            self._enter(State.TAKEN_OVER, failure)
            self._stopping = True
            return
        slowly = failure.fate is Fate.RETRY_SLOWLY
        self._enter(State.REFUSED if slowly else State.WAITING, failure)
        self._retry_time = monotonic() + self._backoff.seconds_after(failure)

    def _seal(self, now: float) -> None:
        """Put pending events into batches: full ones always, others when they could leave."""
        unsealed = [flush for flush in self._flushes if flush.target is None]
        elapsed = now - self._sealed_time >= self._pace.flush_interval
        everything = bool(unsealed) or (elapsed and self.stream.has_room)
        pending = self._intake.pending
        left = len(pending)
        while left >= limits.BATCH_EVENTS_MAX or (everything and left):
            raws = pending[: min(left, limits.BATCH_EVENTS_MAX)]
            self.taken_count += len(raws)
            del pending[: len(raws)]
            left -= len(raws)
            self._encode(raws)
            self._transmit()
        if everything:
            self._sealed_time = now
        for flush in unsealed:
            flush.target = self.stream.offered_count

    def _encode(self, raws: Sequence[RawEvent]) -> None:
        encoded = self._encoder.encode(raws)
        for kind, count in encoded.unfit.items():
            self.unfit_count += count
            self._tally.refuse(kind, count=count)
        for batch in encoded.batches:
            self.stream.offer(batch)

    def _transmit(self) -> None:
        while self._connection is not None and (numbered := self.stream.next_batch()) is not None:
            self._connection.send(batch_message(numbered))

    def _beat(self, now: float) -> None:
        """Ask for the state of things: soon while something is held, else to see if all is well."""
        if self._connection is None or not self.stream.is_open:
            return
        if self.stream.held_event_count:
            due = self._heartbeat_time + self._pace.heartbeat_min
        else:
            due = max(self._heartbeat_time, self._heard_time) + self._pace.heartbeat_idle
        if now >= due:
            self._heartbeat_time = now
            self._connection.send(HEARTBEAT_MESSAGE)

    def _settle_flushes(self) -> None:
        for flush in [flush for flush in self._flushes if flush.target is not None]:
            assert flush.target is not None
            if self.stream.settled_count >= flush.target:
                flush.reached = True
                flush.done.set()
                self._flushes.remove(flush)

    def _enter(self, state: State, failure: Failure | None = None) -> None:
        if state is not self.state:
            self.state = state
            self._notices.state_entered(
                state, failure, target=self._address.target, producer=self._identity.producer
            )

    def _end(self) -> None:
        """Leave nothing behind: what is not durable is counted as dropped, waiters are let go."""
        self._intake.room = 0
        pending = self._intake.pending
        self.lost_count = len(pending) + self.stream.held_event_count
        self.taken_count += len(pending)
        pending.clear()
        if self._connection is not None and self.lost_count == 0:
            self._connection.finish(timeout_seconds=limits.FINISH_SECONDS_MAX)
        elif self._connection is not None:
            self._connection.cut()
        if self._channel is not None:
            self._channel.close()
        self._notices.tell(math.inf)
        if self.lost_count:
            self._tally.drop(count=self.lost_count)
            _LOG.error("events_lost count=%d state=%s", self.lost_count, self.state)
        if self.state is not State.TAKEN_OVER:
            self.state = State.CLOSED if self._stopping else State.FAILED
        while not self._news.empty():
            news = self._news.get_nowait()
            if isinstance(news, Flush):
                self._flushes.append(news)
        for flush in self._flushes:
            flush.done.set()
