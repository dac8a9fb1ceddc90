"""Rows of sources: what a meter takes in the shapes of others, beside the bare decoding of it."""

import itertools
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from benchmarks.measurement import Measurement, check_answer
from benchmarks.plant import Plant, running_plant
from benchmarks.processor import processor_seconds
from benchmarks.workload import ACCOUNTS, MODELS, TIERS, account_name, lengths

_EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
# As OpenTelemetry's batch processor sends at most.
_SPANS = 512
_SENDERS = 8
_DIGITS = 6
_DECODE_SECONDS = 2.0
_SETTINGS = {
    "TOKENWORKS_OTLP": "true",
    "TOKENWORKS_OTLP_GRPC_ADDRESS": "127.0.0.1:0",
    "TOKENWORKS_OTLP_HTTP_ADDRESS": "127.0.0.1:0",
}


class _Exports:
    """Exports of vLLM's spans: always other ids, by the same bytes around them."""

    def __init__(self) -> None:
        """Build one, and find where its ids are."""
        pairs, self.lengths_source = lengths()
        request = _request(pairs)
        self.tokens = sum(sum(pairs[number % len(pairs)]) for number in range(_SPANS))
        raw = request.SerializeToString()
        self.bare = raw
        self._raw = np.frombuffer(raw, np.uint8)
        marks = [
            mark
            for number in range(_SPANS)
            for mark in (_span_id(number), _request_id(number).encode())
        ]
        places = [raw.index(mark) for mark in marks]
        # An id's first bytes are changed, to digits, which may stand in texts as well.
        self._places = np.array(places).reshape(_SPANS, 2, 1) + np.arange(_DIGITS)
        self._numbers = itertools.count(1)

    def make(self) -> bytes:
        """Return one that no other one is like."""
        made = self._raw.copy()
        made[self._places] = np.frombuffer(b"%06d" % next(self._numbers), np.uint8)
        return made.tobytes()


def measure_otlp(seconds: float) -> Measurement:
    """Record spans that come by gRPC, the meter on one core, beside bare decoding of them."""
    exports = _Exports()
    with running_plant(_SETTINGS) as plant:
        _pin(plant.meter_pid)
        busy_seconds = processor_seconds(plant.meter_pid)
        sent, took = _send(plant, exports, seconds=seconds)
        plant.wait_until_counted(seconds=120)
        busy_seconds = processor_seconds(plant.meter_pid) - busy_seconds
        counted = plant.query(
            "SELECT sum(input + cache_read + output), sum(request_count) FROM usage"
        )
        check_answer(counted=tuple(counted), sent=(sent * exports.tokens, sent * _SPANS))
    return Measurement(
        value=sent * _SPANS / took,
        bound=_decode_rate(exports.bare),
        bound_of="protobuf's decoding of the same bytes, spans/s",
        workload=f"{seconds:g} s, {_SENDERS} exporters, {_SPANS} spans of vLLM each call, the meter"
        f" on one core, {ACCOUNTS} accounts, {exports.lengths_source}; exporters, meter and"
        " Postgres on one machine; fsync, full_page_writes, synchronous_commit on",
        notes={
            "bytes_per_span": round(len(exports.bare) / _SPANS),
            "meter_us_per_span": round(busy_seconds / (sent * _SPANS) * 10**6, 1),
        },
    )


def _pin(pid: int) -> None:
    """Keep all threads of a process on one core."""
    core = min(os.sched_getaffinity(0))
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


def _send(plant: Plant, exports: _Exports, *, seconds: float) -> tuple[int, float]:
    """Export from some threads; return how many exports were answered, and in how many seconds."""
    answered = itertools.count()
    begin = time.monotonic()

    def send() -> None:
        with grpc.insecure_channel(plant.target) as channel:
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_EXPORT)
            while time.monotonic() < begin + seconds:
                call(exports.make(), metadata=plant.metadata)
                next(answered)

    threads = [threading.Thread(target=send) for _ in range(_SENDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return next(answered), time.monotonic() - begin


def _decode_rate(raw: bytes) -> float:
    begin, done = time.monotonic(), 0
    while time.monotonic() < begin + _DECODE_SECONDS:
        ExportTraceServiceRequest.FromString(raw)
        done += _SPANS
    return done / (time.monotonic() - begin)


def _request(pairs: list[tuple[int, int]]) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    for key, text in (("vllm.instrumenting_module_name", "vllm"), ("tokenworks.model", MODELS[0])):
        group.resource.attributes.add(key=key).value.string_value = text
    scoped = group.scope_spans.add()
    scoped.scope.name = "vllm.llm_engine"
    now = time.time_ns()
    for number in range(_SPANS):
        context, generated = pairs[number % len(pairs)]
        account, tier = account_name(number % ACCOUNTS), TIERS[number % len(TIERS)]
        span = scoped.spans.add(
            trace_id=os.urandom(16),
            span_id=_span_id(number),
            name="llm_request",
            trace_state=f"tokenworks={account}:{tier}",
            start_time_unix_nano=now - 10**9,
            end_time_unix_nano=now,
        )
        for key, value in _numbers(context, generated):
            kept = span.attributes.add(key=key).value
            if isinstance(value, int):
                kept.int_value = value
            else:
                kept.double_value = value
        span.attributes.add(key="gen_ai.request.id").value.string_value = _request_id(number)
    return request


def _numbers(context: int, generated: int) -> Iterator[tuple[str, int | float]]:
    """Yield the numbers that vLLM 0.33 puts into a span."""
    yield "gen_ai.latency.time_to_first_token", 0.05
    yield "gen_ai.latency.e2e", 1.0
    yield "gen_ai.latency.time_in_queue", 0.001
    yield "gen_ai.usage.prompt_tokens", context
    yield "gen_ai.usage.completion_tokens", generated
    yield "gen_ai.request.top_p", 1.0
    yield "gen_ai.request.max_tokens", 4_096
    yield "gen_ai.request.temperature", 0.7
    yield "gen_ai.request.n", 1


def _span_id(number: int) -> bytes:
    return b"#" * _DIGITS + number.to_bytes(2)


def _request_id(number: int) -> str:
    return f"{'#' * 16}-{number:05d}-edge"
