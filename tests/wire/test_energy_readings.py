"""Readings of each boundary over a real server, sources of each kind, and what is amiss."""

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on
from tests.wire.energy_caller import EnergyCaller, reading
from tests.wire.talk import info_of, read_metric, wait_until
from tokenworks.client.clock import time_ns
from tokenworks.meter.v1 import energy_service_pb2 as pb

MINUTE_MS = 60_000
BOARD, HOST, FACILITY = (
    pb.ENERGY_BOUNDARY_BOARD,
    pb.ENERGY_BOUNDARY_HOST,
    pb.ENERGY_BOUNDARY_FACILITY,
)


@pytest.fixture(scope="module")
def meter(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMeter]:
    """A meter with a pool that has a rating, and one whose GPUs would be its own machine's."""
    settings = {"energy_sources": "rated=static:500,here=nvml", "energy_scrape_seconds": "1"}
    folder = tmp_path_factory.mktemp("readings")
    with (
        cluster.database() as url,
        running_meter_on(url, folder=folder, settings=settings) as running,
    ):
        yield running


@pytest.fixture
def caller(meter: RunningMeter) -> EnergyCaller:
    """Who may do everything."""
    return EnergyCaller(meter)


def now_ms() -> int:
    """Return the time as a test begins: it may be long after its module was read."""
    return time_ns() // 1_000_000


def power_of(caller: EnergyCaller, pool: str) -> pb.PoolPower:
    """Return how a pool's power is known."""
    return next(it for it in caller.sources().pools if it.pool == pool)


def site_reading(counter_mj: int, *, time_ms: int) -> pb.EnergyReading:
    """Return a reading of a site's meter."""
    return reading(
        counter_mj, time_ms=time_ms, pool="", device="meter", boundary=FACILITY, site="oslo"
    )


def test_record__each_boundary_is_a_label(caller: EnergyCaller) -> None:
    """Boards, hosts and the site are measured apart, and shown apart."""
    begin_ms = now_ms()
    for step in range(2):
        time_ms = begin_ms - 10 * MINUTE_MS + step * MINUTE_MS
        caller.record(
            reading(step * 1_000, time_ms=time_ms, pool="all", device="board"),
            reading(step * 3_000, time_ms=time_ms, pool="all", device="host", boundary=HOST),
            site_reading(step * 7 * 10**9, time_ms=time_ms),
        )
    joules = "tokenworks_energy_joules_total"
    meter = caller.session.meter
    assert read_metric(meter, joules, pool="all", boundary="board", source="reported") == 1
    assert read_metric(meter, joules, pool="all", boundary="host", source="reported") == 3
    assert read_metric(meter, "tokenworks_site_energy_joules_total", site="oslo") == 7_000_000


def test_record__counter_that_wraps(caller: EnergyCaller) -> None:
    """A counter that came to the end of its range loses nothing."""
    own: dict[str, Any] = {"pool": "rapl", "range_mj": 262_143_328}
    begin_ms = now_ms() - 5 * MINUTE_MS
    for time_ms, counter_mj in ((0, 262_143_000), (MINUTE_MS, 671)):
        caller.record(reading(counter_mj, time_ms=begin_ms + time_ms, **own))
    meter = caller.session.meter
    assert read_metric(meter, "tokenworks_energy_joules_total", pool="rapl") == 1
    assert read_metric(meter, "tokenworks_energy_counter_resets_total", pool="rapl") == 0


def test_record__device_of_two_pools(caller: EnergyCaller) -> None:
    """A device belongs to the pool that has it; both say that it is claimed."""
    time_ms = now_ms() - 5 * MINUTE_MS
    own = {"device": "claimed"}
    assert caller.record(reading(5, time_ms=time_ms, pool="first", **own)) == (1, 0)
    assert caller.record(reading(9, time_ms=time_ms + 1, pool="second", **own)) == (0, 1)
    assert caller.record(reading(9, time_ms=time_ms + 2, pool="first", **own)) == (1, 0)
    ignored = "tokenworks_energy_readings_ignored_total"
    assert read_metric(caller.session.meter, ignored, pool="second", reason="conflict") == 1
    assert power_of(caller, "first").faults == [pb.POWER_FAULT_CONFLICT]


