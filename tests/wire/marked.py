"""Reports of every source that have a mark wherever a prompt might stand, whole and broken.

Only what is ours to keep has none: ids of requests, accounts, tiers, models, pools and regions.
"""

import contextlib
import json
import re
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue, KeyValueList
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.meter.sources.test_envoy import entry
from tests.otlp import attributes, logs, span, traces
from tokenworks.foreign.envoy.v1 import access_log_pb2

MARK: Final = "xhushx"
NOBODY: Final = "nobody"
# How bytes of zlib begin, at any of its levels.
_PACKED: Final = re.compile(rb"x[\x01\x5e\x9c\xda]")
_PROMPTS: Final = (
    "gen_ai.prompt",
    "gen_ai.prompt.0.content",
    "gen_ai.completion",
    "gen_ai.completion.0.content",
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.system_instructions",
    "gen_ai.request.stop_sequences",
    "gen_ai.tool.call.arguments",
    "gen_ai.tool.call.result",
    "gen_ai.tool.definitions",
    "gen_ai.user.message",
    "gen_ai.choice",
    "llm.prompts",
    "llm.input_messages.0.message.content",
    "llm.openai.messages",
    "traceloop.entity.input",
    "traceloop.entity.output",
    "input.value",
    "output.value",
    "url.full",
    "url.query",
    "http.request.body",
    "user_agent.original",
    "exception.message",
    "metadata.prompt",
    "metadata.user_api_key_user_email",
    "nobody.knows.this",
)
# Looked at, and not kept.
_WORDS: Final = ("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.system")
# Scope, and the attributes of input, output and the request's id.
_ENGINES: Final = (
    ("vllm.x", "prompt_tokens", "completion_tokens", "gen_ai.request.id"),
    ("sglang.x", "prompt_tokens", "completion_tokens", "gen_ai.request.id"),
    ("trt.llm.x", "prompt_tokens", "completion_tokens", "gen_ai.request.id"),
    ("litellm.x", "input_tokens", "output_tokens", "litellm.call_id"),
    ("any", "input_tokens", "output_tokens", "gen_ai.request.id"),
)
_LENGTH_DELIMITED: Final = 2
_LONGEST: Final = 127


def mark(place: str) -> str:
    """Return what must be found nowhere, and tells where it was put."""
    return f"{MARK}.{place}"


def readable(content: bytes) -> bytes:
    """Return bytes as they are, and what is packed in them."""
    found = [content]
    for begin in _PACKED.finditer(content):
        with contextlib.suppress(zlib.error):
            found.append(zlib.decompressobj().decompress(content[begin.start() :]))
    return b"\n".join(found)


def spans(request_id: str, account: str) -> Iterator[ExportTraceServiceRequest]:
    """Yield exports: by each table whole, with a count that is none, and of an id that is none."""
    for scope, asked, made, id_name in _ENGINES:
        own_id = f"{scope}-{request_id}"
        values = {
            f"gen_ai.usage.{asked}": 10,
            f"gen_ai.usage.{made}": 4,
            id_name: own_id,
            **{name: mark(f"{scope}.{name}") for name in (*_PROMPTS, *_WORDS)},
            "gen_ai.response.finish_reasons": [mark(f"{scope}.finish")],
            mark(f"{scope}.name of an attribute"): [mark("element"), 7],
        }
        broken = {**values, f"gen_ai.usage.{made}": mark(f"{scope}.count")}
        state = f"vendor={mark('state')},tokenworks={account}:high"
        made_spans = [
            span(values, trace_state=state),
            span(broken, trace_state=state, is_failed=True),
            span(values, trace_state=state, trace_id=mark("trace").encode()),
            span({**values, id_name: f"{own_id}-t"}, trace_state=f"tokenworks={account}:gold"),
        ]
        for each in made_spans:
            _mark_span(each, scope)
        yield _marked_export(made_spans, scope)


def _mark_span(each: Span, scope: str) -> None:
    each.name = mark(f"{scope}.span")
    each.status.message = mark(f"{scope}.status")
    each.events.add(name=mark("event"), attributes=attributes({"body": mark(f"{scope}.event")}))
    each.links.add(trace_state=mark("link"), attributes=attributes({"body": mark("link")}))
    nested = KeyValueList(values=attributes({"content": mark("nested")}))
    each.attributes.append(KeyValue(key="nested", value=AnyValue(kvlist_value=nested)))
    raw = AnyValue(bytes_value=mark("bytes").encode())
    each.attributes.append(KeyValue(key="raw", value=raw))


