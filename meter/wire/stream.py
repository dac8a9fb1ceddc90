"""One producer's stream: batches in, acks out, both at their own pace."""

import asyncio
import hashlib
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import grpc
from google.protobuf.message import DecodeError

from meter.domain import limits
from meter.domain.clock import Clock
from meter.domain.credential import Credential
from meter.domain.errors import InvalidArgument, Reason, Refused
from meter.domain.event import Origin, SetAside
from meter.domain.outcome import Outcome
from meter.journal.commit import Result
from meter.journal.protocol import DIGEST_BYTES, ProducerState, Verdict
from meter.journal.writer import JournalWriter, shutting_down
from meter.metrics import Metrics
from meter.wire.intake import Intake
from meter.wire.status import invalid, readable, unreadable
from tokenworks.meter.v1 import meter_service_pb2

_PRODUCER: Final = re.compile(rf"[A-Za-z0-9._-]{{1,{limits.PRODUCER_CHARS_MAX}}}")
# How long a stream waits for room in the buffer before its producer is told to come back.
_ROOM_SECONDS: Final = 5.0


class Producers(Protocol):
    """Opens producers in the store."""

    def open_producer(self, origin: Origin, *, first_sequence: int) -> ProducerState:
        """Make an instance the newest one and return the producer's state."""
        ...


@dataclass(frozen=True, slots=True)
class _Waiting:
    sequence: int
    future: "asyncio.Future[Result]"
    arrival_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamParts:
    """What every stream of a server works with."""

    intake: Intake
    writer: JournalWriter
    producers: Producers
    clock: Clock
    metrics: Metrics


