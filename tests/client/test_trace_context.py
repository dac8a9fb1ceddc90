"""Headers of a request in which it is named for the engine's spans."""

from collections.abc import Mapping
from typing import Any, Final

import pytest
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from meter.sources.otlp_requests import Edge, edge_of
from tokenworks.client.attribution import Attributed
from tokenworks.client.trace_context import MEMBER, named

PARENT: Final = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
REQUEST: Final = Attributed(account="acme", tier="high", request_id="r-1")


def heard(attributed: Attributed = REQUEST, **headers: str) -> dict[str, str]:
    """Return what the engine hears of a request with these headers."""
    given = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    told = named(given, attributed, new_id=lambda: "5" * 32)
    assert len({name for name, _ in told}) == len(told)
    return {name.decode(): value.decode("latin-1") for name, value in told}


def span_of(headers: Mapping[str, str]) -> Any:  # noqa: ANN401  a context of a span
    """Return what OpenTelemetry makes of them, as vLLM has it."""
    context = TraceContextTextMapPropagator().extract(headers)
    return get_current_span(context).get_span_context()


@pytest.mark.parametrize(
    ("state", "others"),
    [
        ("", {}),
        ("a=b, c=d", {"a": "b", "c": "d"}),
        (f"a=b,{MEMBER}=globex:low:r-2", {"a": "b"}),
        # Each of these has a library throw all members away.
        ("a=b,a=c,no member,=x,B=y", {"a": "b"}),
        (",".join(f"k{place}=v" for place in range(40)), {f"k{place}": "v" for place in range(31)}),
    ],
)
def test_named__is_heard_by_spans(state: str, others: Mapping[str, str]) -> None:
    """Whatever a caller sends, spans have our member, and the caller's tracing goes on."""
    span = span_of(heard(traceparent=PARENT, tracestate=state))
    assert dict(span.trace_state) == {MEMBER: "acme:high:r-1", **others}
    assert format(span.trace_id, "032x") in PARENT
    assert not span.trace_flags.sampled


@pytest.mark.parametrize(
    "parent", [None, "", "00-" + 32 * "0" + "-00f067aa0ba902b7-01", "no parent"]
)
def test_named__begins_a_trace_where_there_is_none(parent: str | None) -> None:
    """Without a parent that is one, nobody looks at the state; the trace is sampled."""
    span = span_of(heard() if parent is None else heard(traceparent=parent))
    assert dict(span.trace_state) == {MEMBER: "acme:high:r-1"}
    assert span.is_valid
    assert span.trace_flags.sampled


@pytest.mark.parametrize(
    ("account", "tier", "request_id", "edge"),
    [
        ("acme", "high", "a,b=c:d %2C", Edge("acme", "high", "a,b=c:d %2C")),
        ("acme", None, "r-1", Edge("acme", "low", "r-1")),
        (None, None, "r-1", Edge("globex", "low", "r-1")),
        ("Team: Blue", "high", "r-1", Edge("", "", "r-1")),
        ("a" * 64, "high", "\xe9" * 40, Edge("", "", "\xe9" * 40)),
        # Too long for a member: what the gateway said stays.
        ("acme", "high", "\xe9" * 128, Edge("globex", "low", "r-2")),
    ],
)
def test_named__as_the_meter_reads_it(
    account: str | None, tier: str | None, request_id: str, edge: Edge
) -> None:
    """What headers do not say is left as a gateway has it; what cannot be said is left out."""
    attributed = Attributed(account=account, tier=tier, request_id=request_id)
    told = heard(attributed, traceparent=PARENT, tracestate=f"{MEMBER}=globex:low:r-2")
    assert edge_of(told["tracestate"], MEMBER) == edge
