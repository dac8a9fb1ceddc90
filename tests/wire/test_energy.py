"""Energy over a real server: readings, questions, exporters that go wrong, and the metrics."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.exporter import Exporter, running_exporter, sample, saying
from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on
from tests.wire.energy_caller import EDGE_MS, EnergyCaller, reading
from tests.wire.session import Session, event
from tests.wire.talk import failure_of, info_of, read_http, read_metric, wait_until
from tokenworks.client.clock import time_ns
from tokenworks.meter.v1 import account_service_pb2, clock_service_pb2, usage_pb2
from tokenworks.meter.v1 import energy_service_pb2 as pb
from tokenworks.meter.v1.clock_service_pb2_grpc import ClockServiceStub

INPUT, OUTPUT = usage_pb2.TOKEN_CLASS_INPUT, usage_pb2.TOKEN_CLASS_OUTPUT
NOW_MS = time_ns() // 1_000_000
DAY_MS = 96 * EDGE_MS
# A noon that lies behind us: its intervals have ended.
NOON_MS = (NOW_MS // DAY_MS - 2) * DAY_MS + DAY_MS // 2
SPAN = {"start_ms": NOON_MS, "end_ms": NOON_MS + 4 * EDGE_MS}
INVALID = ("INVALID_ARGUMENT", "ARGUMENT_INVALID", False)
GAP, NO_TOKENS = pb.UNATTRIBUTED_REASON_GAP, pb.UNATTRIBUTED_REASON_NO_TOKENS


@pytest.fixture(scope="module")
def shared_meter(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningMeter]:
    """A meter for those who only ask, or use a pool of their own."""
    folder = tmp_path_factory.mktemp("energy")
    with cluster.database() as url, running_meter_on(url, folder=folder) as meter:
        Session(meter).create_account("acme")
        yield meter


@pytest.fixture
def caller(shared_meter: RunningMeter) -> EnergyCaller:
    """Who may do everything."""
    return EnergyCaller(shared_meter)


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    """An exporter with one board."""
    with running_exporter() as running:
        running.boards["GPU-1"] = 1_000_000
        yield running


@pytest.fixture
def scraping(database_url: str, tmp_path: Path, exporter: Exporter) -> Iterator[EnergyCaller]:
    """A caller of a meter that reads the exporter every second."""
    settings = {"energy_sources": f"h100={exporter.url}", "energy_scrape_seconds": "1"}
    with running_meter_on(database_url, folder=tmp_path, settings=settings) as meter:
        Session(meter).create_account("acme")
        yield EnergyCaller(meter)


def serve(caller: EnergyCaller, tokens: int, **changes: Any) -> None:  # noqa: ANN401
    """Record an event of a pool."""
    fields = {"pool": "h100", "tokens": {INPUT: 1_000, OUTPUT: tokens}, **changes}
    assert caller.session.record(event(**fields)) == [1]


def test_energy__from_readings_to_tiers(caller: EnergyCaller) -> None:
    """Reported energy is shared out by output tokens; the answer adds up, in SQL's numbers."""
    caller.measure(9_000_000, start_ms=NOON_MS)
    caller.measure(77, start_ms=NOON_MS + EDGE_MS)
    for tier, tokens in (("free", 10), ("high", 20)):
        serve(caller, tokens, tier=tier, end_ms=NOON_MS)
    serve(caller, 40, pool="", end_ms=NOON_MS)
    caller.session.counted()
    answer = caller.wait_until_attributed(**SPAN)
    assert [
        (row.pool, row.tier, row.output_tokens, row.total_tokens, row.request_count, row.energy_mj)
        for row in answer.rows
    ] == [("h100", "free", 10, 1_010, 1, 3_000_000), ("h100", "high", 20, 1_020, 1, 6_000_000)]
    (pool,) = answer.pools
    assert (pool.pool, pool.measured_mj, pool.attributed_mj) == ("h100", 9_000_077, 9_000_000)
    assert [(it.reason, it.energy_mj) for it in pool.unattributed] == [(NO_TOKENS, 77)]
    assert answer.attributed_until.ToMilliseconds() >= NOON_MS + 2 * EDGE_MS
    assert [row.attributed_output_tokens for row in answer.rows] == [10, 20]


