"""The load of ingest.producers_2000, a process of its own (see `load.py`): very many streams."""

import asyncio
import json
import os
import sys
import time
from typing import Any, Final

import grpc

from benchmarks.workload import MODELS, Batches, lengths
from tokenworks.meter.v1 import meter_service_pb2

# Streams of one connection: fewer than a server takes.
_STREAMS: Final = 100
_METHOD: Final = "/tokenworks.meter.v1.MeterService/StreamUsage"
# What all streams together have on the way at most, where they are not paced, and each of them.
_IN_FLIGHT: Final = 128
_STREAM_IN_FLIGHT_MAX: Final = 16


def producers_orders(
    *, seconds: float, events: int, producers: int, is_paced: bool
) -> dict[str, Any]:
    """Return orders: a batch of so many events each second on each stream, or as fast as acks."""
    return {"seconds": seconds, "events": events, "producers": producers, "is_paced": is_paced}


class Producer:
    """One stream that sends a batch each second whatever the acks do, or as fast as they come."""

    def __init__(self, orders: dict[str, Any], number: int, *, batches: Batches) -> None:
        """Take who it is; batches are shared, and the same for every fourth."""
        self._number = number
        self._batches = batches
        self._orders = orders
        self._sent_times: dict[int, float] = {}
        in_flight = max(1, min(_IN_FLIGHT // orders["producers"], _STREAM_IN_FLIGHT_MAX))
        self._window = asyncio.Semaphore(in_flight)
        self._first = 1
        self.ack_seconds: list[float] = []
        self.tokens = self.sent = self.sent_bytes = 0

    async def open(self, channel: grpc.aio.Channel) -> None:
        """Open the stream."""
        call: Any = channel.stream_stream(
            _METHOD,
            request_serializer=None,
            response_deserializer=meter_service_pb2.StreamUsageResponse.FromString,
        )
        metadata = (("authorization", f"Bearer {self._orders['api_key']}"),)
        self._call = call(metadata=metadata)
        name = f"server-{self._number}"
        opening = meter_service_pb2.OpenStream(producer=name, instance=os.urandom(16))
        await self._call.write(
            meter_service_pb2.StreamUsageRequest(open=opening).SerializeToString()
        )
        self._first = (await self._call.read()).opened.next_sequence

    async def run(self, *, begin: float, seconds: float) -> None:
        """Send until the deadline and hear the last ack."""
        hearing = asyncio.create_task(self._hear())
        if self._orders["is_paced"]:
            await self._send_each_second(begin=begin, seconds=seconds)
        else:
            await self._send_as_acknowledged(begin=begin, seconds=seconds)
        await self._call.done_writing()
        await hearing
        assert not self._sent_times, "every batch was acknowledged"

    async def _send_each_second(self, *, begin: float, seconds: float) -> None:
        # At a moment of its own within each second.
        offset = self._number / self._orders["producers"]
        for step in range(int(seconds)):
            await asyncio.sleep(max(0.0, begin + step + offset - time.monotonic()))
            await self._send()

    async def _send_as_acknowledged(self, *, begin: float, seconds: float) -> None:
        await asyncio.sleep(max(0.0, begin - time.monotonic()))
        while time.monotonic() < begin + seconds:
            await self._window.acquire()
            await self._send()

    async def _send(self) -> None:
        sequence = self._first + self.sent
        self.tokens += self._batches.tokens_of(sequence)
        self.sent += 1
        self._sent_times[sequence] = time.monotonic()
        message = self._batches.message(sequence)
        self.sent_bytes += len(message)
        await self._call.write(message)

    async def _hear(self) -> None:
        while (answer := await self._call.read()) is not grpc.aio.EOF:
            assert not answer.ack.set_aside_count
            now = time.monotonic()
            # An ack is of all up to its number.
            for sequence in [it for it in self._sent_times if it <= answer.ack.sequence]:
                self.ack_seconds.append(now - self._sent_times.pop(sequence))
                self._window.release()


async def _main(orders: dict[str, Any]) -> dict[str, Any]:
    pairs, _ = lengths()
    shared = [
        Batches(seed=number, events=orders["events"], model=model, pairs=pairs, count=64)
        for number, model in enumerate(MODELS)
    ]
    producers = [
        Producer(orders, number, batches=shared[number % len(shared)])
        for number in range(orders["producers"])
    ]
    channels = [
        grpc.aio.insecure_channel(orders["target"], options=[("grpc.use_local_subchannel_pool", 1)])
        for _ in range(-(-len(producers) // _STREAMS))
    ]
    for first in range(0, len(producers), _STREAMS):
        # One connection after the other: a key may open so many streams a second.
        for producer in producers[first : first + _STREAMS]:
            await producer.open(channels[first // _STREAMS])
    print("ready", flush=True)
    sys.stdin.readline()
    begin, processor_begin = time.monotonic() + 1, time.process_time()
    await asyncio.gather(*(it.run(begin=begin, seconds=orders["seconds"]) for it in producers))
    seconds = time.monotonic() - begin
    took = sorted(each for producer in producers for each in producer.ack_seconds)
    for channel in channels:
        await channel.close()
    return {
        "seconds": seconds,
        "processor_seconds": time.process_time() - processor_begin,
        "events": orders["events"] * sum(it.sent for it in producers),
        "tokens": sum(it.tokens for it in producers),
        "bytes": sum(it.sent_bytes for it in producers),
        "ack_ms": {
            name: 1000 * took[min(int(part * len(took)), len(took) - 1)]
            for name, part in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999))
        },
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_main(json.loads(sys.stdin.readline())))), flush=True)
