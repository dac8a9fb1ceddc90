"""A producer written by hand, byte by byte, for what the client would never send."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc

from tests.faults.caller import to_event
from tests.faults.events import Source, Truth
from tests.faults.site import Site
from tokenworks.meter.v1 import meter_service_pb2 as pb
from tokenworks.meter.v1 import usage_pb2

_STREAM: Final = "/tokenworks.meter.v1.MeterService/StreamUsage"
_EXCHANGE_SECONDS_MAX: Final = 30
BATCH_EVENTS: Final = 50


@dataclass(kw_only=True)
class Answers:
    """What the meter said on one stream, and how it ended: None is in good order."""

    opened: list[int] = field(default_factory=list)
    """Each number that it named, the first one included."""
    acknowledged: list[int] = field(default_factory=list)
    set_aside: int = 0
    failure: grpc.StatusCode | None = None


class RawProducer:
    """Numbers its own batches; `truth` has each event before any of its bytes leaves."""

    def __init__(self, name: str, *, truth: Path, target: str, api_key: str) -> None:
        """Take a name of its own; `truth` is a new file."""
        self.name = name
        self.next_sequence = 1
        self._truth = Truth(truth)
        self._source = Source(name)
        self._instance = os.urandom(16)
        self._metadata = (("authorization", f"Bearer {api_key}"),)
        self._channel = grpc.insecure_channel(
            target, options=[("grpc.use_local_subchannel_pool", 1)]
        )
        self._call: Any = self._channel.stream_stream(
            _STREAM,
            request_serializer=None,
            response_deserializer=pb.StreamUsageResponse.FromString,
        )

    def batch(
        self,
        size: int = BATCH_EVENTS,
        *,
        change: Callable[[list[dict[str, Any]]], object] | None = None,
        change_sent: Callable[[pb.StreamUsageRequest], object] | None = None,
    ) -> tuple[int, bytes]:
        """Make up a batch: its number and the bytes of its message.

        `change` sees the truth, `change_sent` only what is sent.
        """
        end_ms = time.time_ns() // 1_000_000
        events = [self._source.draw(end_ms=end_ms) for _ in range(size)]
        if change is not None:
            change(events)
        self._truth.append(events)
        sequence, self.next_sequence = self.next_sequence, self.next_sequence + 1
        message = to_message(sequence, events)
        if change_sent is not None:
            changed = pb.StreamUsageRequest.FromString(message)
            change_sent(changed)
            message = changed.SerializeToString()
        return sequence, message

    def promise(self) -> None:
        """Note that all that was made up so far is delivered."""
        self._truth.promise(self._truth.count)

    def exchange(self, messages: Sequence[bytes]) -> Answers:
        """Open a stream, send all, end it, and return what was answered."""
        opening = pb.StreamUsageRequest(
            open=pb.OpenStream(producer=self.name, instance=self._instance)
        )
        answers = Answers()
        call = self._call(
            iter([opening.SerializeToString(), *messages]),
            metadata=self._metadata,
            timeout=_EXCHANGE_SECONDS_MAX,
        )
        try:
            for response in call:
                if response.WhichOneof("message") == "opened":
                    answers.opened.append(response.opened.next_sequence)
                else:
                    answers.acknowledged.append(response.ack.sequence)
                    answers.set_aside += response.ack.set_aside_count
        except grpc.RpcError:
            answers.failure = call.code()
        return answers

    def deliver(self, batches: Sequence[tuple[int, bytes]]) -> Answers:
        """Send batches in order, again and again from where the meter stands, until all are in."""
        merged = Answers()
        last = batches[-1][0]
        for _ in range(20):
            answers = self.exchange([])
            begin = answers.opened[0] if answers.opened else batches[0][0]
            if answers.opened and begin > last:
                return merged
            answers = self.exchange([message for number, message in batches if number >= begin])
            merged.acknowledged += answers.acknowledged
            merged.set_aside += answers.set_aside
        raise RuntimeError(f"{self.name} could not deliver its batches up to {last}")

    def close(self) -> None:
        """Let the connection go."""
        self._channel.close()


def raw_producer(site: Site, name: str) -> RawProducer:
    """Return one that reports to the meter of a row."""
    producer = RawProducer(
        name,
        truth=site.folder / "truth" / f"{name}.jsonl",
        target=site.proxy.address,
        api_key=site.api_key,
    )
    site.later(producer.close)
    return producer


def to_message(sequence: int, events: Sequence[dict[str, Any]]) -> bytes:
    """Serialise a batch in rows, each prompt and answer with its checksum."""
    rows = usage_pb2.UsageRows(events=[_to_row(event) for event in events])
    batch = usage_pb2.UsageBatch(sequence=sequence, rows=rows)
    return pb.StreamUsageRequest(batch=batch).SerializeToString()


def chunks(site: Site, *, count: int) -> Iterator[int]:
    """Count up, spread over the load of a row."""
    for number in range(count):
        yield number
        time.sleep(site.seconds / count)


def _to_row(event: dict[str, Any]) -> usage_pb2.UsageEvent:
    row = to_event(event)
    row.event_id = ""
    counts = event["classes"]
    row.reported_input_count = min(counts["input"] + counts["cache_read"], 2**31 - 1)
    row.reported_output_count = counts["output"]
    return row
