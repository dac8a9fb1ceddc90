"""One producer's stream: batches in, acks out, both at their own pace."""

import asyncio
import hashlib
import logging
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError

from meter.call_context import note_producer
from meter.domain import limits
from meter.domain.clock import Clock
from meter.domain.credential import Credential
from meter.domain.errors import InvalidArgument, Reason, Refused
from meter.domain.event import Origin
from meter.journal.protocol import DIGEST_BYTES
from meter.journal.session import Mark, Seen, StreamSession
from meter.journal.writer import JournalWriter, shutting_down
from meter.metrics import Metrics
from meter.presence import Attendance, Roster
from meter.producers import ProducerPort
from meter.runtime.ids import random_bytes
from meter.standbys import Standbys
from meter.wire.answers import Answers, Beat, Look, Waiting
from meter.wire.bounds import Bounds, Sender
from meter.wire.intake import Intake
from meter.wire.small_batches import SmallBatches
from meter.wire.status import invalid, readable, unreadable

_log = logging.getLogger(__name__)
PRODUCER_NAME: Final = re.compile(rf"[A-Za-z0-9._-]{{1,{limits.PRODUCER_CHARS_MAX}}}")
# How long a stream waits for room in the buffer before its producer is told to come back.
_ROOM_SECONDS: Final = 5.0
# A stream ends within this part of its connection's life, each at a moment of its own: before gRPC
# says that the connection is of age, which it does a tenth earlier or later.
_LIFE_MIN: Final = 0.7
_LIFE_SPREAD: Final = 0.15
# How long an end in good order is looked at before it is believed; the client waits for 0.5 s.
_GOODBYE_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamParts:
    """What every stream of a server works with; without `standbys` recorded is durable.

    A stream ends before its connection, which lives for `life_seconds`.
    """

    intake: Intake
    batches: SmallBatches
    bounds: Bounds
    writer: JournalWriter
    producers: ProducerPort
    roster: Roster
    standbys: Standbys | None
    clock: Clock
    metrics: Metrics
    life_seconds: float


