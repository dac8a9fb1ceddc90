"""What NVIDIA Dynamo really sent, read as reports.

The exports in `tests/fixtures/seen` are Dynamo's own, byte for byte: `tests/stacks/dynamo.py`.
"""

from pathlib import Path

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from meter.domain.tokens import TokenClass
from meter.sources.observation import Observation
from meter.sources.otlp_logs import read_logs
from meter.sources.places import Places, read_places
from tests.meter.test_otlp_logs import DYNAMO, dynamo, only, read

SEEN = Path(__file__).parents[2] / "fixtures/seen"
INPUT, CACHE_READ, OUTPUT = TokenClass.INPUT, TokenClass.CACHE_READ, TokenClass.OUTPUT
_COMPLETED, _TRUNCATED, _CANCELLED = 1, 2, 3
_FINAL, _PARTIAL = 1, 2


def _seen(name: str, *, places: str = "") -> dict[str, Observation]:
    """Return what an export of Dynamo's reports, by the request's id."""
    request = ExportLogsServiceRequest.FromString((SEEN / name).read_bytes())
    (found,) = read_logs(request, read_places(places), received_ms=1)
    assert not found.unreadable
    return {report.request_id: report for report in found.observations}


def test_read__of_what_dynamo_sent() -> None:
    """Each request with a session is known by the edge's id, and counted as its caller was told."""
    found = _seen("dynamo-1.6.1-logs.binpb")
    told = {
        "edge-1": {INPUT: 22, OUTPUT: 7},
        "edge-2": {INPUT: 22, OUTPUT: 7},
        "edge-c1": {INPUT: 680, OUTPUT: 3},
        "edge-c2": {INPUT: 40, CACHE_READ: 640, OUTPUT: 3},
        "edge-2p": {INPUT: 8, OUTPUT: 6},
        "edge-r": {INPUT: 22, OUTPUT: 5},
        "edge-m": {INPUT: 22, OUTPUT: 7},
    }
    assert {name: found[name].tokens for name in told} == told
    ends = {(found[name].finish, found[name].quality) for name in told}
    assert ends == {(_TRUNCATED, _FINAL)}
    assert {found[name].dimensions.model for name in told} == {"tiny"}


def test_read__of_what_dynamo_sent_without_a_session() -> None:
    """A request without a session has neither a model nor the edge's id: it cannot be billed."""
    (alone,) = (it for name, it in _seen("dynamo-1.6.1-logs.binpb").items() if "edge" not in name)
    assert alone.report_id == f"dynamo:{alone.request_id}:request_end"
    assert (alone.dimensions.model, alone.tokens) == ("", {INPUT: 22, OUTPUT: 7})


def test_read__of_a_caller_who_left() -> None:
    """A stream that was left has what Dynamo counted until then, and no more is claimed for it."""
    (left,) = _seen("dynamo-1.6.1-left.binpb").values()
    assert (left.request_id, left.finish, left.quality) == ("edge-left", _CANCELLED, _PARTIAL)
    assert left.tokens == {INPUT: 22, OUTPUT: 818}


@pytest.mark.parametrize(
    ("place", "account"), [("none", ""), ("session_id", "s-1"), ("parent_session_id", "acme")]
)
def test_read__account_in_an_id_of_a_session(place: str, account: str) -> None:
    """The account is where the edge has written it, if an operator says so."""
    found = _seen("dynamo-1.6.1-logs.binpb", places=f"[dynamo]\naccount = '{place}'\n")
    assert found["edge-1"].dimensions.account == account


def test_read__account_and_tier() -> None:
    """A tier may stand behind the account, as it may in `tracestate`."""
    places = Places(dynamo=read_places("[dynamo]\naccount = 'session_id'\n").dynamo)
    record = dynamo()
    record["payload"] = record["payload"].replace(
        '"request": {', '"agent_context": {"session_id": "acme:high"}, "request": {'
    )
    dimensions = only(read(record, scope=DYNAMO, places=places)).dimensions
    assert (dimensions.account, dimensions.tier) == ("acme", "high")


@pytest.mark.parametrize("missing", ["input_tokens", "output_tokens"])
def test_read__half_of_the_counts(missing: str) -> None:
    """Newer versions tell only the output of some requests: that is nobody's bill."""
    (found,) = read(dynamo(**{missing: None}), scope=DYNAMO)
    assert (len(found.unreadable), found.observations) == (1, [])


def test_read__prompts_apart() -> None:
    """Prompts of one request that come apart are found to be parts of it."""
    own = "3b779df2-3b40-445e-91a7-06c4c986d883"
    first, second = (only(read(dynamo(request_id=f"{own}-{i}"), scope=DYNAMO)) for i in range(2))
    assert first.is_choice
    assert (first.request_id, second.request_id) == ("edge-1", "edge-1")
    assert first.report_id != second.report_id
    assert first.arrival_ns == second.arrival_ns


def test_read__prompts_of_another_call() -> None:
    """A caller who sends one id for two calls has not sent one call of more prompts."""
    own, other = "3b779df2-3b40-445e-91a7-06c4c986d883", "4b779df2-3b40-445e-91a7-06c4c986d883"
    records = [dynamo(request_id=f"{each}-{i}") for each in (own, other) for i in range(2)]
    (found,) = read(*records, scope=DYNAMO)
    assert [it.request_id for it in found.observations] == ["edge-1", "edge-1"]
    assert len({it.arrival_ns for it in found.observations}) == len(found.observations)


def test_read__one_prompt() -> None:
    """A request for one prompt is no part of another one."""
    own = "3b779df2-3b40-445e-91a7-06c4c986d883"
    assert not only(read(dynamo(request_id=own), scope=DYNAMO)).is_choice