def _marked_export(made: Sequence[Span], scope: str) -> ExportTraceServiceRequest:
    resource = {"tokenworks.model": "m", "service.name": mark("service"), mark("resource"): "x"}
    request = traces(*made, scope=f"{scope}{mark('scope')}", resource=resource)
    (group,) = request.resource_spans
    group.schema_url = group.scope_spans[0].schema_url = mark("schema")
    group.scope_spans[0].scope.version = mark("version")
    group.scope_spans[0].scope.attributes.extend(attributes({mark("of scope"): mark("scope")}))
    return request


def otlp_bodies() -> Iterator[tuple[str, str, bytes]]:
    """Yield paths, types and bodies of posts that cannot be read, in each form."""
    group: dict[str, Any] = {"traceId": mark("no hex"), mark("key"): mark("value")}
    for content in (
        {"resourceSpans": mark("no list")},
        {"resourceSpans": [{"scopeSpans": [{"spans": [group]}]}]},
        {"resourceSpans": [{"scopeSpans": [{"spans": [{"kind": mark("kind")}]}]}]},
        {"resourceSpans": [{"scopeSpans": [{"spans": [{"endTimeUnixNano": mark("time")}]}]}]},
        {"resourceSpans": [{"resource": {"attributes": [{"value": {mark("any"): 1}}]}}]},
        {mark("unknown"): mark("unknown")},
    ):
        yield "/v1/traces", "application/json", json.dumps(content).encode()
    for path in ("/v1/traces", "/v1/logs"):
        yield path, "application/json", f'{{"{mark("torn")}'.encode()
        yield path, "application/x-protobuf", b"\x0a\x7f" + mark("torn").encode()


def records(request_id: str, account: str) -> Iterator[ExportLogsServiceRequest]:
    """Yield exports of logs: Dynamo's of each kind, and Envoy's."""
    whole = {
        "schema": "dynamo.request.trace.v1",
        "event_type": "request_end",
        "agent_context": {"session_id": mark("session"), "prompt": mark("agent")},
        "request": {
            "request_id": f"d-{request_id}",
            "x_request_id": f"dx-{request_id}",
            "model": "m",
            "input_tokens": 100,
            "output_tokens": 10,
            "finish_reason_metadata": {"finish_reason": mark("dynamo.finish"), "m": mark("f")},
            "request_payload": {"messages": [{"content": mark("dynamo.payload")}]},
            mark("dynamo.key"): mark("dynamo.value"),
        },
    }
    broken = {**whole, "request": {**_object(whole, "request"), "input_tokens": mark("count")}}
    payload = {"schema": "dynamo.request.trace.v1", "request_payload": mark("request_payload")}
    kinds = [
        ("request_end", json.dumps(whole)),
        ("request_end", json.dumps(broken)),
        ("request_end", f'{{"{mark("torn")}'),
        ("request_end", json.dumps(payload)),
        ("request_payload", json.dumps(payload)),
        ("tool_end", json.dumps({"output": mark("tool")})),
        (mark("kind"), mark("payload")),
    ]
    made = [
        {"event_type": kind, "payload": text, "prompt": mark("prompt"), mark("key"): "x"}
        for kind, text in kinds
    ]
    resource = {"tokenworks.tier": "high", "service.name": mark("service")}
    for owner in (account, NOBODY):
        named = {**resource, "tokenworks.account": owner}
        yield _marked_logs(logs(*made, scope="dynamo.request_trace", resource=named))
    envoys = [_envoy_record(f"el-{request_id}", account), _envoy_record("elq", NOBODY)]
    envoys.append({**envoys[0], "metadata:tokenworks": mark("no json")})
    envoys.append({**envoys[0], "metadata:tokenworks": f'{{"prompt_tokens": "{mark("n")}"}}'})
    named = {"log_name": "tokenworks", "node_name": "edge-1", "zone_name": mark("zone")}
    yield _marked_logs(logs(*envoys, resource=named))


def _object(whole: Mapping[str, Any], name: str) -> dict[str, Any]:
    return dict(whole[name])


def _marked_logs(request: ExportLogsServiceRequest) -> ExportLogsServiceRequest:
    for record in request.resource_logs[0].scope_logs[0].log_records:
        record.body.string_value = mark("body")
        record.severity_text, record.event_name = mark("severity"), mark("event")
    return request


