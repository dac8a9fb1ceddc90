"""Log records of Dynamo and of Envoy read as reports."""

import json
from typing import Any

import pytest

from meter.domain.tokens import TokenClass
from meter.sources.observation import Observation, Source
from meter.sources.otlp import Reports
from meter.sources.otlp_logs import read_logs
from meter.sources.places import Defaults, Places
from tests.otlp import logs

PLACES = Places(defaults=Defaults(tier="high"))
RECEIVED_MS = 1_795_000_000_000
DYNAMO = "dynamo.request_trace"
INPUT, CACHE_READ, OUTPUT = TokenClass.INPUT, TokenClass.CACHE_READ, TokenClass.OUTPUT
ENVOY = {"log_name": "tokenworks", "node_name": "edge-1"}
ENTRY = {
    "access_log_type": "DownstreamEnd",
    "header:x-request-id": "r-1",
    "header:x-tokenworks-account": "acme",
    "header:x-tokenworks-tier": "-",
    "path": "/v1/chat/completions",
    "response_code": "200",
    "response_flags": "-",
    "duration_ms": "2500",
    "stream_id": "s-1",
    "metadata:tokenworks": '{"model":"m","prompt_tokens":10,"completion_tokens":4.0}',
}


def dynamo(**request: Any) -> dict[str, str]:  # noqa: ANN401
    """Return the attributes of a record of a request that is over."""
    payload = {
        "schema": "dynamo.request.trace.v1",
        "event_type": "request_end",
        "event_time_unix_ms": 1_795_000_000_123,
        "event_source": "dynamo",
        "request": {
            "request_id": "own-1",
            "x_request_id": "edge-1",
            "model": "m",
            "input_tokens": 100,
            "output_tokens": 10,
            "cached_tokens": 80,
            "total_time_ms": 51.5,
            "finish_reason_metadata": {"finish_reason": "length"},
            **request,
        },
    }
    return {
        "schema": "dynamo.request.trace.v1",
        "event_type": "request_end",
        "rid": "own-1",
        "model": "m",
        "payload": json.dumps(payload),
    }


def read(*records: Any, places: Places = PLACES, **named: Any) -> list[Reports]:  # noqa: ANN401
    """Read an export of records."""
    return read_logs(logs(*records, **named), places, received_ms=RECEIVED_MS)


def only(found: list[Reports]) -> Observation:
    """Return the one report."""
    (reports,) = found
    (report,) = reports.observations
    assert not reports.unreadable
    return report


def test_read_logs__dynamo() -> None:
    """The edge's id joins, its own names the report, and what was cached is not counted twice."""
    (found,) = read(dynamo(), scope=DYNAMO, resource={"tokenworks.account": "acme"})
    report = only([found])
    assert (found.source, found.profile) == (Source.LOG, "dynamo_log/1")
    assert (report.report_id, report.request_id) == ("dynamo:own-1:request_end", "edge-1")
    assert report.tokens == {INPUT: 20, CACHE_READ: 80, OUTPUT: 10}
    assert (report.end_ms, report.duration_ms, report.finish) == (1_795_000_000_123, 51, 2)
    dimensions = report.dimensions
    assert (dimensions.account, dimensions.model, dimensions.tier) == ("acme", "m", "high")


@pytest.mark.parametrize(
    "record",
    [
        {"event_type": "request_payload", "payload": '{"request": {"input_tokens": 5}}'},
        {"event_type": "tool_end", "payload": "{}"},
        {},
        dynamo(input_tokens=None, output_tokens=None, cached_tokens=None),
    ],
)
def test_read_logs__dynamo_without_usage(record: dict[str, str]) -> None:
    """Records of other kinds, above all those with prompts, are passed over."""
    assert not read(record, scope=DYNAMO)


@pytest.mark.parametrize(
    "payload",
    ["", "[1]", "{", "[" * 100_000, '{"schema": "other.v9", "request": {}}',
     json.dumps({"schema": "dynamo.request.trace.v1", "request": {"input_tokens": "5"}})],
    ids=["none", "list", "torn", "deep", "schema", "text"],
)  # fmt: skip
def test_read_logs__dynamo_that_cannot_be_read(payload: str) -> None:
    """What says that it is of a request's end, and is not, is unreadable."""
    (found,) = read({"event_type": "request_end", "payload": payload}, scope=DYNAMO)
    assert (len(found.unreadable), found.observations) == (1, [])


def test_read_logs__envoy() -> None:
    """The access log's texts mean what Envoy's own log service says in messages."""
    (found,) = read(ENTRY, resource=ENVOY, time_ns=1_795_000_000_000_000_000)
    report = only([found])
    assert (found.source, found.profile) == (Source.ENVOY, "envoy_log/1")
    assert (report.report_id, report.request_id) == ("envoy:edge-1:s-1", "r-1")
    assert report.tokens == {INPUT: 10, OUTPUT: 4}
    assert (report.end_ms, report.duration_ms) == (1_795_000_002_500, 2_500)
    assert (report.finish, report.quality) == (1, 1)
    dimensions = report.dimensions
    assert (dimensions.account, dimensions.model, dimensions.tier) == ("acme", "m", "high")


def test_read_logs__envoy_whose_caller_went() -> None:
    """The caller who went away is told by a flag among others; the counts are the last seen."""
    report = only(read({**ENTRY, "response_flags": "DC,UR"}, resource=ENVOY))
    assert (report.finish, report.quality) == (3, 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"access_log_type": "DownstreamPeriodic"},
        {"access_log_type": "UpstreamEnd"},
        {"metadata:tokenworks": "-"},
        {"metadata:tokenworks": '{"model":"m"}'},
        {"metadata:tokenworks": '{"prompt_tokens":null,"completion_tokens":null}'},
    ],
)
def test_read_logs__envoy_without_usage(changes: dict[str, str]) -> None:
    """A request that goes on, a single try, and an answer without usage are no reports."""
    assert not read({**ENTRY, **changes}, resource=ENVOY)


@pytest.mark.parametrize("metadata", ["{", "5", '{"prompt_tokens":1e300}', "[" * 100_000])
def test_read_logs__envoy_that_cannot_be_read(metadata: str) -> None:
    """Metadata that is none is told of."""
    (found,) = read({**ENTRY, "metadata:tokenworks": metadata}, resource=ENVOY)
    assert (len(found.unreadable), found.observations) == (1, [])


def test_read_logs__of_anybody_else() -> None:
    """Other programs' logs are none of ours, whatever is in them."""
    assert not read(ENTRY, scope="app", resource=ENVOY)
    assert not read(ENTRY, resource={"service.name": "app"})
    assert not read(dynamo(), scope="app")
