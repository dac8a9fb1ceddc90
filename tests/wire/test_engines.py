"""Engines' own counters over a real server: read, compared with usage, shown."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import grpc
import pytest

from tests.engine_page import MODEL, EngineProcess, Replica, running_replica
from tests.meter.store.recording import administrator, ask_one
from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on
from tests.wire.session import CALL_SECONDS_MAX, Session, event
from tests.wire.talk import info_of, read_metric, wait_until
from tokenworks.meter.v1 import clock_service_pb2, usage_pb2
from tokenworks.meter.v1 import engine_service_pb2 as pb
from tokenworks.meter.v1.clock_service_pb2_grpc import ClockServiceStub
from tokenworks.meter.v1.engine_service_pb2_grpc import EngineServiceStub

INPUT, OUTPUT = usage_pb2.TOKEN_CLASS_INPUT, usage_pb2.TOKEN_CLASS_OUTPUT
CACHED = usage_pb2.TOKEN_CLASS_CACHE_READ
EDGE_MS = 900_000
HOUR_MS = 4 * EDGE_MS
BEGIN_MS = 1_790_812_800_000
# An interval that is a moment too old when the world begins, and the one after it.
OF_LONG_AGO = """
INSERT INTO engine_intervals
SELECT 'old', start, 'http://gone/metrics', 'm', 'output', 1, 0, 0
FROM unnest(ARRAY['2025-08-26 23:45Z', '2025-08-27 00:00Z']::timestamptz[]) AS start
"""
PPM, TOKENS = "tokenworks_engine_drift_ppm", "tokenworks_engine_drift_tokens"


class World:
    """A sandbox that reads two replicas of pool h100, some of others, and one that is away."""

    def __init__(self, meter: RunningMeter, replicas: Sequence[Replica]) -> None:
        self.meter = meter
        self.first, self.second, self.llama, self.late = replicas
        self.begin_ms = BEGIN_MS
        self.session = Session(meter)
        self._clock = ClockServiceStub(self.session.channel)
        self._engines = EngineServiceStub(self.session.channel)

    def begin_hour(self) -> None:
        """Move the clock on to the next hour, from which on edges are counted."""
        self.begin_ms += 2 * HOUR_MS
        self.advance(0)

    def advance(self, edges: int) -> None:
        """Move the clock to so many edges after the hour's begin."""
        request = clock_service_pb2.AdvanceClockRequest()
        request.to.FromMilliseconds(self.begin_ms + edges * EDGE_MS)
        self._clock.AdvanceClock(request, metadata=self.session.metadata, timeout=CALL_SECONDS_MAX)

    def meter_tokens(self, *, edge: int, pool: str = "h100", **fields: int) -> None:
        """Record an event that ended in the interval that begins at an edge."""
        tokens = {INPUT: fields["input"], CACHED: fields.get("cached", 0), OUTPUT: fields["output"]}
        recorded = event(
            pool=pool,
            model="llama",
            served_model=MODEL,
            end_ms=self.begin_ms + edge * EDGE_MS,
            tokens={key: count for key, count in tokens.items() if count},
        )
        assert self.session.record(recorded) == [1]

    def ask(self, *, start_ms: int, end_ms: int) -> pb.QueryEngineDriftResponse:
        """Ask for the drift of a time."""
        request = pb.QueryEngineDriftRequest()
        request.start_time.FromMilliseconds(start_ms)
        request.end_time.FromMilliseconds(end_ms)
        answer: pb.QueryEngineDriftResponse = self._engines.QueryEngineDrift(
            request, metadata=self.session.metadata, timeout=CALL_SECONDS_MAX
        )
        return answer

    def drift(self, kind: str, *, pool: str = "h100", name: str = TOKENS) -> float:
        """Read a gauge of the last hour."""
        return read_metric(self.meter, name, pool=pool, kind=kind, window="1h")


