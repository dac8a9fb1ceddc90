"""A site's producer against a meter that breaks off at the worst moment."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from cli.simulate.server import MeterAddress
from cli.simulate.site.batches import Prepared
from cli.simulate.site.line import Line, open_channel
from cli.simulate.site.outbox import Sealed
from cli.simulate.site.producer import Producer
from tokenworks.meter.v1 import meter_service_pb2 as messages

WAIT_SECONDS_MAX = 30.0
PREPARED = Prepared(tier="t", model="m", event_count=7, energy_mj=0, tokens={}, planes=b"")


class BreakingMeter:
    """Records the first batch, ends the stream before it says so, and acknowledges when asked."""

    def __init__(self) -> None:
        self.recorded = 0
        self.beats: list[int] = []

    async def stream_usage(
        self,
        requests: AsyncIterator[messages.StreamUsageRequest],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[messages.StreamUsageResponse]:
        """Serve one stream."""
        async for request in requests:
            kind = request.WhichOneof("message")
            if kind == "open":
                opened = messages.StreamOpened(
                    next_sequence=self.recorded + 1, batches_in_flight_max=4
                )
                yield messages.StreamUsageResponse(opened=opened)
            elif kind == "batch":
                self.recorded = request.batch.sequence
                await context.abort(grpc.StatusCode.UNAVAILABLE, "of age")
            else:
                self.beats.append(request.heartbeat.last_sequence)
                ack = messages.BatchAck(
                    sequence=self.recorded, durable_sequence=self.recorded * (len(self.beats) > 1)
                )
                yield messages.StreamUsageResponse(ack=ack)


class AgingMeter:
    """Ends the first stream in good order, as before a connection is of age; then acknowledges."""

    def __init__(self) -> None:
        self.peers: list[str] = []

    async def stream_usage(
        self,
        requests: AsyncIterator[messages.StreamUsageRequest],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[messages.StreamUsageResponse]:
        """Serve one stream."""
        self.peers.append(context.peer())
        async for request in requests:
            if request.WhichOneof("message") == "open":
                opened = messages.StreamOpened(next_sequence=1, batches_in_flight_max=4)
                yield messages.StreamUsageResponse(opened=opened)
            elif len(self.peers) == 1:
                return
            else:
                ack = messages.BatchAck(sequence=1, durable_sequence=1)
                yield messages.StreamUsageResponse(ack=ack)


async def serve_one_batch(meter: BreakingMeter | AgingMeter) -> tuple[Producer, list[Sealed]]:
    """Have a producer report one batch, to its end."""
    server = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(
        meter.stream_usage,
        request_deserializer=messages.StreamUsageRequest.FromString,
        response_serializer=messages.StreamUsageResponse.SerializeToString,
    )
    name = "tokenworks.meter.v1.MeterService"
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(name, {"StreamUsage": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    recorded: list[Sealed] = []
    producer = Producer(
        "p",
        prepared=[PREPARED],
        api_key=None,
        on_recorded=recorded.extend,
        on_set_aside=lambda _: None,
        on_trouble=lambda _: None,
    )
    address = MeterAddress(
        target=f"127.0.0.1:{port}",
        api_key=None,
        ca_certificate=None,
        client_certificate=None,
        client_key=None,
        insecure=True,
    )
    line = Line(lambda: open_channel(address))
    try:
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            running = asyncio.create_task(producer.run(line))
            await producer.is_open.wait()
            producer.seal(Sealed(batch=0, base_ms=0, sealed_seconds=0.0))
            producer.finish()
            await running
    finally:
        await line.close()
        await server.stop(None)
    return producer, recorded


def test_run__all_is_recorded_when_it_comes_back() -> None:
    """It asks whether its last batch is durable, until it is: no ack comes by itself."""
    meter = BreakingMeter()
    producer, recorded = asyncio.run(serve_one_batch(meter))
    assert (producer.is_done, producer.outbox.is_empty, len(recorded)) == (True, True, 1)
    assert meter.beats == [1, 1]


def test_run__comes_back_on_a_new_connection() -> None:
    """After a stream that the meter ended in good order the next has a connection of its own."""
    meter = AgingMeter()
    producer, recorded = asyncio.run(serve_one_batch(meter))
    assert (producer.is_done, len(recorded)) == (True, 1)
    first, second = meter.peers
    assert first != second
