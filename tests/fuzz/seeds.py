"""Writes the bytes that fuzzing begins from, made by the product itself: a whole one of each kind.

python -m tests.fuzz.seeds
"""

import json
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from meter import segment
from meter.wire.account_messages import place_to_token
from tests.billing.factory.test_plan_file import WHOLE as PLAN
from tests.client.spool.disk import Disk
from tests.client.usage_cases import READ
from tests.fuzz.__main__ import CORPUS
from tests.meter.energy.test_factory_file import WHOLE as FACTORY
from tests.meter.sources.test_envoy import GATEWAY, GATEWAY_COUNTS, entry
from tests.meter.sources.test_litellm import RECORD
from tests.meter.test_cloud_events import OTHER as OTHER_EVENT
from tests.meter.test_cloud_events import WHOLE as EVENT
from tests.meter.test_intake import EVENTS, MESSAGES, take
from tests.meter.test_otlp_logs import ENTRY, ENVOY
from tests.meter.test_places import WHOLE as SOURCES
from tests.otlp import logs, to_json, traces, vllm
from tokenworks.client.columns import SealedBatch
from tokenworks.client.spool import records
from tokenworks.client.spool.manifest import MANIFEST_NAMES, Manifest, write_manifest
from tokenworks.client.usage_objects import keep_usage, pack
from tokenworks.foreign.envoy.v1 import access_log_pb2
from tokenworks.meter.v1 import meter_service_pb2

# Of several providers, those with parts in lists and in objects among them.
USAGES = [keep_usage(usage, profile=profile) for profile, usage, *_ in READ.values()]
_ROOT = Path(__file__).parents[2]


def seeds() -> Iterator[tuple[str, str, bytes]]:
    """Yield target, name and bytes of each."""
    for name, raw in zip(("columns", "rows", "planes"), MESSAGES, strict=True):
        submission = take(raw)
        assert submission is not None
        yield "stream", name, raw
        for folder, version in (("", segment.VERSION), ("named-once-", segment.NAMED_ONCE_VERSION)):
            body = segment.encode(
                [(submission.origin, submission.batch)] * 3,
                dimension_ids=lambda batch: batch.dimension,
                newest_version=version,
            )
            yield "journal", f"{folder}{name}", body
    yield (
        "call",
        "events",
        meter_service_pb2.RecordUsageRequest(events=EVENTS).SerializeToString(),
    )
    yield "spool", "segment", _spooled()
    yield "columns", "three", bytes([3, 1, 2, 3, 2, 0x80, 1, 1, 7])
    yield "usage", "providers", zlib.decompress(pack(USAGES))
    yield "digests", "repeated", bytes([2, 2]) + b"12345678" + b"0000000012345678"
    yield from (("answer", name, data) for name, data in _answers())
    for place, name in enumerate(("book", "contract")):
        text = (_ROOT / "tests" / "faults" / f"{name}.toml").read_bytes()
        yield "files", name, bytes([place]) + text
    yield (
        "files",
        "keynote",
        b"\0" + (_ROOT / "billing" / "shipped" / "keynote.toml").read_bytes(),
    )
    yield "files", "factory", b"\2" + FACTORY.encode()
    yield "files", "plan", b"\3" + PLAN.encode()
    yield "files", "sources", b"\4" + SOURCES.encode()
    events = json.dumps([EVENT, OTHER_EVENT]).encode()
    yield "cloud_events", "batch", b"\0" + events
    yield "cloud_events", "data", b"\2" + json.dumps(EVENT["data"]).encode()
    yield "litellm", "list", json.dumps([RECORD]).encode()
    yield "litellm", "lines", b"\n".join([json.dumps(RECORD).encode()] * 2)
    yield "manifest", "whole", _manifest()
    yield (
        "page",
        "board",
        b'DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{UUID="GPU-1"} 1.5e+06\n',
    )
    yield "page", "engine", b'vllm:prompt_tokens_total{engine="0",model_name="m"} 1.5e+06\n'
    for place, (name, export) in enumerate(_exports()):
        yield "otlp", name, bytes([place]) + export.SerializeToString()
        yield "otlp", f"{name}_json", bytes([place + 2]) + to_json(export)
    for name, entry_ in (
        ("filters", entry()),
        ("gateway", entry(GATEWAY_COUNTS, namespace=GATEWAY)),
    ):
        message = access_log_pb2.AccessLogMessage(
            http_logs=access_log_pb2.HttpEntries(log_entry=[entry_])
        )
        yield "envoy", name, message.SerializeToString(deterministic=True)
    yield "tokens", "page", place_to_token((("acme",), "acc_1")).encode()


def _exports() -> Iterator[tuple[str, ExportTraceServiceRequest | ExportLogsServiceRequest]]:
    """Yield an export of traces, and one of logs."""
    ended = 1_795_000_000 * 10**9
    span = vllm(
        "cmpl-edge-0", 10, 4, ended_ns=ended, span_id=b"8 bytes!", trace_id=b"16 bytes of id.."
    )
    yield "traces", traces(span)
    yield "logs", logs(ENTRY, resource=ENVOY, time_ns=ended)


def _answers() -> Iterator[tuple[str, bytes]]:
    """Yield a body and a stream, each before it what it is and how it is cut."""
    usage = {"prompt_tokens": 9, "completion_tokens": 4}
    said = {"model": "m", "choices": [{"finish_reason": "length"}], "usage": usage}
    yield "body", bytes([2, 40]) + json.dumps(said).encode()
    yield "events", bytes([3, 40]) + f"data: {json.dumps(said)}\n\ndata: [DONE]\n\n".encode()


def _manifest() -> bytes:
    disk = Disk()
    write_manifest(disk, Manifest(producer="vllm-0", salt=7, offsets=((1, 0),), doubtful=((3, 4),)))
    return disk.read(MANIFEST_NAMES[0])


def _spooled() -> bytes:
    seed = records.seed_of(1, salt=7)
    batch = SealedBatch(payload=MESSAGES[0], event_count=5)
    return b"".join(
        [
            records.encode_header(1, salt=7),
            records.encode_progress(3, payload=b"running", seed=seed),
            records.encode_batch(batch, local=1, total_event_count=5, settles=(3,), seed=seed),
            records.encode_released(1, seed=seed),
        ]
    )


def main() -> int:
    """Write them all."""
    for target, name, data in seeds():
        path = CORPUS / target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