def test_record__twice_adds_once(caller: EnergyCaller) -> None:
    """Repeating a call, and readings that are older or stand still, adds nothing."""
    own = {"pool": "twice", "device": "GPU-2"}
    call = [reading(value, time_ms=NOON_MS + value, **own) for value in (0, 500, 800)]
    assert caller.record(*call) == (3, 0)
    assert caller.record(*call) == (0, 3)
    assert caller.record(reading(900, time_ms=NOON_MS + 1, **own)) == (0, 1)
    assert caller.record(reading(800, time_ms=NOON_MS + 5_000, **own)) == (0, 1)
    (pool,) = caller.ask(**SPAN, pool="twice").pools
    assert pool.measured_mj == 800


def test_record__gap_and_reset(caller: EnergyCaller) -> None:
    """Readings too far apart are a gap, a counter that went back began anew; both are told."""
    own = {"pool": "gaps"}
    caller.record(reading(1_000, time_ms=NOON_MS, **own))
    caller.record(reading(1_500, time_ms=NOON_MS + EDGE_MS + 1, **own))
    caller.record(reading(30, time_ms=NOON_MS + EDGE_MS + 1_001, **own))
    answer = caller.wait_until_attributed(**SPAN)
    (pool,) = (it for it in answer.pools if it.pool == "gaps")
    assert (pool.measured_mj, pool.attributed_mj) == (530, 0)
    assert {it.reason: it.energy_mj for it in pool.unattributed} == {GAP: 500, NO_TOKENS: 30}
    assert (pool.gap_ms, pool.reset_count) == (EDGE_MS + 1, 1)


def broken(**changes: Any) -> Callable[[EnergyCaller], object]:  # noqa: ANN401
    """Return a call with a good reading and one that differs."""
    fields = {"counter_mj": 1, "time_ms": NOON_MS, "pool": "broken", **changes}
    counter_mj = fields.pop("counter_mj")
    good = reading(5, time_ms=NOON_MS, pool="broken")
    return lambda caller: caller.record(good, reading(counter_mj, **fields))


@pytest.mark.parametrize(
    ("act", "field"),
    [
        (lambda caller: caller.record(), "readings"),
        (
            lambda caller: caller.record(*[reading(0, time_ms=NOON_MS, pool="broken")] * 1_001),
            "readings",
        ),
        (broken(pool=""), "pool"),
        (broken(pool="p" * 65), "pool"),
        (broken(pool="a\nb"), "pool"),
        (broken(device=""), "device"),
        (broken(device="d" * 65), "device"),
        (broken(counter_mj=-1), "counter_mj"),
        (broken(counter_mj=2**62 + 1), "counter_mj"),
        (broken(time_ms=NOW_MS - 36 * DAY_MS), "time"),
        (broken(time_ms=NOW_MS + DAY_MS), "time"),
        (broken(time_ms=0), "time"),
    ],
)
def test_record__what_no_reading_can_be(
    caller: EnergyCaller, act: Callable[[EnergyCaller], object], field: str
) -> None:
    """A call with something wrong in it is refused as a whole, with the field and the rule."""
    assert failure_of(lambda: act(caller)) == INVALID
    with pytest.raises(grpc.RpcError, match=field) as failure:
        act(caller)
    assert info_of(failure.value).metadata["field"] == field
    assert not caller.ask(**SPAN, pool="broken").pools


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"group_by": [0]}, "group_by"),
        ({"group_by": [8]}, "group_by"),
        ({"group_by": [1, 1]}, "group_by"),
        ({"group_by": [4, 5]}, "group_by"),
        ({"pool": "p" * 65}, "pool"),
        ({"start_time": {"seconds": 1}}, "start_time"),
        ({"start_time": {"seconds": -900}}, "start_time"),
        ({"end_time": {"seconds": 900, "nanos": 1}}, "end_time"),
        ({"end_time": {"seconds": 900 * 10**12}}, "end_time"),
        ({"end_time": {"seconds": 0}}, "end_time"),
    ],
)
def test_query__what_cannot_be_asked(
    caller: EnergyCaller, changes: dict[str, Any], field: str
) -> None:
    """A question that makes no sense is refused, with the field and the rule."""
    fields = {"start_time": {"seconds": 0}, "end_time": {"seconds": 900}, **changes}
    request = pb.QueryEfficiencyRequest(**fields)
    with pytest.raises(grpc.RpcError, match=field) as failure:
        caller.ask_raw(request)
    assert info_of(failure.value).reason == "ARGUMENT_INVALID"
    assert info_of(failure.value).metadata["field"] == field