def _envoy_record(request_id: str, account: str) -> dict[str, str]:
    counts = {"model": "m", "prompt_tokens": 10, "completion_tokens": 4, "text": mark("metadata")}
    return {
        "access_log_type": "DownstreamEnd",
        "header:x-request-id": request_id,
        "header:x-tokenworks-account": account,
        "header:x-tokenworks-tier": "high",
        "header:cookie": mark("cookie"),
        "tag:prompt": mark("tag"),
        "path": f"/v1/chat/completions?prompt={mark('query')}",
        "response_code": mark("code"),
        "response_flags": mark("flags"),
        "duration_ms": mark("duration"),
        "cluster": mark("cluster"),
        "route": mark("route"),
        "metadata:tokenworks": json.dumps(counts),
        "metadata:foreign": json.dumps({"prompt": mark("foreign"), "deep": {"a": mark("deep")}}),
        mark("key"): mark("value"),
    }


def envoy_messages(request_id: str, account: str) -> Iterator[access_log_pb2.AccessLogMessage]:
    """Yield messages of an Envoy: whole entries, of nobody, of a wrong count, with more fields."""
    first = access_log_pb2.AccessLogMessage()
    first.identifier.node.id, first.identifier.log_name = "edge-2", mark("log")
    yield first
    for owner, own_id, count in (
        (account, f"e-{request_id}", 3.0),
        (NOBODY, f"eq-{request_id}", 3.0),
        (account, f"ew-{request_id}", mark("count")),
    ):
        usage = {"prompt_tokens": count, "completion_tokens": 2, "model": "m"}
        made = entry(
            {**usage, "content": mark("content"), "deep": {"a": [mark("deep")]}},
            path=f"/v1/chat/completions?prompt={mark('query')}",
        )
        common, request = made.common_properties, made.request
        request.request_id = common.stream_id = own_id
        request.request_headers.update({"x-tokenworks-account": owner, "cookie": mark("cookie")})
        request.original_path = f"/v1/chat/completions?prompt={mark('original')}"
        common.start_time.GetCurrentTime()
        common.metadata.filter_metadata["foreign"].update({"prompt": mark("foreign")})
        common.upstream_cluster, common.route_name = mark("cluster"), mark("route")
        common.custom_tags["prompt"] = mark("tag")
        # User agent, referer and more that Envoy sends and our protos do not have.
        request.MergeFromString(_field(7, "agent") + _field(8, "referer") + _field(200, "new"))
        made.response.MergeFromString(_field(200, "response"))
        yield access_log_pb2.AccessLogMessage(
            http_logs=access_log_pb2.HttpEntries(log_entry=[made])
        )


def _field(number: int, place: str) -> bytes:
    """Return the bytes of a text of a message in a field of this number."""
    text, tag = mark(place).encode(), number << 3 | _LENGTH_DELIMITED
    assert len(text) <= _LONGEST
    tag_bytes = bytes([tag]) if tag <= _LONGEST else bytes([tag & _LONGEST | 128, tag >> 7])
    return tag_bytes + bytes([len(text)]) + text


def litellm_records(request_id: str, account: str) -> Iterator[object]:
    """Yield records of LiteLLM: whole, of nobody, failed, with counts that are none or misfit."""
    yield _litellm(request_id, account)
    yield _litellm(f"n-{request_id}", NOBODY)
    failed = {"status": "failure", "error_information": {"error_class": "ClientDisconnected"}}
    yield _litellm(f"f-{request_id}", account) | failed
    for number, usage in enumerate(
        (
            {"prompt_tokens": mark("count")},
            {"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": mark("detail")}},
            {"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": 9}, "x": mark("x")},
        )
    ):
        broken = _litellm(f"{number}-{request_id}", account)
        broken["metadata"] = {**broken["metadata"], "usage_object": usage}
        yield broken
    yield mark("no object")
    yield {mark("key"): mark("value"), "prompt_tokens": 3, "messages": mark("messages")}


