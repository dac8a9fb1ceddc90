"""A process that attacks a meter until it is ended; prints how often, a line each time.

    python -m tests.faults.hostile ATTACK ORDERS

Takes the orders of `tests.faults.reporter`.
"""

import asyncio
import itertools
import json
import os
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import grpc

from benchmarks.frames import END_HEADERS, PREFACE, STREAM_USAGE, Kind, frame, stream_headers
from tests.faults.caller import to_event
from tests.faults.events import Source, Truth
from tests.faults.openings import open_new
from tests.faults.raw import RawProducer
from tests.faults.reporter import Orders
from tokenworks.meter.v1 import meter_service_pb2 as pb
from tokenworks.meter.v1 import usage_pb2

_RECORD: Final = "/tokenworks.meter.v1.MeterService/RecordUsage"
_QUERY: Final = "/tokenworks.meter.v1.MeterService/QueryUsage"
_MEBIBYTE: Final = 1024 * 1024
_BOMB_BYTES: Final = 300 * _MEBIBYTE
_GZIP_BOMB_BYTES: Final = 64 * _MEBIBYTE
_IDLE_STREAMS: Final = 1_000
_SLOW_CONNECTIONS: Final = 200
_CALL_SECONDS_MAX: Final = 20
_FLOOD_CONNECTIONS: Final = 4
_FLOOD_STREAMS: Final = 50
_FLOOD_CALLS: Final = 256
_CLAIMING_CALLS: Final = 16
_CLAIMED_EVENTS: Final = 1_000


def bombs(orders: Orders) -> Iterator[str]:
    """Send messages of 300 MB, and small ones that unpack to 64 MB, on calls and on streams."""
    metadata = (("authorization", f"Bearer {orders.api_key}"),)
    with grpc.insecure_channel(orders.target) as channel:
        record: Any = channel.unary_unary(_RECORD)
        stream: Any = channel.stream_stream(STREAM_USAGE)
        small = bytes(_GZIP_BOMB_BYTES)
        while True:
            for body, compression in (
                (bytes(_BOMB_BYTES), grpc.Compression.NoCompression),
                (small, grpc.Compression.Gzip),
            ):
                how = {
                    "metadata": metadata,
                    "timeout": _CALL_SECONDS_MAX,
                    "compression": compression,
                }
                for attack in (
                    lambda body=body, how=how: record(body, **how),
                    lambda body=body, how=how: list(stream(iter([body]), **how)),
                ):
                    try:
                        attack()
                    except grpc.RpcError as error:
                        yield f"refused {getattr(error, 'code', str)()}"
                    else:
                        yield "taken"


def slow(orders: Orders) -> Iterator[str]:
    """Open connections that speak a byte now and then, and new ones for those that were closed.

    One of two never ends its preface, the other opens a stream and never ends its first message.
    """
    host, _, port = orders.target.rpartition(":")
    peers: list[tuple[socket.socket, Iterator[bytes]]] = []
    number = 0
    while True:
        while len(peers) < _SLOW_CONNECTIONS:
            peer = socket.create_connection((host, int(port)), timeout=_CALL_SECONDS_MAX)
            number += 1
            peers.append((peer, slow_preface() if number % 2 else slow_message(_key(orders))))
        kept = []
        for peer, rest in peers:
            try:
                peer.sendall(next(rest))
            except OSError:
                peer.close()
            else:
                kept.append((peer, rest))
        yield f"slow {len(kept)}"
        peers = kept
        time.sleep(0.5)


def slow_preface() -> Iterator[bytes]:
    """Yield an HTTP/2 preface byte by byte, up to its last one, which never comes."""
    yield from (bytes([byte]) for byte in PREFACE[:-1])
    while True:
        yield b""


def slow_message(api_key: str) -> Iterator[bytes]:
    """Yield a stream's opening, then a message of a megabyte, a byte in each frame."""
    opening = frame(b"", kind=Kind.SETTINGS, stream=0) + frame(
        stream_headers(api_key), kind=Kind.HEADERS, flags=END_HEADERS
    )
    yield PREFACE + opening + frame(struct.pack(">BI", 0, _MEBIBYTE), kind=Kind.DATA)
    while True:
        yield frame(b"\0", kind=Kind.DATA)


def idle(orders: Orders) -> Iterator[str]:
    """Hold a thousand open streams that never report anything."""
    loop = asyncio.new_event_loop()
    count = loop.run_until_complete(_open_idle(orders))
    yield f"idle {count}"
    loop.run_forever()


