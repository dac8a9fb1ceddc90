"""A meter at the network edge: the server's side of the stream's protocol, kept in memory.

Only for what a real meter cannot be made to do on demand: to hold its acks back, to lag behind with
durability, to lose what it had, to fail with a chosen status.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Condition
from typing import Final, Never, cast

import grpc

from tokenworks.client.usage_objects import unpack
from tokenworks.meter.v1 import usage_pb2 as pb
from tokenworks.meter.v1.meter_service_pb2 import (
    BatchAck,
    OpenStream,
    SetAside,
    StreamOpened,
    StreamUsageRequest,
    StreamUsageResponse,
)
from tokenworks.meter.v1.outcome_pb2 import Outcome

API_KEY: Final = "tw_fake"
WAIT_SECONDS: Final = 20
"""How long a test waits for what must come; none waits for what must not."""
DIGESTS_KEPT: Final = 32
"""An older number cannot be compared."""
_SERVICE: Final = "tokenworks.meter.v1.MeterService"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """How a call is to fail."""

    code: grpc.StatusCode
    reason: str = ""


@dataclass(slots=True)
class Producer:
    """What the meter knows of a producer."""

    instance: bytes = b""
    fenced: set[bytes] = field(default_factory=set)
    batches: dict[int, bytes] = field(default_factory=dict)
    """Serialised UsageBatch messages by number."""
    next_sequence: int = 1
    announced: int = 0
    """The highest number that a heartbeat has named."""
    quarantine: list[bytes] = field(default_factory=list)
    """Batches whose number was recorded before with other bytes."""
    gaps: list[tuple[int, int]] = field(default_factory=list)

    def roll_back(self, next_sequence: int) -> None:
        """Come back as it was when this number was expected."""
        kept = range(1, next_sequence)
        self.batches = {n: batch for n, batch in self.batches.items() if n in kept}
        self.next_sequence = next_sequence


class FakeMeter:
    """Answers StreamUsage; tests change its fields while it runs, under `changed`."""

    def __init__(self) -> None:
        self.changed = Condition()
        self.producers: dict[str, Producer] = {}
        self.refusal: Refusal | None = None
        self.acks_held = False
        self.durable_lag = 0
        """The newest so many batches are not durable."""
        self.set_aside_count = 0
        """Set aside of each batch."""
        self.in_flight_max = 4
        self.knows_clones = False
        """Whether a number may come again with other bytes, which go to quarantine then."""
        self.call_count = 0
        self.heartbeat_count = 0
        self.target = ""
        self.shown: list[bytes] = []
        """The name in the certificate that each stream came with, where it came with one."""

    @contextmanager
    def serving(
        self, *, target: str = "127.0.0.1:0", credentials: grpc.ServerCredentials | None = None
    ) -> Iterator["FakeMeter"]:
        """Serve for the time of the block, over TLS where there are credentials."""
        server = grpc.server(ThreadPoolExecutor(max_workers=16))
        handler = grpc.stream_stream_rpc_method_handler(
            self.stream_usage,
            request_deserializer=StreamUsageRequest.FromString,
            response_serializer=StreamUsageResponse.SerializeToString,
        )
        server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(_SERVICE, {"StreamUsage": handler})]
        )
        port = (
            server.add_insecure_port(target)
            if credentials is None
            else server.add_secure_port(target, credentials)
        )
        self.target = f"127.0.0.1:{port}"
        server.start()
        try:
            yield self
        finally:
            with self.changed:
                self.acks_held = False
                self.changed.notify_all()
            server.stop(grace=None).wait()

    def set(self, **fields: object) -> None:
        """Change fields, and wake whoever waits for that."""
        with self.changed:
            for name, value in fields.items():
                assert hasattr(self, name)
                setattr(self, name, value)
            self.changed.notify_all()

    def wait_for_events(self, count: int) -> bool:
        """Wait until so many events have arrived; False where they do not."""
        with self.changed:
            return self.changed.wait_for(lambda: len(self.events) >= count, WAIT_SECONDS)

    @property
    def columns(self) -> list[pb.UsageColumns]:
        """All batches of all producers, by number."""
        with self.changed:
            return [
                pb.UsageBatch.FromString(batch).columns
                for producer in self.producers.values()
                for _, batch in sorted(producer.batches.items())
            ]

    @property
    def events(self) -> list[dict[str, object]]:
        """All events, each with its account, classes and other fields that the tests look at."""
        return [event for columns in self.columns for event in events_from_columns(columns)]

    def stream_usage(
        self,
        request_iterator: Iterator[StreamUsageRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[StreamUsageResponse]:
        """Take numbered batches."""
        with self.changed:
            self.call_count += 1
            names = cast("Iterable[bytes]", context.auth_context().get("x509_common_name", ()))
            self.shown.extend(names)
            self.changed.notify_all()
        if ("authorization", f"Bearer {API_KEY}") not in context.invocation_metadata():
            self._fail(context, grpc.StatusCode.UNAUTHENTICATED, reason="API_KEY_UNKNOWN")
        self._refuse_if_wanted(context)
        opening = next(request_iterator).open
        producer = self._open(opening, context)
        yield self._opened(producer)
        for request in request_iterator:
            self._refuse_if_wanted(context)
            if opening.instance in producer.fenced:
                self._fail_taken_over(context)
            with self.changed:
                sequence, is_changed = self._take(producer, request)
                self.changed.notify_all()
                self.changed.wait_for(lambda: not self.acks_held)
            if sequence is None:
                yield self._opened(producer)
            else:
                yield self._ack(producer, sequence=sequence, is_changed=is_changed)

    def _open(self, opening: OpenStream, context: grpc.ServicerContext) -> Producer:
        with self.changed:
            producer = self.producers.setdefault(opening.producer, Producer())
            if opening.instance in producer.fenced:
                self._fail_taken_over(context)
            if producer.instance not in (b"", opening.instance):
                producer.fenced.add(producer.instance)
            producer.instance = opening.instance
            if opening.first_sequence > producer.next_sequence:
                producer.gaps.append((producer.next_sequence, opening.first_sequence - 1))
                producer.next_sequence = opening.first_sequence
            self.changed.notify_all()
            return producer

    def _take(self, producer: Producer, request: StreamUsageRequest) -> tuple[int | None, bool]:
        """Record a batch or heed a heartbeat.

        Returns the number to acknowledge, None where the stream has to go elsewhere; and whether
        other bytes were recorded under it before.
        """
        if request.WhichOneof("message") == "heartbeat":
            self.heartbeat_count += 1
            producer.announced = max(producer.announced, request.heartbeat.last_sequence)
            return producer.next_sequence - 1, False
        batch = request.batch
        if batch.sequence > producer.next_sequence:
            return None, False
        content = batch.SerializeToString(deterministic=True)
        if batch.sequence == producer.next_sequence:
            producer.batches[batch.sequence] = content
            producer.next_sequence += 1
            return batch.sequence, False
        kept = producer.batches.get(batch.sequence)
        if kept is None or producer.next_sequence - batch.sequence > DIGESTS_KEPT:
            return None, False
        if kept == content:
            return batch.sequence, False
        assert self.knows_clones, "a number came again with other bytes"
        producer.quarantine.append(content)
        return batch.sequence, True

    def _opened(self, producer: Producer) -> StreamUsageResponse:
        return StreamUsageResponse(
            opened=StreamOpened(
                next_sequence=producer.next_sequence, batches_in_flight_max=self.in_flight_max
            )
        )

    def _ack(self, producer: Producer, *, sequence: int, is_changed: bool) -> StreamUsageResponse:
        ack = BatchAck(
            sequence=sequence,
            durable_sequence=max(producer.next_sequence - 1 - self.durable_lag, 0),
            set_aside_count=self.set_aside_count,
        )
        if is_changed:
            ack.set_aside_count = 1
            ack.set_aside.append(SetAside(index=-1, outcome=Outcome.OUTCOME_BATCH_CHANGED))
        return StreamUsageResponse(ack=ack)

    def _refuse_if_wanted(self, context: grpc.ServicerContext) -> None:
        if self.refusal is not None:
            self._fail(context, self.refusal.code, reason=self.refusal.reason)

    def _fail_taken_over(self, context: grpc.ServicerContext) -> Never:
        self._fail(context, grpc.StatusCode.FAILED_PRECONDITION, reason="PRODUCER_TAKEN_OVER")

    def _fail(self, context: grpc.ServicerContext, code: grpc.StatusCode, *, reason: str) -> Never:
        context.set_trailing_metadata((("tokenworks-error-reason", reason),))
        context.abort(code, "as the test wants it")


def events_from_columns(columns: pb.UsageColumns) -> Iterator[dict[str, object]]:
    """Yield one mapping for each event of a batch."""
    base_ms = columns.base_time.ToMilliseconds()
    count = len(columns.dimensions_index)
    usages = unpack(columns.usage, count=count) if columns.usage else {}
    for i, place in enumerate(columns.dimensions_index):
        dimensions = columns.dimensions[place]
        yield {
            "account": dimensions.account,
            "model": dimensions.model,
            "tier": dimensions.tier,
            "mode": int(dimensions.mode),
            "end_ms": base_ms + columns.end_offset_ms[i],
            "duration_ms": columns.duration_ms[i] if columns.duration_ms else 0,
            "tokens": {
                int(column.token_class): column.counts[i]
                for column in columns.tokens
                if column.counts[i]
            },
            "finish": columns.finish[i] if columns.finish else 1,
            "quality": columns.quality[i] if columns.quality else 1,
            "request_id": columns.request_id[i] if columns.request_id else "",
            "attempt": columns.attempt[i] if columns.attempt else 0,
            "event_id": columns.event_ids[16 * i : 16 * i + 16],
            "reported_input_count": (
                columns.reported_input_count[i] if columns.reported_input_count else -1
            ),
            "reported_output_count": (
                columns.reported_output_count[i] if columns.reported_output_count else -1
            ),
            **({"usage": usages[i]} if i in usages else {}),
        }
