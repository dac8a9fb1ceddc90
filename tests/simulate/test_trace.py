"""Traces: read from files with the Azure columns, or generated in the same shape."""

import math
from collections import Counter
from pathlib import Path
from statistics import fmean, pvariance, quantiles

import pytest

from cli.simulate.trace import Arrival, TraceUnreadable, generated_trace, read_trace
from tests.acceptance import azure

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
# Of both Azure traces laid together: 10 %, 50 % and 90 % of requests have at most so many tokens.
AZURE_CONTEXT = (203, 1_046, 4_073)
AZURE_GENERATED = (10, 90, 413)
# Variance by mean of the arrivals in a second; 1 would be without bursts.
AZURE_BURSTINESS = 5.3


def test_read_trace__azure_form(tmp_path: Path) -> None:
    """Times count from the first arrival in whole milliseconds, whatever the order of the lines."""
    path = tmp_path / "trace.csv"
    path.write_text(
        HEADER
        + "2023-11-16 18:17:04.0319600,3180,8\n"
        + "2023-11-16 18:17:03.9799600,4808,10\n"
        + "2023-11-16T19:17:05.0000000+01:00,0,0\n",
        "utf-8",
    )
    assert read_trace(path) == [
        Arrival(time_ms=0, context_count=4_808, generated_count=10),
        Arrival(time_ms=52, context_count=3_180, generated_count=8),
        Arrival(time_ms=1_020, context_count=0, generated_count=0),
    ]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("", "no column TIMESTAMP, ContextTokens, GeneratedTokens"),
        ("TIMESTAMP,ContextTokens\n", "no column GeneratedTokens"),
        (HEADER, "no requests"),
        (HEADER + "2023-11-16 18:17:03,1,2\nyesterday,1,2\n", "trace.csv:3: "),
        (HEADER + "2023-11-16 18:17:03,1.5,2\n", "trace.csv:2: "),
        (HEADER + "2023-11-16 18:17:03,1\n", "trace.csv:2: "),
        (HEADER + "2023-11-16 18:17:03,-1,2\n", "a count is below 0"),
        (HEADER + "2023-11-16 18:17:03,1,1000000001\n", "above 1,000,000,000"),
    ],
)
def test_read_trace__unreadable(tmp_path: Path, content: str, named: str) -> None:
    """A file that is no trace is refused, and the message names the line or the column."""
    path = tmp_path / "trace.csv"
    path.write_text(content, "utf-8")
    with pytest.raises(TraceUnreadable, match=named):
        read_trace(path)


@pytest.mark.parametrize("seed", range(3))
def test_generate_trace__shape(seed: int) -> None:
    """Lengths and bursts are those of the Azure traces, within a factor that tells them apart."""
    _assert_azure_shape(generated_trace(request_count=azure.REQUESTS, seed=seed))


def test_read_trace__shape() -> None:
    """The shape asked for above is that of the real traces, where they are beside the checkout."""
    trace = [arrival for file in azure.files() for arrival in read_trace(file)]
    if trace:
        assert len(trace) == azure.REQUESTS
        assert sum(arrival.context_count for arrival in trace) == azure.CONTEXT_TOKENS
        assert sum(arrival.generated_count for arrival in trace) == azure.GENERATED_TOKENS
    _assert_azure_shape(trace or generated_trace(request_count=azure.REQUESTS, seed=3))


def test_generate_trace__same_seed() -> None:
    """The seed alone decides: the same one gives the same trace, another one another."""
    first = generated_trace(request_count=500, seed=1)
    assert first == generated_trace(request_count=500, seed=1)
    assert first == generated_trace(request_count=900, seed=1)[:500]
    assert first != generated_trace(request_count=500, seed=2)


def test_generate_trace__order() -> None:
    """Arrivals come in order from 0 on, and every prompt and answer has a token."""
    trace = generated_trace(request_count=2_000, seed=3)
    times = [arrival.time_ms for arrival in trace]
    assert times[0] == 0
    assert times == sorted(times)
    assert all(arrival.context_count > 0 and arrival.generated_count > 0 for arrival in trace)


def _assert_azure_shape(trace: list[Arrival]) -> None:
    for counts, published in (
        ([arrival.context_count for arrival in trace], AZURE_CONTEXT),
        ([arrival.generated_count for arrival in trace], AZURE_GENERATED),
    ):
        deciles = quantiles(counts, n=10)
        for found, expected in zip((deciles[0], deciles[4], deciles[8]), published, strict=True):
            assert math.isclose(math.log(found), math.log(expected), abs_tol=math.log(1.7))
    by_second = Counter(arrival.time_ms // 1_000 for arrival in trace)
    seconds = [by_second[second] for second in range(max(by_second) + 1)]
    burstiness = pvariance(seconds) / fmean(seconds)
    assert AZURE_BURSTINESS / 2 < burstiness < AZURE_BURSTINESS * 2
    assert 4 < fmean(seconds) < 16