def _litellm(call_id: str, account: str) -> dict[str, Any]:
    named = {
        name: mark(f"litellm.{name}")
        for name in (
            "id", "trace_id", "call_type", "status", "custom_llm_provider", "model_id", "api_base",
            "cache_key", "end_user", "requester_ip_address", "user_agent", "error_str",
            "response_cost", "startTime", "unknown",
        )
    }  # fmt: skip
    details = {"cached_tokens": 2, "text": mark("detail"), mark("key"): 7}
    return {
        **named,
        "litellm_call_id": call_id,
        "model": "m",
        "model_group": "m",
        "prompt_tokens": 100,
        "completion_tokens": 7,
        "messages": [{"role": "user", "content": mark("litellm.messages")}],
        "response": {
            "choices": [{"finish_reason": mark("finish"), "message": {"content": mark("answer")}}]
        },
        "request_tags": [mark("tags")],
        "hidden_params": {"api_base": mark("hidden"), "additional_headers": {"x": mark("headers")}},
        "model_parameters": {"stop": [mark("stop")], "tools": [{"name": mark("tools")}]},
        "error_information": {"error_class": mark("class"), "traceback": mark("traceback")},
        "guardrail_information": [{"guardrail_response": mark("guardrail")}],
        "metadata": {
            "user_api_key_team_id": account,
            "user_api_key_alias": mark("alias"),
            "user_api_key_user_email": mark("email"),
            "user_api_key_auth_metadata": {"tokenworks_tier": "high", "x": mark("auth")},
            "requester_metadata": {"prompt": mark("requester")},
            "requester_custom_headers": {"x-request-id": call_id, "x-prompt": mark("header")},
            "usage_object": {
                "prompt_tokens": 100,
                "completion_tokens": 7,
                "prompt_tokens_details": details,
                "service_tier": mark("service tier"),
                "text": mark("text"),
                mark("key"): mark("value"),
            },
        },
    }


def cloud_events(request_id: str, account: str) -> Iterator[dict[str, Any]]:
    """Yield CloudEvents: our type, OpenMeter's and LiteLLM's, and each that cannot be counted."""
    data: dict[str, object] = {
        "model": "m",
        "tier": "high",
        "request_id": request_id,
        "tokens": {"input": 100, "output": 7},
        "messages": [{"content": mark("messages")}],
        mark("key"): mark("value"),
    }
    usage: dict[str, object] = {
        "prompt_tokens": 5,
        "completion_tokens": 3,
        "text": mark("text"),
        mark("key"): 1,
    }
    ours = "inference.tokens.used"
    kinds: tuple[tuple[str, str, object], ...] = (
        (ours, account, data),
        (ours, NOBODY, {**data, "request_id": "nobodys"}),
        (ours, account, {**data, "request_id": "", "profile": "openai", "usage": usage}),
        (ours, account, {**data, "profile": "openai", "usage": {**usage, "prompt_tokens": "x"}}),
        (ours, account, {**data, "profile": mark("profile"), "usage": usage}),
        (ours, account, {**data, "profile": "openai", "usage": mark("usage")}),
        (ours, account, {**data, "request_id": "f", "finish": mark("finish")}),
        (ours, account, {**data, "request_id": "m", "mode": mark("mode")}),
        (ours, account, {**data, "request_id": "q", "quality": mark("quality")}),
        (ours, account, {**data, "request_id": "c", "tokens": {mark("class"): 3}}),
        (ours, account, {**data, "tokens": {"input": mark("count")}}),
        (ours, account, {**data, "tokens": mark("tokens")}),
        (ours, account, {**data, "reported_input": mark("reported")}),
        (ours, account, mark("data")),
        (mark("type"), account, {**data, "tokens": "12", "type": "input"}),
        (mark("type"), account, {**data, "tokens": 12, "type": mark("kind")}),
        (mark("type"), account, {**data, "tokens": mark("tokens")}),
        ("litellm_tokens", account, {**usage, "model": "m", "tier": "high"}),
    )
    for kind, subject, content in kinds:
        yield {
            "specversion": "1.0",
            "id": uuid.uuid4().hex,
            "source": mark("source"),
            "type": kind,
            "subject": subject,
            "extension": mark("extension"),
            "data": content,
        }


def http_bodies(event: Mapping[str, Any]) -> Iterator[tuple[str, str, bytes]]:
    """Yield paths, types and bodies of posts that are refused, each for another reason."""
    batch, single = "application/cloudevents-batch+json", "application/cloudevents+json"
    for changes in (
        {"specversion": mark("specversion")},
        {"id": mark("long") * 1_000},
        {"subject": f"{mark('control')}\x00"},
        {"time": mark("time")},
        {"dataschema": mark("dataschema")},
        {"source": [mark("list")]},
    ):
        yield "/api/v1/events", single, json.dumps({**event, **changes}).encode()
    for path, content_type in (("/api/v1/events", batch), ("/v1/litellm", "application/json")):
        yield path, content_type, f'{{"{mark("torn")}'.encode()
        yield path, content_type, json.dumps([mark("text")]).encode()
        yield path, mark("type"), b"{}"
    yield f"/{MARK}?q={MARK}", single, mark("body").encode()
