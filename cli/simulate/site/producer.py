"""One producer of a site: a stream, opened again whenever it ends, until all is durable."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

import grpc

from cli.simulate.site.batches import Prepared, message
from cli.simulate.site.line import Line
from cli.simulate.site.outbox import Outbox, Sealed
from tokenworks.client.clock import new_instance, uniform
from tokenworks.meter.v1.meter_service_pb2 import (
    BatchAck,
    Heartbeat,
    OpenStream,
    StreamOpened,
    StreamUsageRequest,
    StreamUsageResponse,
)

_METHOD: Final = "/tokenworks.meter.v1.MeterService/StreamUsage"
_REASON_KEY: Final = "tokenworks-error-reason"
# A stream that broke is opened again after so many seconds, each drawn.
_RETRY_SECONDS: Final = (0.2, 1.0)
# How often the meter is asked whether the last batches are durable, when all are recorded.
_BEAT_SECONDS: Final = 1.0
# What sending again does not mend.
_FINAL: Final = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)


class Refusal(Exception):
    """The meter refuses a producer for good; the message says whom, and why."""


class Producer:
    """Sends what its outbox holds.

    `on_recorded` hears of batches that were recorded, `on_ack` of each ack with events set aside,
    `on_trouble` why a stream broke.
    """

    def __init__(
        self,
        name: str,
        *,
        prepared: Sequence[Prepared],
        api_key: str | None,
        on_recorded: Callable[[Sequence[Sealed]], None],
        on_set_aside: Callable[[BatchAck], None],
        on_trouble: Callable[[str], None],
    ) -> None:
        self.outbox = Outbox()
        self.is_open = asyncio.Event()
        self.is_done = False
        """Whether all that there ever will be is durable."""
        self._name = name
        self._instance = new_instance()
        self._prepared = prepared
        self._metadata = () if api_key is None else (("authorization", f"Bearer {api_key}"),)
        self._on_recorded = on_recorded
        self._on_set_aside = on_set_aside
        self._on_trouble = on_trouble
        self._news = asyncio.Event()
        self._is_over = False

    def seal(self, sealed: Sealed) -> None:
        """Hold a batch and send it in its turn."""
        self.outbox.seal(sealed)
        self._news.set()

    def finish(self) -> None:
        """Expect no further batch: `run` ends when all are durable."""
        self._is_over = True
        self._news.set()

    async def run(self, line: Line) -> None:
        """Keep a stream open until the end; raises Refusal and NumbersDiffer."""
        while not self.is_done:
            channel, is_of_age = line.take(), False
            stream: Any = channel.stream_stream(
                _METHOD,
                request_serializer=None,
                response_deserializer=StreamUsageResponse.FromString,
            )
            try:
                self.is_done = await self._serve(stream(metadata=self._metadata))
                is_of_age = not self.is_done
            except grpc.aio.AioRpcError as error:
                self._judge(error)
                await asyncio.sleep(uniform(*_RETRY_SECONDS))
            finally:
                self.is_open.clear()
                await line.leave(channel, is_of_age=is_of_age)

    async def _serve(self, call: Any) -> bool:  # noqa: ANN401 - not in gRPC's stubs
        """Serve one call; returns whether it was the last: all that there is is durable."""
        hearing = asyncio.create_task(self._hear(call))
        hearing.add_done_callback(lambda _: self._news.set())
        try:
            opening = OpenStream(
                producer=self._name,
                instance=self._instance,
                first_sequence=self.outbox.first_sequence,
            )
            await call.write(StreamUsageRequest(open=opening).SerializeToString())
            while not hearing.done():
                self._news.clear()
                if self.is_open.is_set():
                    await self._send(call)
                    if self._is_over and self.outbox.is_empty:
                        await call.done_writing()
                        await hearing
                        return True
                try:
                    async with asyncio.timeout(self._patience_seconds()):
                        await self._news.wait()
                except TimeoutError:
                    beat = Heartbeat(last_sequence=self.outbox.last_sequence)
                    await call.write(StreamUsageRequest(heartbeat=beat).SerializeToString())
        except asyncio.InvalidStateError:
            # gRPC's word for a call that has ended under what was being written.
            pass
        finally:
            if not hearing.done():
                call.cancel()
            await asyncio.wait((hearing,))
            if not hearing.cancelled():
                # Seen, where what was written has failed as well.
                hearing.exception()
        await hearing
        return False

    def _patience_seconds(self) -> float | None:
        """Return how long news are waited for before they are asked for; None for ever.

        A stream that was opened again may find all recorded that there is: no ack comes by itself.
        """
        waits = self._is_over and self.is_open.is_set() and not self.outbox.unrecorded_count
        return _BEAT_SECONDS if waits else None

    async def _send(self, call: Any) -> None:  # noqa: ANN401 - as above
        while (taken := self.outbox.take()) is not None:
            sequence, sealed = taken
            planes = self._prepared[sealed.batch].planes
            await call.write(message(sequence, planes, base_ms=sealed.base_ms))

    async def _hear(self, call: Any) -> None:  # noqa: ANN401 - as above
        while (answer := await call.read()) is not grpc.aio.EOF:
            if answer.HasField("opened"):
                self._go(answer.opened)
            else:
                self._acknowledge(answer.ack)

    def _go(self, opened: StreamOpened) -> None:
        recorded = self.outbox.opened(
            next_sequence=opened.next_sequence, in_flight_max=opened.batches_in_flight_max
        )
        self._on_recorded(recorded)
        self.is_open.set()
        self._news.set()

    def _acknowledge(self, ack: BatchAck) -> None:
        recorded = self.outbox.acknowledged(
            sequence=ack.sequence, durable_sequence=ack.durable_sequence
        )
        self._on_recorded(recorded)
        if ack.set_aside_count:
            self._on_set_aside(ack)
        if not self.outbox.is_idle or self._is_over:
            self._news.set()

    def _judge(self, error: grpc.aio.AioRpcError) -> None:
        reason = dict(error.trailing_metadata() or ()).get(_REASON_KEY, "")
        why = f"{error.details()} ({reason or error.code().name})"
        if error.code() in _FINAL:
            raise Refusal(f"{self._name}: {why}") from error
        self._on_trouble(why)
