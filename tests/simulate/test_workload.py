"""Requests made of traces: nothing is lost on the way, and the seed alone decides."""

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from cli.simulate.trace import Arrival, generated_trace
from cli.simulate.workload import Customers, Request, requests, share_of

CUSTOMERS = Customers(
    accounts=("north", "south", "east"), tiers=("free", "high"), models=("large", "small")
)
POOLED = Customers(
    accounts=("a",), tiers=("free", "high", "ultra"), models=("m",), pools=("h100", "b200")
)
ARRIVALS = st.lists(
    st.builds(
        Arrival,
        time_ms=st.integers(0, 10_000_000),
        context_count=st.integers(0, 1_000_000_000),
        generated_count=st.integers(0, 1_000_000),
    ),
    max_size=30,
)


@given(traces=st.lists(ARRIVALS, max_size=3), seed=st.integers(), server_count=st.integers(1, 5))
def test_make_requests__conservation(
    traces: list[list[Arrival]], seed: int, server_count: int
) -> None:
    """However they are shared out, the servers' requests hold every prompt and answer once."""
    made = [
        request
        for server_index in range(server_count)
        for request in share_of(
            requests(traces, customers=CUSTOMERS, seed=seed),
            server_index=server_index,
            server_count=server_count,
        )
    ]
    arrivals = [arrival for trace in traces for arrival in trace]
    assert Counter(
        (request.input + request.cache_read, request.output + request.reasoning) for request in made
    ) == Counter((arrival.context_count, arrival.generated_count) for arrival in arrivals)
    assert all(
        min(request.input, request.cache_read, request.output, request.reasoning) >= 0
        for request in made
    )
    assert len({request.request_id for request in made}) == len(arrivals)


@given(traces=st.lists(ARRIVALS.filter(bool), min_size=1, max_size=3))
def test_make_requests__ends(traces: list[list[Arrival]]) -> None:
    """Requests come by their ends; each trace's last one ends at 0, none later."""
    offsets = [request.offset_ms for request in requests(traces, customers=CUSTOMERS, seed=1)]
    assert offsets == sorted(offsets)
    assert offsets.count(0) >= len(traces)
    assert offsets[-1] == 0


def test_make_requests__same_seed() -> None:
    """The seed alone decides: the same one gives the same requests, another one others."""
    trace = generated_trace(request_count=300, seed=1)
    first = _requests(trace, seed=1)
    assert first == _requests(trace, seed=1)
    assert first != _requests(trace, seed=2)


def test_make_requests__variety() -> None:
    """All customers, tiers, models, modes and classes occur, and the first of each is busiest."""
    made = _requests(generated_trace(request_count=2_000, seed=1), seed=1)
    for name, values in (
        ("account", CUSTOMERS.accounts),
        ("tier", CUSTOMERS.tiers),
        ("model", CUSTOMERS.models),
        ("is_batch", (False, True)),
    ):
        busiest = Counter(getattr(request, name) for request in made).most_common()
        assert tuple(value for value, _ in busiest) == values
    for name in ("input", "cache_read", "output", "reasoning"):
        assert sum(getattr(request, name) > 0 for request in made) > 200


def _requests(trace: list[Arrival], *, seed: int) -> list[Request]:
    return list(requests([trace], customers=CUSTOMERS, seed=seed))


def test_make_requests__pools() -> None:
    """Tiers are dealt to pools in turn; pools change nothing else that a seed decides."""
    load = [generated_trace(request_count=200, seed=1)]
    pooled = list(requests(load, customers=POOLED, seed=1))
    served = {(it.tier, it.pool) for it in pooled}
    assert served == {("free", "h100"), ("high", "b200"), ("ultra", "h100")}
    bare = list(requests(load, customers=replace(POOLED, pools=()), seed=1))
    assert bare == [replace(it, pool=None) for it in pooled]