@pytest.fixture(scope="module")
def world(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world whose tests have an hour each."""
    with ExitStack() as stack:
        replicas = [stack.enter_context(running_replica()) for _ in range(4)]
        llama = ("llamacpp:prompt_tokens", "llamacpp:tokens_predicted")
        replicas[2].restart(EngineProcess(names=llama, labels=()))
        urls = [*(it.url for it in replicas), "http://127.0.0.1:9/metrics"]
        pools = ("h100", "h100", "cpu", "late", "away")
        places = ",".join(f"{pool}={url}" for pool, url in zip(pools, urls, strict=True))
        settings = {"sandbox_clock": "2026-10-01T00:00:00Z", "engines": places}
        folder = tmp_path_factory.mktemp("engines")
        url = stack.enter_context(cluster.database())
        with administrator(url) as connection:
            connection.execute(OF_LONG_AGO)
        meter = stack.enter_context(running_meter_on(url, folder=folder, settings=settings))
        Session(meter).create_account("acme")
        failed = "tokenworks_engine_reads_failed_total"
        wait_until(lambda: read_metric(meter, failed, pool="away", reason="unreachable"))
        yield World(meter, replicas)


def test_engines__what_nobody_reported_is_drift(world: World) -> None:
    """Work that was given up is in the engines' counters and in no report; all else adds up."""
    world.begin_hour()
    for replica, output in ((world.first, 300), (world.second, 200)):
        replica.process.serve(prompt=1_000, output=output)
    world.meter_tokens(edge=0, input=600, cached=400, output=300)
    world.meter_tokens(edge=0, input=1_000, output=200)
    world.llama.process.serve(prompt=70, output=30)
    world.meter_tokens(edge=0, pool="cpu", input=70, cached=930, output=30)
    world.advance(1)
    # Its caller went away: the tokens were made, and nobody was told of them.
    world.second.process.serve(prompt=0, output=25)
    world.advance(2)
    # A replica that begins anew loses nothing of what was read.
    world.first.restart()
    world.first.process.serve(prompt=80, output=20)
    world.meter_tokens(edge=2, input=80, output=20)
    world.advance(6)
    wait_until(lambda: world.drift("output") == 25)
    assert world.drift("prompt") == 0
    assert world.drift("output", name=PPM) == 25 * 1_000_000 // 545
    counted = "tokenworks_engine_tokens_total"
    assert read_metric(world.meter, counted, pool="h100", model=MODEL, kind="output") == 545
    found = world.ask(start_ms=world.begin_ms, end_ms=world.begin_ms + HOUR_MS).drifts
    prompt, output = pb.ENGINE_TOKEN_KIND_PROMPT, pb.ENGINE_TOKEN_KIND_OUTPUT
    assert [
        (it.pool, it.model, it.kind, it.engine_tokens, it.metered_tokens, it.reset_count)
        for it in found
    ] == [
        ("cpu", "", output, 30, 30, 0),
        ("cpu", "", pb.ENGINE_TOKEN_KIND_UNCACHED_PROMPT, 70, 70, 0),
        ("h100", MODEL, output, 545, 520, 1),
        ("h100", MODEL, prompt, 2_080, 2_080, 1),
    ]
    assert {it.compared_ms for it in found} == {4 * EDGE_MS}


def test_engines__late_report_takes_the_drift_away(world: World) -> None:
    """What is reported late is compared again, and the drift of an hour that is over goes."""
    world.begin_hour()
    world.late.process.serve(prompt=100, output=50)
    world.advance(5)
    wait_until(lambda: world.drift("output", pool="late") == 50)
    assert world.drift("prompt", pool="late", name=PPM) == 1_000_000
    world.meter_tokens(edge=0, pool="late", input=100, output=50)
    wait_until(lambda: world.drift("output", pool="late") == 0)


def test_engines__what_is_old_is_forgotten(world: World) -> None:
    """A server deletes what engines counted more than 400 days ago."""
    old = "SELECT count(*) FROM engine_intervals WHERE pool = 'old'"
    wait_until(lambda: ask_one(world.meter.database_url, old) == 1)


@pytest.mark.parametrize(("start", "end", "field"), [(1, 0, "end_time"), (0.5, 1, "start_time")])
def test_query__refuses_times_off_edges(world: World, start: float, end: float, field: str) -> None:
    """A time that does not begin and end on edges, in this order, is refused."""
    with pytest.raises(grpc.RpcError) as failed:
        world.ask(start_ms=BEGIN_MS + int(start * EDGE_MS), end_ms=BEGIN_MS + int(end * EDGE_MS))
    info = info_of(failed.value)
    assert (info.reason, info.metadata["field"]) == ("ARGUMENT_INVALID", field)
