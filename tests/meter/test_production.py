"""What a round of counting produced: tokens, requests and lag in the metrics, and for energy."""

import numpy as np
import pytest

from meter.counted import Counted, Sampled
from meter.counting.aggregate import aggregate
from meter.domain.boundary import Boundary
from meter.domain.event import Dimensions
from meter.domain.limits import LAG_SAMPLES_MAX
from meter.domain.tokens import FinishClass, TokenClass
from meter.energy.counters import Source
from meter.energy.delta import EnergyDelta, IntervalEnergy
from meter.energy.live import LiveEnergy, Served
from meter.metrics import Metrics
from meter.production import Production
from meter.segment import Segment
from tests.meter.plain_events import BEGIN_MS

DIMENSIONS = {
    1: Dimensions("acme", "m", "m", "high", 1, "h100", ""),
    2: Dimensions("other", "m", "m", "high", 1, "h100", ""),
    3: Dimensions("acme", "n", "n", "free", 1, "", ""),
}


def a_round() -> Counted:
    """Return rows of two accounts on a pool, of which one was cancelled, and one without a pool."""
    return Counted(
        dimension_id=np.array([1, 2, 2, 3], np.int64),
        interval_start_ms=np.full(4, BEGIN_MS, np.int64),
        band=np.zeros(4, np.int64),
        finish_class=np.array(
            [FinishClass.DELIVERED, FinishClass.DELIVERED, FinishClass.CANCELLED, 1], np.int64
        ),
        tokens={
            TokenClass.INPUT: np.array([10, 20, 0, 5], np.int64),
            TokenClass.CACHE_READ: np.array([1, 0, 0, 0], np.int64),
            TokenClass.REASONING: np.array([100, 200, 50, 7], np.int64),
        },
        request_count=np.array([1, 2, 1, 1], np.int64),
        dimensions=DIMENSIONS,
        sampled=Sampled(
            dimension_id=np.array([1, 2, 3], np.int64),
            end_ms=np.array([BEGIN_MS - 2_000, BEGIN_MS - 90_000, BEGIN_MS + 500], np.int64),
        ),
    )


@pytest.fixture
def metrics() -> Metrics:
    """The metrics after a round that was counted at its begin, and energy of 100 mJ."""
    metrics = Metrics()
    live = LiveEnergy(metrics, pools=[])
    Production(metrics, live=live, now_ms=lambda: BEGIN_MS).counted(a_round())
    for pool in ("h100", ""):
        place = (Boundary.BOARD, pool)
        delta = EnergyDelta(intervals={(place, BEGIN_MS): IntervalEnergy(measured_mj=350)})
        live.add_energy(delta, source=Source.DCGM)
    live.settle(now_ms=BEGIN_MS, gap_ms=60_000)
    return metrics


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """Return a sample's value."""
    return metrics.registry.get_sample_value(f"tokenworks_{name}", labels)


def test_counted__tokens_and_requests(metrics: Metrics) -> None:
    """Tokens are by class and requests by their end, over all accounts."""
    group = {"tier": "high", "model": "m", "pool": "h100"}
    assert value(metrics, "tokens_total", **group, token_class="INPUT") == 30
    assert value(metrics, "tokens_total", **group, token_class="REASONING") == 350
    assert value(metrics, "requests_total", **group, finish="delivered") == 3
    assert value(metrics, "requests_total", **group, finish="cancelled") == 1
    assert value(metrics, "requests_total", **group, finish="failed") is None


def test_counted__energy_of_named_pools(metrics: Metrics) -> None:
    """Tokens of a pool carry its energy, four requests of it; those without one carry none."""
    shared = {"tier": "high", "model": "m", "boundary": "board", "kind": "active"}
    assert value(metrics, "energy_attributed_joules_total", pool="h100", **shared) == 0.35
    nobody = {"pool": "", "boundary": "board", "reason": "no_tokens"}
    assert value(metrics, "energy_unattributed_joules_total", **nobody) == 0.35
    assert value(metrics, "request_energy_joules_count", tier="high") == 4


def test_counted__what_weighs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Energy hears of prompts, of what a cache had of them, and of what was generated, apart."""
    heard: list[Served] = []
    metrics = Metrics()
    live = LiveEnergy(metrics, pools=[])
    monkeypatch.setattr(live, "add_served", heard.append)
    Production(metrics, live=live, now_ms=lambda: BEGIN_MS).counted(a_round())
    expected = Served(
        pool="h100",
        tier="high",
        model="m",
        input_tokens=30,
        cached_tokens=1,
        output_tokens=350,
        request_count=4,
    )
    assert heard == [expected]


def test_counted__lag_by_pool(metrics: Metrics) -> None:
    """Lag is from the end of a request on; one that ends in the future has none."""
    bucket = "report_lag_seconds_bucket"
    assert value(metrics, bucket, pool="h100", le="1.0") == 0
    assert value(metrics, bucket, pool="h100", le="2.5") == 1
    assert value(metrics, bucket, pool="h100", le="60.0") == 1
    assert value(metrics, bucket, pool="h100", le="300.0") == 2
    assert value(metrics, "report_lag_seconds_sum", pool="h100") == 92
    assert value(metrics, bucket, pool="", le="1.0") == 1
    assert value(metrics, "report_lag_seconds_sum", pool="") == 0


def test_aggregate__samples_evenly() -> None:
    """Of a large round so many events are looked at, from its begin to its end."""
    count = 3 * LAG_SAMPLES_MAX + 1
    segment = Segment(
        columns={
            "dimension": np.arange(count, dtype=np.int64),
            "end_ms": BEGIN_MS + np.arange(count, dtype=np.int64),
        },
        tokens={int(TokenClass.INPUT): np.ones(count, np.int64)},
        origins=(),
        event_ids=b"",
        request_ids=(),
    )
    sampled = aggregate([segment]).sampled
    assert LAG_SAMPLES_MAX / 2 < len(sampled.end_ms) <= LAG_SAMPLES_MAX
    assert np.array_equal(sampled.end_ms - BEGIN_MS, sampled.dimension_id)
    assert np.ptp(sampled.end_ms) > count * 0.99