async def _open_idle(orders: Orders) -> int:
    metadata = (("authorization", f"Bearer {orders.api_key}"),)
    calls = []
    opened = 0
    for part in range(10):
        channel = grpc.aio.insecure_channel(
            orders.target, options=[("grpc.use_local_subchannel_pool", 1)]
        )
        for number in range(_IDLE_STREAMS // 10):
            call = channel.stream_stream(
                STREAM_USAGE,
                request_serializer=pb.StreamUsageRequest.SerializeToString,
                response_deserializer=pb.StreamUsageResponse.FromString,
            )(metadata=metadata)
            opening = pb.OpenStream(producer=f"idle-{part}-{number}", instance=os.urandom(16))
            await call.write(pb.StreamUsageRequest(open=opening))
            calls.append((channel, call))
    for _, call in calls:
        answer = await asyncio.wait_for(call.read(), _CALL_SECONDS_MAX)
        opened += answer is not grpc.aio.EOF
    # Held by the loop, which never ends.
    asyncio.get_running_loop().__dict__.setdefault("held", calls)
    return opened


def dimensions(orders: Orders) -> Iterator[str]:
    """Report a thousand pools and regions that nobody has heard of, five times a second."""
    producer = RawProducer(
        orders.producer, truth=Path(orders.truth), target=orders.target, api_key=_key(orders)
    )

    def rename(message: pb.StreamUsageRequest) -> None:
        for row in message.batch.rows.events:
            row.dimensions.pool = os.urandom(8).hex()
            row.dimensions.region = os.urandom(2).hex()

    while True:
        made = producer.batch(1_000, change_sent=rename)
        producer.deliver([made])
        producer.promise()
        yield "new 1000"
        time.sleep(0.2)


def batches(orders: Orders) -> Iterator[str]:
    """Send batches without an event as fast as they are taken, on fifty streams."""

    async def stream(channel: grpc.aio.Channel, number: int, counts: dict[str, int]) -> None:
        call: Any = channel.stream_stream(STREAM_USAGE, pb.StreamUsageRequest.SerializeToString)

        async def messages() -> AsyncIterator[pb.StreamUsageRequest]:
            name = f"flood-{number}"
            yield pb.StreamUsageRequest(open=pb.OpenStream(producer=name, instance=os.urandom(16)))
            for sequence in itertools.count(1):
                batch = usage_pb2.UsageBatch(sequence=sequence, rows=usage_pb2.UsageRows())
                yield pb.StreamUsageRequest(batch=batch)

        async for _ in call(messages(), metadata=_metadata(orders)):
            counts["taken"] += 1

    return _flood(orders, stream, peers=_FLOOD_STREAMS)


def calls(orders: Orders) -> Iterator[str]:
    """Ask for the usage of 1970 from 256 callers, as fast as they are answered."""
    asked = pb.QueryUsageRequest()
    asked.end_time.FromSeconds(900)

    async def caller(channel: grpc.aio.Channel, _number: int, counts: dict[str, int]) -> None:
        query: Any = channel.unary_unary(_QUERY, pb.QueryUsageRequest.SerializeToString)
        await query(asked, metadata=_metadata(orders), timeout=_CALL_SECONDS_MAX)
        counts["taken"] += 1

    return _flood(orders, caller, peers=_FLOOD_CALLS)


def claims(orders: Orders) -> Iterator[str]:
    """Report a thousand events with new ids in each call, sixteen calls at a time."""
    truth, source = Truth(Path(orders.truth)), Source(Path(orders.truth).stem)
    loop = asyncio.new_event_loop()
    channel = loop.run_until_complete(_connect(orders))
    record: Any = channel.unary_unary(_RECORD, pb.RecordUsageRequest.SerializeToString)

    async def claim(request: pb.RecordUsageRequest) -> None:
        while True:
            try:
                await record(request, metadata=_metadata(orders), timeout=_CALL_SECONDS_MAX)
            except grpc.RpcError:
                # What it has sent it must see through, or the row would not know what became of it.
                await asyncio.sleep(0.1)
            else:
                return

    async def turn() -> None:
        requests = []
        for _ in range(_CLAIMING_CALLS):
            now_ms = time.time_ns() // 1_000_000
            events = [source.draw(end_ms=now_ms) for _ in range(_CLAIMED_EVENTS)]
            truth.append(events)
            requests.append(pb.RecordUsageRequest(events=[to_event(event) for event in events]))
        await asyncio.gather(*(claim(request) for request in requests))
        truth.promise(truth.count)

    while True:
        loop.run_until_complete(turn())
        yield f"claimed {_CLAIMING_CALLS * _CLAIMED_EVENTS}"


def _flood(
    orders: Orders,
    act: Callable[[grpc.aio.Channel, int, dict[str, int]], Awaitable[None]],
    *,
    peers: int,
) -> Iterator[str]:
    """Have many act at once, each again as soon as it was answered or refused; count both."""
    loop = asyncio.new_event_loop()
    counts = {"taken": 0, "refused": 0}
    channels = [loop.run_until_complete(_connect(orders)) for _ in range(_FLOOD_CONNECTIONS)]

    async def again(number: int) -> None:
        while True:
            try:
                await act(channels[number % len(channels)], number, counts)
            except grpc.RpcError:
                counts["refused"] += 1

    tasks = [loop.create_task(again(number)) for number in range(peers)]
    while not any(task.done() for task in tasks):
        before = dict(counts)
        loop.run_until_complete(asyncio.sleep(0.5))
        more = {name: count - before[name] for name, count in counts.items()}
        yield f"flood {more['taken'] + more['refused']} {more['refused']}"


async def _connect(orders: Orders) -> grpc.aio.Channel:
    # In a coroutine: a channel belongs to the loop that runs.
    return grpc.aio.insecure_channel(orders.target, options=[("grpc.use_local_subchannel_pool", 1)])


def _key(orders: Orders) -> str:
    assert orders.api_key is not None, "it has a valid key"
    return orders.api_key


def _metadata(orders: Orders) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {orders.api_key}"),)


ATTACKS: Final = {
    "bombs": bombs,
    "slow": slow,
    "idle": idle,
    "dimensions": dimensions,
    "batches": batches,
    "calls": calls,
    "producers": open_new,
    "claims": claims,
}


def main() -> None:
    """Attack until ended."""
    attack = ATTACKS[sys.argv[1]]
    # In truth it runs on a machine of its own, and takes nobody's time. One that takes little of it
    # has it at once, or it would be no attack on a machine that is busy.
    if attack is not open_new:
        os.nice(19)
    orders = Orders(**json.loads(sys.argv[2]))
    for line in attack(orders):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
