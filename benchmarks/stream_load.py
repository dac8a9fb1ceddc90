"""The load of ingest.stream, a process of its own (see `load.py`): streams of numbered batches."""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import grpc

from benchmarks.workload import ACCOUNTS, DISTINCT_EVENTS, MODELS, Batches, Form, lengths
from tokenworks.meter.v1 import meter_service_pb2

_IN_FLIGHT = 16


def stream_orders(
    *,
    seconds: float,
    events: int = 10_000,
    producers: int = 8,
    form: Form = Form.PLANES,
    has_ids: bool = False,
    accounts: int = ACCOUNTS,
    distinct_events: int = DISTINCT_EVENTS,
    events_per_second: float | None = None,
    is_once: bool = False,
) -> dict[str, Any]:
    """Return orders: streams that send batches of so many events.

    `events_per_second` is of all of them together; None is as fast as they are acknowledged.
    `is_once`: each batch is sent once, and waited for, so that its names are known from then on.
    """
    return {
        "seconds": seconds,
        "events": events,
        "producers": producers,
        "form": form,
        "has_ids": has_ids,
        "accounts": accounts,
        "distinct_events": distinct_events,
        "is_once": is_once,
        "batches_per_second": events_per_second and events_per_second / events / producers,
    }


class Producer(threading.Thread):
    """One stream that sends at its pace, or as fast as it is acknowledged, until the end."""

    def __init__(self, orders: Mapping[str, Any], number: int, *, ended: threading.Event) -> None:
        """Build the batches."""
        super().__init__(daemon=True)
        pairs, _ = lengths()
        self._batches = Batches(
            seed=number,
            events=orders["events"],
            model=MODELS[number % len(MODELS)],
            pairs=pairs,
            has_ids=orders["has_ids"],
            form=Form(orders["form"]),
            accounts=orders["accounts"],
            distinct_events=orders["distinct_events"],
        )
        self._name = f"bench-{orders['events']}-{number}"
        self._orders = orders
        self._ended = ended
        self._window = threading.Semaphore(1 if orders["is_once"] else _IN_FLIGHT)
        self._first = 1
        self._opened = threading.Event()
        self.sent = self.acknowledged = self.tokens = self.sent_bytes = 0

    def run(self) -> None:
        """Send until the end and wait for the last ack."""
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
            # One ack may be of several batches.
            newly = answer.ack.sequence - self._first + 1 - self.acknowledged
            self.acknowledged += newly
            self._window.release(newly)

    def _messages(self) -> Iterator[bytes]:
        opening = meter_service_pb2.OpenStream(producer=self._name, instance=os.urandom(16))
        yield meter_service_pb2.StreamUsageRequest(open=opening).SerializeToString()
        self._opened.wait()
        begin = time.monotonic()
        while not self._is_over(begin):
            self._window.acquire()
            if self._orders["batches_per_second"]:
                due = begin + self.sent / self._orders["batches_per_second"]
                self._ended.wait(max(0.0, due - time.monotonic()))
            sequence = self._first + self.sent
            self.tokens += self._batches.tokens_of(sequence)
            self.sent += 1
            message = self._batches.message(sequence)
            self.sent_bytes += len(message)
            yield message

    def _is_over(self, begin: float) -> bool:
        if self._orders["is_once"] and self.sent == len(self._batches.payloads):
            return True
        return self._ended.is_set() or time.monotonic() >= begin + self._orders["seconds"]


def main() -> None:
    """Run all producers and report."""
    orders = json.loads(sys.stdin.readline())
    ended = threading.Event()
    producers = [Producer(orders, number, ended=ended) for number in range(orders["producers"])]
    print("ready", flush=True)
    sys.stdin.readline()
    threading.Thread(target=_end_with_stdin, args=(ended,), daemon=True).start()
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


def _end_with_stdin(ended: threading.Event) -> None:
    # Whoever measures has heard enough, or is gone.
    sys.stdin.read()
    ended.set()


if __name__ == "__main__":
    main()