class Stream:
    """One call of StreamUsage.

    Reading goes at most `BATCHES_IN_FLIGHT_MAX` batches ahead of the acks, and stops while the
    buffer is full: the sender feels it through the connection's flow control. Behind as many
    batches heartbeats are still read: what they announce must not wait for a database.
    """

    def __init__(
        self,
        parts: StreamParts,
        context: "grpc.aio.ServicerContext[Any, Any]",
        *,
        authenticate: Callable[[], Credential],
    ) -> None:
        """Take the parts; `authenticate` is asked at each message, so a revoked key ends here."""
        self._parts = parts
        self._context = context
        self._authenticate = authenticate
        self._opener: Origin | None = None
        self._heard_time = 0.0
        self._answers = Answers(
            context, metrics=parts.metrics, clock=parts.clock, is_known=self._is_known
        )

    async def run(self, requests: AsyncIterator[Any]) -> None:
        """Serve the stream until either side ends it."""
        try:
            await self._serve(requests)
        except Refused as error:
            if error.reason is Reason.PRODUCER_TAKEN_OVER:
                self._parts.metrics.streams_fenced.inc()
                _log.info("producer_taken_over")
            raise
        finally:
            self._parts.roster.leave(self)

    async def _serve(self, requests: AsyncIterator[Any]) -> None:
        reading = asyncio.create_task(self._read(requests))
        answering = asyncio.create_task(self._answers.run())
        serving = asyncio.gather(reading, answering)
        stopping = asyncio.create_task(self._parts.writer.stopping.wait())
        try:
            await asyncio.wait(
                (serving, stopping),
                timeout=draw_life(self._parts.life_seconds),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if serving.done():
                serving.result()
                await self._say_goodbye()
                return
            # The server stops, or the connection is soon of age: what was taken is answered, then
            # the producer is sent away, in the second case to come back at once on a new one.
            reading.cancel()
            self._answers.end()
            await answering
            if stopping.done():
                raise shutting_down()
        finally:
            for task in (reading, answering, stopping):
                task.cancel()
            await asyncio.gather(serving, reading, answering, stopping, return_exceptions=True)

    def attendance(self) -> Attendance:
        """Return what it has heard and acknowledged by now."""
        assert self._opener is not None
        return Attendance(
            account_id=self._opener.account_id,
            producer=self._opener.producer,
            instance=self._opener.instance,
            announced_sequence=self._answers.session.announced_sequence,
            heard_time=self._heard_time,
            mark=self._answers.session.mark(),
        )

    def seen(self, mark: Mark, found: Seen | None) -> None:
        """Take what was found of the producer after the mark, in its turn."""
        self._answers.offer(Look(mark, found))

    async def _read(self, requests: AsyncIterator[Any]) -> None:
        async for item in requests:
            arrival = self._parts.clock.monotonic_seconds()
            raw = readable(item)
            try:
                message = self._parts.intake.read_stream_message(raw)
            except DecodeError as error:
                raise unreadable() from error
            credential = self._authenticate()
            self._heard_time = self._parts.roster.now_seconds()
            kind = message.WhichOneof("message")
            if kind == "open":
                await self._open(message.open, credential)
                continue
            if self._opener is None:
                raise Refused(Reason.STREAM_NOT_OPENED, "Send OpenStream first.")
            sender = self._parts.bounds.of(self._opener.key_id).sender(self._opener.producer)
            await sender.message()
            if kind == "batch":
                await self._batch(message.batch, credential, sender, raw=raw, arrival=arrival)
            elif kind == "heartbeat":
                self._answers.session.heard(message.heartbeat.last_sequence)
                self._answers.offer(Beat())
            else:
                raise InvalidArgument(
                    Reason.ARGUMENT_INVALID, "The message is empty.", field="message"
                )
        self._answers.end()

    async def _open(self, message: Any, credential: Credential) -> None:  # noqa: ANN401
        if self._opener is not None:
            raise Refused(Reason.STREAM_NOT_OPENED, "OpenStream comes once.")
        if not PRODUCER_NAME.fullmatch(message.producer):
            raise invalid("open.producer", "1–64 characters of [A-Za-z0-9._-]")
        if len(message.instance) != limits.INSTANCE_BYTES:
            raise invalid("open.instance", f"{limits.INSTANCE_BYTES} random bytes")
        if not 0 <= message.first_sequence <= limits.SEQUENCE_MAX:
            raise invalid("open.first_sequence", f"0–{limits.SEQUENCE_MAX}")
        if not 0 <= message.missing_from <= limits.SEQUENCE_MAX:
            raise invalid("open.missing_from", f"0–{limits.SEQUENCE_MAX}")
        parts = self._parts
        opener = self._origin(credential, message.producer, message.instance)
        note_producer(opener.account_id, opener.producer)
        session = self._answers.session = StreamSession(
            producer=opener.producer,
            instance=opener.instance,
            horizon=None if parts.standbys is None else parts.standbys.horizon,
        )
        async with parts.bounds.of(opener.key_id).opening():
            state = await parts.roster.open(
                opener, first_sequence=message.first_sequence, missing_from=message.missing_from
            )
        opened = session.opened(state)
        self._opener = opener
        await self._answers.send_opened(opened)
        parts.roster.join(self)

    async def _batch(
        self,
        message: Any,  # noqa: ANN401
        credential: Credential,
        sender: Sender,
        *,
        raw: bytes,
        arrival: float,
    ) -> None:
        if not 1 <= message.sequence <= limits.SEQUENCE_MAX:
            raise invalid("batch.sequence", f"1–{limits.SEQUENCE_MAX}")
        if message.WhichOneof("events") is None:
            raise invalid("batch.events", "rows, columns or planes")
        parts, answers, opener = self._parts, self._answers, self._opener
        assert opener is not None
        # A batch that need not wait asks for no coroutine.
        if answers.is_full:
            await answers.wait_for_room()
        if parts.writer.is_full(opener):
            await parts.writer.wait_for_room(opener, seconds=_ROOM_SECONDS)
        origin = self._origin(
            credential, opener.producer, opener.instance, sequence=message.sequence, raw=raw
        )
        if sender.news_wait() > 0:
            await sender.news()
        try:
            submission = parts.batches.take(message, credential, origin, raw=raw, charge=sender.met)
        except DecodeError as error:
            # Rows are bytes until they are read.
            raise unreadable() from error
        claims = submission.claims
        source = 0 if claims is None or claims.reports is None else claims.reports.source
        waiting = Waiting(message.sequence, sender, arrival, source)
        parts.writer.hand_in(submission, partial(answers.decide, waiting))
        answers.add(waiting)

    async def _is_known(self) -> bool:
        assert self._opener is not None
        return await asyncio.to_thread(self._parts.producers.is_known, self._opener)

    async def _say_goodbye(self) -> None:
        """Retire a producer that has nothing left to report."""
        session = self._answers.session
        if self._opener is None or session.announced_sequence > session.recorded_sequence:
            return
        # A connection that broke looks like an end in good order until gRPC has told of it.
        await asyncio.sleep(_GOODBYE_SECONDS)
        if not self._context.cancelled():
            await self._parts.roster.end(self, self._opener)

    def _origin(
        self,
        credential: Credential,
        producer: str,
        instance: bytes,
        *,
        sequence: int = 0,
        raw: bytes = b"",
    ) -> Origin:
        return Origin(
            account_id=credential.account_id or "",
            key_id=credential.key_id,
            received_ms=self._parts.clock.now_ms(),
            producer=producer,
            instance=instance,
            sequence=sequence,
            digest=hashlib.sha256(raw).digest()[:DIGEST_BYTES],
        )


def draw_life(seconds_max: float) -> float:
    """Draw when a stream ends, in seconds: a fleet that came together does not go together."""
    return seconds_max * (_LIFE_MIN + _LIFE_SPREAD * random_bytes(1)[0] / 256)