def test_record__gauge_beside_its_counter(caller: EnergyCaller) -> None:
    """After an hour of both the ratio is known; one that differs too much says so."""
    begin_ms = now_ms() - 62 * MINUTE_MS
    for pool, factor in (("agree", 1.02), ("lie", 1_000)):
        hour = [
            reading(
                700 * 2 * MINUTE_MS * step,
                time_ms=begin_ms + 2 * MINUTE_MS * step,
                pool=pool,
                power_mw=int(700_000 * factor),
            )
            for step in range(32)
        ]
        assert caller.record(*hour) == (32, 0)
    agree, lie = power_of(caller, "agree"), power_of(caller, "lie")
    assert agree.cross_check_ratio == pytest.approx(1.02)
    assert (agree.valid, list(agree.faults)) == (True, [])
    assert (lie.valid, list(lie.faults)) == (False, [pb.POWER_FAULT_CROSS_CHECK])
    meter, ratio = caller.session.meter, "tokenworks_energy_crosscheck_ratio"
    wait_until(lambda: read_metric(meter, ratio, pool="agree") == pytest.approx(1.02))
    wait_until(lambda: read_metric(meter, "tokenworks_power_fault", fault="cross_check") == 1)


def test_sources__of_each_kind(caller: EnergyCaller) -> None:
    """A rating counts, marked as estimated; a machine without a GPU says why it has none."""
    meter = caller.session.meter
    estimated = "tokenworks_energy_estimated_joules_total"
    wait_until(lambda: read_metric(meter, estimated, pool="rated", method="static") > 0)
    wait_until(lambda: all(it.failure or it.device_count for it in caller.sources().sources))
    rated, here = caller.sources().sources
    assert (rated.pool, rated.url, rated.device_count) == ("rated", "static:500", 1)
    assert (here.pool, here.url, here.device_count) == ("here", "nvml", 0)
    assert here.failure in {"no_library", "no_counters"}
    assert power_of(caller, "rated").valid


def wrong(**changes: Any) -> Callable[[EnergyCaller], object]:  # noqa: ANN401
    """Return a call with a reading that has something wrong."""
    fields: dict[str, Any] = {"counter_mj": 1, "pool": "wrong", **changes}
    counter_mj = fields.pop("counter_mj")
    return lambda caller: caller.record(reading(counter_mj, time_ms=now_ms(), **fields))


@pytest.mark.parametrize(
    ("act", "field"),
    [
        (wrong(boundary=4), "boundary"),
        (wrong(boundary=FACILITY, site="oslo"), "pool"),
        (wrong(boundary=FACILITY, pool="", device="x"), "site"),
        (wrong(boundary=FACILITY, pool="", device="x", site="s" * 65), "site"),
        (wrong(boundary=HOST, site="oslo"), "site"),
        (wrong(boundary=HOST, pool="", device="x"), "pool"),
        (wrong(site="oslo"), "site"),
        (wrong(range_mj=-1), "range_mj"),
        (wrong(range_mj=2**62 + 1), "range_mj"),
        # Beyond its own range.
        (wrong(counter_mj=11, range_mj=10), "counter_mj"),
        (wrong(power_mw=-1), "power_mw"),
        (wrong(power_mw=10**12), "power_mw"),
    ],
)
def test_record__what_no_reading_can_be(
    caller: EnergyCaller, act: Callable[[EnergyCaller], object], field: str
) -> None:
    """What makes no sense is refused, with the field and the rule."""
    with pytest.raises(grpc.RpcError, match=field) as failure:
        act(caller)
    assert info_of(failure.value).metadata["field"] == field
    assert "wrong" not in {it.pool for it in caller.sources().pools}
