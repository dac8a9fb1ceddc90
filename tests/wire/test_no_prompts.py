"""Prompts and answers stand nowhere, whatever field of whichever source they come in."""

import json
import re
import zlib
from collections.abc import Iterator, Mapping

import grpc
import psycopg
import pytest
from psycopg import sql

from meter.sources.originals import Original, pack
from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on
from tests.wire import marked
from tests.wire.marked import readable
from tests.wire.posting import post
from tests.wire.session import CALL_SECONDS_MAX, Session, columns, event, opening, to_columns
from tests.wire.talk import read_http, read_metric, wait_until
from tokenworks.meter.v1 import meter_service_pb2, usage_pb2

OTLP = "/opentelemetry.proto.collector.{0}.v1.{1}Service/Export"
EXPORT_TRACES, EXPORT_LOGS = OTLP.format("trace", "Trace"), OTLP.format("logs", "Logs")
ENVOY = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"
TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
# Where what was reported comes to lie; none may be empty, lest the test proves nothing.
KEPT = ("event_claims", "journal", "observations", "quarantine", "usage_originals")


class Heard:
    """All that anybody could read, by where it stands."""

    def __init__(self) -> None:
        self.places: dict[str, bytes] = {}

    def add(self, place: str, content: bytes | str) -> None:
        """Keep what stands in a place, beside what is there already."""
        raw = content.encode() if isinstance(content, str) else content
        self.places[place] = self.places.get(place, b"") + b"\n" + raw

    def marks(self) -> list[str]:
        """Return each place with the mark that is in it, as text or in hexadecimal."""
        plain = re.compile(rb"(?i)" + marked.MARK.encode() + rb"[\w. ]*")
        coded = re.compile(rb"(?i)" + marked.MARK.encode().hex().encode())
        return [
            f"{place}: {found.decode(errors='replace')}"
            for place, content in self.places.items()
            for found in {*plain.findall(content), *coded.findall(content)}
        ]


@pytest.fixture(scope="module")
def talkative(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMeter]:
    """A meter that takes reports of every source, and logs all there is to log."""
    settings = {"log_level": "debug", "log_format": "json", "otlp": "true"}
    folder = tmp_path_factory.mktemp("marked")
    with (
        cluster.database() as url,
        running_meter_on(url, folder=folder, settings=settings) as running,
    ):
        yield running


def test_prompts__stand_nowhere(talkative: RunningMeter) -> None:
    """A mark in every field that is not ours to keep is in no table, log, metric or answer."""
    session = Session(talkative)
    session.create_account("acme")
    heard = Heard()
    export_all(session, heard)
    stream_envoy(session, heard)
    post_all(session, heard)
    stream_batches(session, heard)
    wait_until(lambda: read_metric(talkative, "tokenworks_observations_waiting") == 0)
    ask(session, heard)
    for path in ("/metrics", "/readyz"):
        heard.add(path, read_http(talkative, path)[1])
    assert talkative.stop() == 0
    log = talkative.log.read_text("utf-8")
    heard.add("the log", log)
    assert '"reports_unreadable"' in log
    assert '"call_failed"' not in log
    tables = dump(talkative.database_url)
    assert all(tables[name] for name in KEPT)
    for name, content in tables.items():
        heard.add(f"table {name}", content)
    assert heard.marks() == []


def test_marks__are_found_when_they_are_there() -> None:
    """The search sees a mark as it is, in other letters, packed, and in hexadecimal."""
    mark = marked.mark("here")
    packed = readable(zlib.compress(mark.encode()))
    original, _ = pack([Original(bytes(16), bytes(16), {"model": mark})])
    for content in (mark, mark.upper(), packed, readable(original), mark.encode().hex()):
        heard = Heard()
        heard.add("place", content)
        assert len(heard.marks()) == 1


def export_all(session: Session, heard: Heard) -> None:
    """Export spans and logs by gRPC, for an account and for nobody, and what is refused."""
    with grpc.insecure_channel(session.meter.otlp_grpc) as channel:
        for account in ("acme", marked.NOBODY):
            for request in marked.spans("1", account):
                _call(channel, EXPORT_TRACES, request.SerializeToString(), session, heard)
            for exported in marked.records("1", account):
                _call(channel, EXPORT_LOGS, exported.SerializeToString(), session, heard)
        torn = b"\x0a\x7f" + marked.mark("torn").encode()
        for method in (EXPORT_TRACES, EXPORT_LOGS):
            _call(channel, method, torn, session, heard)
    for path, content_type, body in marked.otlp_bodies():
        answer = post(
            session.meter, path, body, content_type=content_type, address=session.meter.otlp_http
        )
        heard.add("answers of OTLP by HTTP", answer.body + str(answer.headers).encode())


def _call(channel: grpc.Channel, method: str, body: bytes, session: Session, heard: Heard) -> None:
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
    metadata = (*session.metadata, ("x-prompt", marked.mark("metadata")))
    try:
        heard.add(method, call(body, metadata=metadata, timeout=CALL_SECONDS_MAX))
    except grpc.RpcError as error:
        heard.add(method, repr(error))


