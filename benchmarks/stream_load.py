"""The load of the rows of streams, as a process of its own: streams of numbered batches.

Reads its orders as JSON from stdin, opens the streams, prints `ready`, begins at the next line of
stdin, ends when stdin does or its time is over, and prints what was acknowledged as JSON.
"""

import heapq
import json
import os
import select
import sys
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from benchmarks.frames import stream_headers
from benchmarks.http2 import Link, Links
from benchmarks.workload import ACCOUNTS, DISTINCT_EVENTS, MODELS, Batches, Form, lengths
from tokenworks.meter.v1 import meter_service_pb2

_IN_FLIGHT: Final = 16
# Above so many streams, batches are shared, and what all have on the way together is bounded.
_PRODUCERS_ALONE_MAX: Final = 8
_IN_FLIGHT_TOGETHER: Final = 128
# Streams of one connection: fewer than a server takes.
_STREAMS: Final = 100
# Streams that are opened at a time.
_OPENINGS: Final = 256
_LOOK_SECONDS: Final = 0.1
_END_SECONDS: Final = 5.0


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
    is_apart: bool = False,
) -> dict[str, Any]:
    """Return orders: streams that send batches of so many events.

    `events_per_second` is of all of them together; None is as fast as they are acknowledged.
    `is_once`: each batch is sent once, and waited for, so that its names are known from then on.
    `is_apart`: each stream has a connection of its own, however many there are.
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
        "is_apart": is_apart,
        "batches_per_second": events_per_second and events_per_second / events / producers,
    }


class Producer:
    """One stream that sends at its pace, or as fast as it is acknowledged."""

    def __init__(self, orders: Mapping[str, Any], number: int, *, batches: Batches) -> None:
        """Take who it is, and what it sends."""
        self._orders = orders
        self._number = number
        self._batches = batches
        self._pace = orders["batches_per_second"]
        self._in_flight_max = in_flight_max(orders)
        self._due_times: deque[float] = deque()
        self._acknowledged = 0
        self.first = 0
        self.ack_seconds: list[float] = []
        self.tokens = self.sent = self.sent_bytes = 0

    def open(self, link: Link) -> None:
        """Open the stream; `first` is set when that is answered."""
        self.call = link.call(stream_headers(self._orders["api_key"]), hear=self._hear)
        name = f"bench-{self._orders['events']}-{self._number}"
        opening = meter_service_pb2.OpenStream(producer=name, instance=os.urandom(16))
        message = meter_service_pb2.StreamUsageRequest(open=opening)
        self.call.send(message.SerializeToString())

    @property
    def may_send(self) -> bool:
        """Whether there is something to send, and not too much on the way."""
        if self._orders["is_once"] and self.sent == len(self._batches.payloads):
            return False
        return len(self._due_times) < self._in_flight_max

    @property
    def is_answered(self) -> bool:
        """Whether nothing is on the way."""
        return not self._due_times

    def due_time(self, begin: float) -> float:
        """Return when the next batch is to be sent: at a moment of its own in each period."""
        if not self._pace:
            return begin
        return float(begin + (self.sent + self._number / self._orders["producers"]) / self._pace)

    def send(self, due: float) -> None:
        """Send the next batch."""
        sequence = self.first + self.sent
        self.tokens += self._batches.tokens_of(sequence)
        self.sent += 1
        message = self._batches.message(sequence)
        self.sent_bytes += len(message)
        self._due_times.append(due)
        self.call.send(message)

    def _hear(self, message: bytes) -> None:
        answer = meter_service_pb2.StreamUsageResponse.FromString(message)
        if answer.WhichOneof("message") == "opened":
            assert not self.first, "nothing is called back"
            self.first = answer.opened.next_sequence
            return
        assert not answer.ack.set_aside_count
        now = time.monotonic()
        # One ack may be of several batches.
        newly = answer.ack.sequence - self.first + 1 - self._acknowledged
        self._acknowledged += newly
        for _ in range(newly):
            # From when it was due: a batch that had to wait has waited for the server, too.
            self.ack_seconds.append(now - self._due_times.popleft())


class Load:
    """All streams."""

    def __init__(self, orders: Mapping[str, Any]) -> None:
        """Build the batches."""
        self._orders = orders
        count = orders["producers"]
        pairs, _ = lengths()
        batches = [
            Batches(
                seed=number,
                events=orders["events"],
                model=MODELS[number % len(MODELS)],
                pairs=pairs,
                has_ids=orders["has_ids"],
                form=Form(orders["form"]),
                accounts=orders["accounts"],
                distinct_events=orders["distinct_events"],
            )
            for number in range(count if count <= _PRODUCERS_ALONE_MAX else len(MODELS))
        ]
        self.producers = [
            Producer(orders, number, batches=batches[number % len(batches)])
            for number in range(count)
        ]

    def open(self) -> None:
        """Open all streams, few of them on one connection where they are few."""
        orders, count = self._orders, len(self.producers)
        is_apart = orders["is_apart"] or count <= _PRODUCERS_ALONE_MAX
        streams = 1 if is_apart else _STREAMS
        links = [Link(orders["target"]) for _ in range(-(-count // streams))]
        self._links = Links(links)
        opened = answered = 0
        while answered < count:
            # Of more that come at a moment gRPC's server turns some away.
            for number in range(opened, min(count, answered + _OPENINGS)):
                self.producers[number].open(links[number // streams])
                opened += 1
            self._links.serve(_LOOK_SECONDS)
            answered = sum(bool(producer.first) for producer in self.producers)

    @property
    def is_answered(self) -> bool:
        """Whether nothing is on the way."""
        return all(producer.is_answered for producer in self.producers)

    def run(self) -> float:
        """Send until the time is over or stdin ends, wait for the last ack; return the seconds."""
        begin = time.monotonic()
        end = begin + self._orders["seconds"]
        waiting = [(it.due_time(begin), number) for number, it in enumerate(self.producers)]
        heapq.heapify(waiting)
        held: set[int] = set()
        while (now := time.monotonic()) < end and not _is_told_to_end():
            for number in [it for it in held if self.producers[it].may_send]:
                held.remove(number)
                heapq.heappush(waiting, (self.producers[number].due_time(begin), number))
            while waiting and waiting[0][0] <= now:
                due, number = heapq.heappop(waiting)
                producer = self.producers[number]
                if not producer.may_send:
                    held.add(number)
                    continue
                producer.send(due if self._orders["batches_per_second"] else now)
                heapq.heappush(waiting, (producer.due_time(begin), number))
            next_due = waiting[0][0] if waiting else end
            self._links.serve(min(next_due - now, _LOOK_SECONDS))
            if self._orders["is_once"] and not waiting and self.is_answered:
                break
        while not self.is_answered:
            self._links.serve(_LOOK_SECONDS)
        return time.monotonic() - begin

    def close(self) -> None:
        """End all streams in good order."""
        for producer in self.producers:
            producer.call.end()
        end = time.monotonic() + _END_SECONDS
        while not all(it.call.is_over for it in self.producers) and time.monotonic() < end:
            self._links.serve(_LOOK_SECONDS)
        self._links.close()


def in_flight_max(orders: Mapping[str, Any]) -> int:
    """Return how many batches a stream has on the way at most."""
    if orders["is_once"]:
        return 1
    if orders["batches_per_second"] or orders["is_apart"]:
        return _IN_FLIGHT
    return int(max(1, min(_IN_FLIGHT_TOGETHER // orders["producers"], _IN_FLIGHT)))


def main() -> None:
    """Run all producers and report."""
    orders = json.loads(sys.stdin.readline())
    load = Load(orders)
    load.open()
    print("ready", flush=True)
    sys.stdin.readline()
    processor_begin = time.process_time()
    seconds = load.run()
    processor_seconds = time.process_time() - processor_begin
    load.close()
    producers = load.producers
    took = sorted(each for producer in producers for each in producer.ack_seconds)
    report = {
        "seconds": seconds,
        "processor_seconds": processor_seconds,
        "events": orders["events"] * sum(producer.sent for producer in producers),
        "tokens": sum(producer.tokens for producer in producers),
        "bytes": sum(producer.sent_bytes for producer in producers),
        "ack_ms": {
            name: 1000 * took[min(int(part * len(took)), len(took) - 1)]
            for name, part in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999))
        },
    }
    print(json.dumps(report), flush=True)


def _is_told_to_end() -> bool:
    """Tell whether whoever measures has heard enough, or is gone."""
    return bool(select.select([sys.stdin], [], [], 0)[0])


if __name__ == "__main__":
    main()