def test_query__starts_of_times(caller: EnergyCaller) -> None:
    """Rows by a time bear its begin."""
    serve(caller, 5, pool="times", end_ms=NOON_MS + 2 * EDGE_MS)
    caller.session.counted()
    for group, start_ms in (
        ("INTERVAL", NOON_MS + 2 * EDGE_MS),
        ("HOUR", NOON_MS),
        ("DAY", NOON_MS - DAY_MS // 2),
    ):
        (row,) = caller.ask(group, "MODEL", **SPAN, pool="times").rows
        assert (row.start_time.ToMilliseconds(), row.model) == (start_ms, "m")
        assert not row.HasField("energy_mj")


def key_with(meter: RunningMeter, *scopes: tuple[int, str]) -> str:
    """Create an API key with these roles on these accounts."""
    request = account_service_pb2.CreateApiKeyRequest()
    for role, account in scopes:
        request.scopes.add(role=account_service_pb2.Role.ValueType(role), account=account)
    secret: str = Session(meter).call("CreateApiKey", request).secret
    return secret


def test_call__without_role(shared_meter: RunningMeter) -> None:
    """Each call needs its role on the whole installation: on an account is not enough."""
    report = account_service_pb2.ROLE_PRODUCER
    read = account_service_pb2.ROLE_READER
    calls: list[tuple[int, Callable[[EnergyCaller], object]]] = [
        (report, lambda it: it.record(reading(0, time_ms=NOON_MS, pool="scopes"))),
        (read, lambda it: it.ask(**SPAN)),
        (read, lambda it: it.sources()),
    ]
    for role, act in calls:
        other = read if role == report else report
        act(EnergyCaller(shared_meter, api_key=key_with(shared_meter, (role, ""))))
        wrong = key_with(shared_meter, (role, "acme"), (other, ""))
        refused = EnergyCaller(shared_meter, api_key=wrong)
        assert failure_of(partial(act, refused)) == ("PERMISSION_DENIED", "SCOPE_MISSING", False)


def test_scrape__from_exporter_to_metrics(scraping: EnergyCaller, exporter: Exporter) -> None:
    """Scraped energy is in the metrics by source, and by the tier that it served."""
    meter = scraping.session.meter
    wait_until(lambda: read_metric(meter, "tokenworks_power_valid", pool="h100") == 1)
    serve(scraping, 10, tier="free")
    serve(scraping, 30, tier="high")
    tokens = "tokenworks_tokens_total"
    wait_until(lambda: read_metric(meter, tokens, token_class="OUTPUT") == 40)
    exporter.boards["GPU-1"] += 4_000
    measured, attributed = (
        "tokenworks_energy_joules_total",
        "tokenworks_energy_attributed_joules_total",
    )
    wait_until(lambda: read_metric(meter, measured, pool="h100", source="dcgm") == 4)
    wait_until(lambda: read_metric(meter, attributed, pool="h100", tier="free") == 1)
    assert read_metric(meter, attributed, pool="h100", tier="high") == 3
    exporter.boards["GPU-1"] += 500
    unattributed = "tokenworks_energy_unattributed_joules_total"
    wait_until(lambda: read_metric(meter, unattributed, pool="h100", reason="no_tokens") == 0.5)
    last = read_metric(meter, "tokenworks_energy_last_sample_timestamp_seconds", pool="h100")
    assert abs(last - time_ns() / 1e9) < 600


def test_scrape__exporter_goes_wrong_and_the_meter_goes_on(
    scraping: EnergyCaller, exporter: Exporter
) -> None:
    """Gone, garbage, in parts, begun anew: each is told of, and tokens are counted meanwhile."""
    meter = scraping.session.meter
    failed = "tokenworks_energy_scrapes_failed_total"
    wait_until(lambda: read_metric(meter, "tokenworks_power_valid", pool="h100") == 1)
    exporter.vanish()
    wait_until(lambda: read_metric(meter, failed, pool="h100", reason="unreachable") >= 1)
    exporter.open()
    for page, reason in (("<html>", "no_counters"), (sample("GPU-1", "NaN"), "unreadable")):
        exporter.answer = saying(page)
        wait_until(lambda reason=reason: read_metric(meter, failed, reason=reason) >= 1)  # type: ignore[misc]
        (source,) = scraping.sources().sources
        assert (source.pool, source.url, source.device_count) == ("h100", exporter.url, 1)
    exporter.answer = saying(
        "\n".join(sample("GPU-1", 1_002_000, part=str(part)) for part in range(7))
    )
    measured = "tokenworks_energy_joules_total"
    wait_until(lambda: read_metric(meter, measured, pool="h100") == 2)
    exporter.answer = saying(sample("GPU-1", 300))
    resets = "tokenworks_energy_counter_resets_total"
    wait_until(lambda: read_metric(meter, resets, pool="h100") == 1)
    assert read_metric(meter, measured, pool="h100") == 2.3
    (pool,) = scraping.sources().pools
    assert (pool.valid, pool.device_count, pool.fresh_count) == (True, 1, 1)
    serve(scraping, 5)
    assert scraping.session.counted()
    page = read_http(meter, "/metrics")[1]
    assert not [line for line in page.splitlines() if "energy" in line and "NaN" in line]


def test_sources__silent_devices(caller: EnergyCaller) -> None:
    """A device of the last hours without a fresh sample makes its pool's power not valid."""
    now_ms = time_ns() // 1_000_000
    caller.record(reading(0, time_ms=now_ms, pool="silent", device="awake"))
    caller.record(reading(0, time_ms=now_ms - 2 * EDGE_MS, pool="silent", device="asleep"))
    answer = caller.sources()
    (pool,) = (it for it in answer.pools if it.pool == "silent")
    assert (pool.valid, pool.device_count, pool.fresh_count) == (False, 2, 1)
    assert pool.faults == [pb.POWER_FAULT_STALE]
    assert pool.last_sample_time.ToMilliseconds() == now_ms
    (device,) = (it for it in answer.silent_devices if it.pool == "silent")
    assert (device.device, device.source) == ("asleep", "reported")
    assert device.last_sample_time.ToMilliseconds() == now_ms - 2 * EDGE_MS


def test_gap__shows_in_the_metrics(scraping: EnergyCaller) -> None:
    """The time of a gap and its energy show when the next reading comes."""
    meter = scraping.session.meter
    scraping.record(
        reading(0, time_ms=NOON_MS, pool="gaps"),
        reading(7_000, time_ms=NOON_MS + 2 * EDGE_MS, pool="gaps"),
    )
    seconds = "tokenworks_energy_gap_seconds_total"
    assert read_metric(meter, seconds, pool="gaps") == 1_800
    unattributed = "tokenworks_energy_unattributed_joules_total"
    wait_until(lambda: read_metric(meter, unattributed, pool="gaps", reason="gap") == 7)


def test_restart__energy_goes_on(scraping: EnergyCaller, exporter: Exporter) -> None:
    """A meter that was killed goes on from its counters: what was used meanwhile is measured."""
    meter = scraping.session.meter
    wait_until(lambda: read_metric(meter, "tokenworks_power_valid", pool="h100") == 1)
    meter.kill()
    exporter.boards["GPU-1"] += 5_000
    meter.start()
    measured = "tokenworks_energy_joules_total"
    wait_until(lambda: read_metric(meter, measured, pool="h100") == 5)


def test_sandbox__sources_are_read_at_each_edge(
    database_url: str, tmp_path: Path, exporter: Exporter
) -> None:
    """A driven clock has the sources read at each edge, and only there: no read is a gap."""
    begin_ms = 1_790_812_800_000
    settings = {"sandbox_clock": "2026-10-01T00:00:00Z", "energy_sources": f"h100={exporter.url}"}
    with running_meter_on(database_url, folder=tmp_path, settings=settings) as meter:
        caller = EnergyCaller(meter)
        caller.session.create_account("acme")
        wait_until(lambda: read_metric(meter, "tokenworks_power_valid", pool="h100") == 1)
        clock = ClockServiceStub(caller.session.channel)
        for place in range(1, 5):
            serve(caller, 1, end_ms=begin_ms + (place - 1) * EDGE_MS)
            exporter.boards["GPU-1"] += 700 * EDGE_MS
            request = clock_service_pb2.AdvanceClockRequest()
            request.to.FromMilliseconds(begin_ms + place * EDGE_MS)
            clock.AdvanceClock(request, metadata=caller.session.metadata, timeout=60)
        assert exporter.ask_count == 5
        span = {"start_ms": begin_ms, "end_ms": begin_ms + 4 * EDGE_MS}
        answer = caller.wait_until_attributed(**span)
        (row,), (pool,) = answer.rows, answer.pools
        assert row.energy_mj == pool.measured_mj == pool.attributed_mj == 4 * 700 * EDGE_MS
        assert (pool.gap_ms, row.attributed_output_tokens) == (0, 4)
        rows = caller.ask("INTERVAL", **span).rows
        assert [row.energy_mj for row in rows] == [700 * EDGE_MS] * 4
        end_ms = begin_ms + 4 * EDGE_MS
        wait_until(
            lambda: caller.ask("INTERVAL", **span).attributed_until.ToMilliseconds() == end_ms
        )
        assert read_metric(meter, "tokenworks_power_valid", pool="h100") == 1