def stream_envoy(session: Session, heard: Heard) -> None:
    """Stream entries as an Envoy does, to the end; and bytes that are no message."""
    messages = [it.SerializeToString() for it in marked.envoy_messages("1", "acme")]
    call: grpc.StreamUnaryMultiCallable[bytes, bytes] = session.channel.stream_unary(ENVOY)
    for said in (messages, [b"\x0a\x7f" + marked.mark("torn").encode()]):
        try:
            heard.add(ENVOY, call(iter(said), metadata=session.metadata, timeout=CALL_SECONDS_MAX))
        except grpc.RpcError as error:
            heard.add(ENVOY, repr(error))
    held = "tokenworks_reports_held"
    wait_until(lambda: read_metric(session.meter, held, source="envoy") == 0)


def post_all(session: Session, heard: Heard) -> None:
    """Post what is counted, twice by different sources, and all that is refused."""
    records = list(marked.litellm_records("1", "acme"))
    events = list(marked.cloud_events("1", "acme"))
    batch = "application/cloudevents-batch+json"
    bodies = [
        ("/v1/litellm", "application/json", json.dumps(records).encode()),
        ("/api/v1/events", batch, json.dumps(events).encode()),
        *(("/api/v1/events", batch, json.dumps([event]).encode()) for event in events),
        *marked.http_bodies(events[0]),
    ]
    for path, content_type, body in bodies:
        answer = post(
            session.meter, path, body, content_type=content_type, user_agent=marked.mark("agent")
        )
        heard.add(f"answers of {path[:15]}", answer.body + str(answer.headers).encode())


def marked_usage() -> bytes:
    """Return a usage object, packed as clients do it, with a mark in all that is no count."""
    inner = {"cached_tokens": 1, marked.mark("name"): 2, "audio_tokens": marked.mark("count")}
    part = {"type": marked.mark("type"), "modality": marked.mark("kind"), "input_tokens": 1}
    usage: dict[str, object] = {
        "convention": "openai",
        "prompt_tokens": 3,
        "completion_tokens": marked.mark("count"),
        "prompt_tokens_details": {**inner, "cached_tokens_details": marked.mark("deep")},
        "completion_tokens_details": marked.mark("part"),
        "iterations": [part, marked.mark("element")],
        "cacheDetails": marked.mark("list"),
        "text": marked.mark("text"),
        marked.mark("member"): 1,
    }
    packed = [[list(usage), [0], [[value] for value in usage.values()]]]
    return zlib.compress(json.dumps(packed).encode())


def stream_batches(session: Session, heard: Heard) -> None:
    """Stream usage objects: counted, set aside, in batches kept whole, and under a number twice."""
    messages = [opening("marked")]
    sequence = 0
    torn = marked.mark("torn").encode()
    for number, usage in enumerate((marked_usage(), torn, zlib.compress(torn))):
        for account in ("acme", marked.NOBODY):
            said = event(account, event_id="", request_id=f"usage-{number}")
            for kind in ("plain", "doubtful", "newer", "changed"):
                sequence += kind != "changed"
                message = columns(sequence, to_columns([said]))
                message.batch.is_doubtful = kind == "doubtful"
                source = 99 if kind == "newer" else usage_pb2.SOURCE_ASGI
                message.batch.columns.source = source  # type: ignore[assignment]
                message.batch.columns.usage = usage
                if kind == "changed":
                    message.batch.columns.salt = b"other"
                messages.append(message)
    for answer in session.exchange(*messages):
        heard.add("StreamUsage", answer.SerializeToString())
    request = meter_service_pb2.ListObservationsRequest(request_id="usage-0")
    (shown,) = session.call("ListObservations", request).observations
    assert '"prompt_tokens": 3' in shown.raw
    heard.add("ListObservations", shown.SerializeToString())


def ask(session: Session, heard: Heard) -> None:
    """Ask for what was set aside and who reported a request, as an operator does."""
    held = session.call("ListQuarantine", meter_service_pb2.ListQuarantineRequest(page_size=1_000))
    assert held.entries
    heard.add("ListQuarantine", held.SerializeToString())
    request = meter_service_pb2.ListObservationsRequest(request_id="1")
    told = session.call("ListObservations", request)
    heard.add("ListObservations", told.SerializeToString())


def dump(database_url: str) -> Mapping[str, bytes]:
    """Return all that every table has, its texts and its bytes."""
    tables = {}
    with psycopg.connect(database_url) as connection:
        for (name,) in connection.execute(TABLES).fetchall():
            question = sql.SQL("SELECT * FROM {}").format(sql.Identifier(name))
            tables[name] = b"\n".join(
                readable(value) if isinstance(value, bytes) else str(value).encode()
                for row in connection.execute(question)
                for value in row
            )
    return tables