class Stream:
    """One call of StreamUsage.

    Reading goes at most `BATCHES_IN_FLIGHT_MAX` batches ahead of the acks, and stops while the
    buffer is full: the sender feels it through the connection's flow control.
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
        self._producer = ""
        self._instance = b""
        self._last_sequence = 0
        self._going_back_to: int | None = None
        self._answers: asyncio.Queue[_Waiting | None] = asyncio.Queue(limits.BATCHES_IN_FLIGHT_MAX)

    async def run(self, requests: AsyncIterator[Any]) -> None:
        """Serve the stream until either side ends it."""
        reading = asyncio.create_task(self._read(requests))
        answering = asyncio.create_task(self._answer())
        serving = asyncio.gather(reading, answering)
        stopping = asyncio.create_task(self._parts.writer.stopping.wait())
        try:
            await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                serving.result()
                return
            # The server stops: what was taken is answered, then the producer is sent away.
            reading.cancel()
            await self._answers.put(None)
            await answering
            raise shutting_down()
        finally:
            for task in (reading, answering, stopping):
                task.cancel()
            await asyncio.gather(serving, reading, answering, stopping, return_exceptions=True)

    async def _read(self, requests: AsyncIterator[Any]) -> None:
        async for item in requests:
            arrival = self._parts.clock.monotonic_seconds()
            raw = readable(item)
            try:
                message = self._parts.intake.read_stream_message(raw)
            except DecodeError as error:
                raise unreadable() from error
            credential = self._authenticate()
            kind = message.WhichOneof("message")
            if kind == "open":
                await self._open(message.open, credential)
            elif not self._producer:
                raise Refused(Reason.STREAM_NOT_OPENED, "Send OpenStream first.")
            elif kind == "batch":
                await self._batch(message.batch, credential, raw=raw, arrival=arrival)
            elif kind == "heartbeat":
                await self._heartbeat(arrival)
            else:
                raise InvalidArgument(
                    Reason.ARGUMENT_INVALID, "The message is empty.", field="message"
                )
        await self._answers.put(None)

    async def _open(self, message: Any, credential: Credential) -> None:  # noqa: ANN401
        if self._producer:
            raise Refused(Reason.STREAM_NOT_OPENED, "OpenStream comes once.")
        if not _PRODUCER.fullmatch(message.producer):
            raise invalid("open.producer", "1–64 characters of [A-Za-z0-9._-]")
        if len(message.instance) != limits.INSTANCE_BYTES:
            raise invalid("open.instance", f"{limits.INSTANCE_BYTES} random bytes")
        if message.first_sequence < 0:
            raise invalid("open.first_sequence", "0 or more")
        origin = self._origin(credential, message.producer, message.instance)
        state = await asyncio.to_thread(
            self._parts.producers.open_producer, origin, first_sequence=message.first_sequence
        )
        if state.instance != message.instance:
            raise Refused(
                Reason.PRODUCER_TAKEN_OVER,
                f"A newer instance of producer {message.producer} has opened a stream. Stop.",
            )
        self._producer, self._instance = message.producer, message.instance
        self._last_sequence = state.sequence
        await self._send_opened(state.sequence + 1)

    async def _batch(
        self,
        message: Any,  # noqa: ANN401
        credential: Credential,
        *,
        raw: bytes,
        arrival: float,
    ) -> None:
        if message.sequence < 1:
            raise invalid("batch.sequence", "1 or more")
        if message.WhichOneof("events") is None:
            raise invalid("batch.events", "rows or columns")
        await self._parts.writer.wait_for_room(seconds=_ROOM_SECONDS)
        origin = self._origin(
            credential, self._producer, self._instance, sequence=message.sequence, raw=raw
        )
        submission, _ = self._parts.intake.from_batch(message, credential, origin, raw=raw)
        future = self._parts.writer.submit(submission)
        await self._answers.put(_Waiting(message.sequence, future, arrival))

    async def _heartbeat(self, arrival: float) -> None:
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        future.set_result(Result(verdict=Verdict.REPEATED))
        await self._answers.put(_Waiting(0, future, arrival))

    async def _answer(self) -> None:
        while (waiting := await self._answers.get()) is not None:
            result = await waiting.future
            if waiting.sequence and result.verdict is Verdict.HOLE:
                await self._go_back(result)
                continue
            if waiting.sequence:
                self._going_back_to = None
                self._last_sequence = max(self._last_sequence, waiting.sequence)
                _count_outcomes(self._parts.metrics, result)
                seconds = self._parts.clock.monotonic_seconds() - waiting.arrival_seconds
                self._parts.metrics.ack_seconds.labels("stream").observe(seconds)
            await self._send_ack(waiting.sequence or self._last_sequence, result)

    async def _go_back(self, result: Result) -> None:
        # What was already on its way behind the hole is answered once, not each time.
        if self._going_back_to != result.next_sequence:
            self._going_back_to = result.next_sequence
            await self._send_opened(result.next_sequence)

    async def _send_opened(self, next_sequence: int) -> None:
        await self._context.write(
            meter_service_pb2.StreamUsageResponse(
                opened=meter_service_pb2.StreamOpened(
                    next_sequence=next_sequence,
                    batches_in_flight_max=limits.BATCHES_IN_FLIGHT_MAX,
                )
            )
        )

    async def _send_ack(self, sequence: int, result: Result) -> None:
        ack = meter_service_pb2.BatchAck(
            sequence=sequence,
            durable_sequence=self._last_sequence,
            set_aside_count=len(result.set_aside),
        )
        for item, quarantine_id in result.set_aside[: limits.SET_ASIDE_LISTED_MAX]:
            ack.set_aside.append(_to_set_aside(item, quarantine_id))
        await self._context.write(meter_service_pb2.StreamUsageResponse(ack=ack))

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


def _to_set_aside(item: SetAside, quarantine_id: int) -> meter_service_pb2.SetAside:
    message = meter_service_pb2.SetAside(index=item.index, quarantine_id=quarantine_id)
    message.outcome = item.outcome  # type: ignore[assignment]
    return message


def _count_outcomes(metrics: Metrics, result: Result) -> None:
    if result.recorded_count:
        metrics.events.labels(Outcome.RECORDED.name).inc(result.recorded_count)
    for outcome, count in Counter(item.outcome for item, _ in result.set_aside).items():
        metrics.events.labels(Outcome(outcome).name).inc(count)
