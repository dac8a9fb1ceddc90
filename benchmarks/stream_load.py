"""The load of ingest.stream, as a process of its own: eight streams of numbered batches.

Reads its orders as JSON from stdin, builds the batches, prints `ready`, begins at the next line of
stdin, and prints what was acknowledged as JSON.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc

from benchmarks.workload import MODELS, Batches, lengths
from tokenworks.meter.v1 import meter_service_pb2

_IN_FLIGHT = 16


class Producer(threading.Thread):
    """One stream that sends as fast as it is acknowledged, until the deadline."""

    def __init__(self, orders: dict[str, Any], number: int) -> None:
        """Build the batches."""
        super().__init__(daemon=True)
        pairs, _ = lengths()
        self._batches = Batches(
            seed=number,
            events=orders["events"],
            model=MODELS[number % len(MODELS)],
            pairs=pairs,
            count=min(max(2, 60_000 // orders["events"]), 64),
            has_ids=orders["has_ids"],
        )
        self._name = f"bench-{orders['events']}-{number}"
        self._orders = orders
        self._window = threading.Semaphore(_IN_FLIGHT)
        self._first = 1
        self._opened = threading.Event()
        self.sent = self.acknowledged = self.tokens = self.sent_bytes = 0

    def run(self) -> None:
        """Send until the deadline and wait for the last ack."""
        channel = grpc.insecure_channel(
            self._orders["target"], options=[("grpc.use_local_subchannel_pool", 1)]
        )
        call: Any = channel.stream_stream(
            "/tokenworks.meter.v1.MeterService/StreamUsage",
            request_serializer=None,
            response_deserializer=meter_service_pb2.StreamUsageResponse.FromString,
        )
        metadata = (("authorization", f"Bearer {self._orders['api_key']}"),)
        for answer in call(self._messages(), metadata=metadata):
            if answer.WhichOneof("message") == "opened":
                self._first = answer.opened.next_sequence
                self._opened.set()
                continue
            assert not answer.ack.set_aside_count
            self.acknowledged += 1
            self._window.release()

    def _messages(self) -> Iterator[bytes]:
        opening = meter_service_pb2.OpenStream(producer=self._name, instance=os.urandom(16))
        yield meter_service_pb2.StreamUsageRequest(open=opening).SerializeToString()
        self._opened.wait()
        deadline = time.monotonic() + self._orders["seconds"]
        while time.monotonic() < deadline:
            self._window.acquire()
            sequence = self._first + self.sent
            self.tokens += self._batches.tokens_of(sequence)
            self.sent += 1
            message = self._batches.message(sequence)
            self.sent_bytes += len(message)
            yield message


def main() -> None:
    """Run all producers and report."""
    orders = json.loads(sys.stdin.readline())
    producers = [Producer(orders, number) for number in range(orders["producers"])]
    print("ready", flush=True)
    sys.stdin.readline()
    begin, processor_begin = time.monotonic(), time.process_time()
    for producer in producers:
        producer.start()
    for producer in producers:
        producer.join()
    seconds = time.monotonic() - begin
    assert all(producer.sent == producer.acknowledged for producer in producers)
    report = {
        "seconds": seconds,
        "processor_seconds": time.process_time() - processor_begin,
        "events": orders["events"] * sum(producer.sent for producer in producers),
        "tokens": sum(producer.tokens for producer in producers),
        "bytes": sum(producer.sent_bytes for producer in producers),
    }
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
