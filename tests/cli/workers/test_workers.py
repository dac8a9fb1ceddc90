"""`tokenworks serve --workers 2` as production runs it: processes of their own, on one database."""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import grpc
import psycopg
import pytest

from cli.meter_process import check_ports
from cli.process import CommandError
from cli.settings import Settings
from cli.workers.ports import hold_port
from tests.postgres import Cluster
from tests.running_meter import TOKENWORKS, RunningMeter, running_meter_on
from tests.wire.posting import post
from tests.wire.session import Session, event, opening, rows
from tests.wire.talk import (
    Talk,
    read_http,
    read_metric,
    talking,
    wait_until,
)
from tokenworks.client import Meter
from tokenworks.meter.v1 import energy_service_pb2, usage_pb2
from tokenworks.meter.v1.energy_service_pb2_grpc import EnergyServiceStub

INPUT = usage_pb2.TOKEN_CLASS_INPUT
WORKERS = {"workers": "2", "otlp": "true", "energy_sources": "h100=nvml"}
# A connection goes to either worker: that all of these go to one will not be seen.
CONNECTIONS_MAX = 200


class Shard(NamedTuple):
    """A shard that a worker holds, and how much it has written there."""

    pid: int
    position: int


@contextmanager
def crew_on(database_url: str, *, folder: Path) -> Iterator[RunningMeter]:
    """A meter of two workers, both of which know the account acme from their start."""
    (folder / "alone").mkdir()
    with running_meter_on(database_url, folder=folder / "alone") as alone:
        Session(alone).create_account("acme")
        alone.stop()
    with running_meter_on(database_url, folder=folder, settings=WORKERS) as meter:
        try:
            yield meter
        finally:
            # Killed, it would leave its workers some seconds on the ports.
            if meter.pid is not None:
                meter.stop()


@pytest.fixture(scope="module")
def shared_crew(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningMeter]:
    """A meter of two workers for all who leave it as it is."""
    folder = tmp_path_factory.mktemp("crew")
    with cluster.database() as url, crew_on(url, folder=folder) as meter:
        yield meter


@pytest.fixture
def crew(database_url: str, tmp_path: Path) -> Iterator[RunningMeter]:
    """A meter of two workers for one test."""
    with crew_on(database_url, folder=tmp_path) as meter:
        yield meter


def connect(meter: RunningMeter) -> Session:
    """A session on a connection of its own."""
    return Session(meter, options=[("grpc.use_local_subchannel_pool", 1)])


def shards_of(meter: RunningMeter) -> list[Shard]:
    """Return the shards that are held now."""
    question = (
        "SELECT split_part(owner, ':', 2)::int, position FROM shards"
        " WHERE owner <> '' AND lease_until > clock_timestamp() ORDER BY shard"
    )
    with psycopg.connect(meter.database_url) as connection:
        return [Shard(*row) for row in connection.execute(question).fetchall()]


def uncounted(meter: RunningMeter) -> list[int]:
    """Return the shards in which something is not counted."""
    question = (
        "SELECT shard FROM shards s JOIN counting c USING (shard) WHERE c.position < s.position"
    )
    with psycopg.connect(meter.database_url) as connection:
        return [row[0] for row in connection.execute(question).fetchall()]


def lives(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and is not mourned yet does not."""
    try:
        return _state_of(Path(f"/proc/{pid}/stat")) != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def stop_for_now(pid: int) -> None:
    """Stop a process until SIGCONT; returns when none of its threads runs any more.

    The signal reaches one thread, which stops the others once it has its turn: before that another
    one may take a connection.
    """
    os.kill(pid, signal.SIGSTOP)
    threads = Path(f"/proc/{pid}/task")
    wait_until(lambda: {_state_of(it / "stat") for it in threads.iterdir()} == {"T"})


def _state_of(stat: Path) -> str:
    return stat.read_text("utf-8").rpartition(")")[2].split()[0]


def stream_to_both(meter: RunningMeter, stack: ExitStack) -> list[Talk]:
    """Open streams, each with one event of 10 tokens, until both workers have recorded some."""
    talks: list[Talk] = []
    before = [shard.position for shard in shards_of(meter)]
    assert len(before) == 2
    while any(now.position == then for now, then in zip(shards_of(meter), before, strict=True)):
        assert len(talks) < CONNECTIONS_MAX
        talk = stack.enter_context(talking(connect(meter)))
        talk.say(opening(f"p{len(talks)}"), rows(1, event(tokens={INPUT: 10})))
        assert [talk.hear().WhichOneof("message") for _ in range(2)] == ["opened", "ack"]
        talks.append(talk)
    return talks


def test_workers__share_what_comes(shared_crew: RunningMeter) -> None:
    """Both get connections, each event is counted once, and the page is that of the machine."""
    with ExitStack() as stack:
        talks = stream_to_both(shared_crew, stack)
        assert read_metric(shared_crew, "tokenworks_streams_open") == len(talks)
        assert read_metric(shared_crew, "tokenworks_events_total", outcome="RECORDED") == len(talks)
        assert connect(shared_crew).counted() == {("acme", "high", INPUT): 10 * len(talks)}
        wait_until(lambda: read_metric(shared_crew, "tokenworks_tokens_total") == 10 * len(talks))
        assert read_metric(shared_crew, "tokenworks_ack_seconds_count") == len(talks)
        assert read_metric(shared_crew, "tokenworks_build_info") == 1
        wait_until(lambda: read_metric(shared_crew, "tokenworks_shard_leases") == 2)
    assert read_http(shared_crew, "/readyz") == (200, "OK\n")
    assert read_http(shared_crew, "/healthz") == (200, "OK\n")
    assert read_http(shared_crew, "/nothing")[0] == 404


def test_workers__take_reports_by_http(shared_crew: RunningMeter) -> None:
    """Whichever of them takes a report by HTTP records it, at each of the ports."""
    told = {
        "specversion": "1.0",
        "id": "e1",
        "source": "shop",
        "type": "inference.tokens.used",
        "subject": "acme",
        "data": {"model": "m", "tier": "free", "tokens": {"input": 7}},
    }
    body = json.dumps(told).encode()
    kind = "application/cloudevents+json"
    # The same event: whoever gets it again finds it recorded, also by the other.
    answers = [
        post(shared_crew, "/api/v1/events", body, content_type=kind).headers for _ in range(20)
    ]
    outcomes = [it["tokenworks-outcomes"] for it in answers]
    assert outcomes == ["RECORDED=1", *["DUPLICATE=1"] * 19]
    assert connect(shared_crew).counted()["acme", "free", INPUT] == 7
    answer = post(
        shared_crew,
        "/v1/traces",
        b"",
        content_type="application/x-protobuf",
        address=shared_crew.otlp_http,
    )
    assert answer.status == 200
    with grpc.insecure_channel(shared_crew.otlp_grpc) as channel:
        grpc.channel_ready_future(channel).result(timeout=60)


def test_workers__read_their_machine_once(shared_crew: RunningMeter) -> None:
    """One worker tries to read the machine's accelerators, and the other leaves them to it."""
    tried: list[bool] = []
    wait_until(lambda: _has_read(shared_crew))
    while len(set(tried)) < 2:
        assert len(tried) < CONNECTIONS_MAX
        tried.append(_has_read(shared_crew))


def test_workers__keep_others_from_their_port(shared_crew: RunningMeter) -> None:
    """No other server gets a part of their connections, be it alone or of several workers."""
    for workers in ("1", "2"):
        refused = _serve(shared_crew, workers=workers, grpc_address=shared_crew.target)
        assert refused.returncode == 1
        assert refused.stderr.endswith("is taken: choose another with --grpc-address\n")
        refused = _serve(shared_crew, workers=workers, http_address=shared_crew.http)
        assert refused.stderr.endswith("is taken: choose another with --http-address\n")


def test_hold_port__while_nobody_listens() -> None:
    """A port is kept while all workers are away, too."""
    with hold_port("127.0.0.1:0") as held:
        taken = f"127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(CommandError, match="is taken"):
            check_ports(Settings(grpc_address=taken, http_address="127.0.0.1:0"))


def test_workers__one_killed_under_load(crew: RunningMeter) -> None:
    """Nothing is lost, nothing doubled, its metrics stay in the sums, and it is started again."""
    before = {shard.pid for shard in shards_of(crew)}
    stopping = threading.Event()
    with ExitStack() as stack:
        producers = [
            stack.enter_context(
                Meter(
                    crew.target, api_key=crew.api_key, producer=f"p{number}", account="acme",
                    model="m", tier="high", flush_interval_seconds=0.01,
                )
            )
            for number in range(8)
        ]  # fmt: skip
        counts = [0] * len(producers)

        def report() -> None:
            # Some each time: the load is there when the worker dies, and not the machine's own.
            while not stopping.wait(0.01):
                for place, producer in enumerate(producers):
                    assert producer.record(input=3)
                    counts[place] += 1

        loading = threading.Thread(target=report)
        loading.start()
        try:
            wait_until(lambda: all(shard.position > 1 for shard in shards_of(crew)))
            shown = read_metric(crew, "tokenworks_events_total", outcome="RECORDED")
            assert shown > 0
            killed = min(before)
            os.kill(killed, signal.SIGKILL)
            wait_until(lambda: len({shard.pid for shard in shards_of(crew)} - before) == 1)
            assert read_metric(crew, "tokenworks_events_total", outcome="RECORDED") >= shown
            wait_until(lambda: read_http(crew, "/readyz")[0] == 200)
        finally:
            stopping.set()
            loading.join()
        assert all(producer.flush(60) for producer in producers)
    assert connect(crew).counted() == {("acme", "high", INPUT): 3 * sum(counts)}
    assert not lives(killed)
    assert " error tokenworks worker_ended fault='a worker was ended by signal 9'" in (
        crew.log.read_text("utf-8")
    )


def test_workers__one_hangs(crew: RunningMeter) -> None:
    """While one does not answer the machine is neither ready nor well; the other says so."""
    (first, _) = shards_of(crew)
    stop_for_now(first.pid)
    try:
        wait_until(lambda: read_http(crew, "/readyz")[0] == 503)
        status, text = read_http(crew, "/healthz")
        assert (status, text.splitlines()[1].split(": ")[1]) == (503, "does not answer")
        assert read_http(crew, "/metrics")[0] == 200
    finally:
        os.kill(first.pid, signal.SIGCONT)
    wait_until(lambda: read_http(crew, "/readyz")[0] == 200)
    assert read_http(crew, "/healthz")[0] == 200


def test_workers__stopped_in_order(crew: RunningMeter) -> None:
    """At SIGTERM each answers what it took and gives its shard back, with nothing uncounted."""
    with ExitStack() as stack:
        talks = stream_to_both(crew, stack)
        pids = [shard.pid for shard in shards_of(crew)]
        for talk in talks:
            talk.say(rows(2, event(tokens={INPUT: 1})))
        assert [talk.hear().WhichOneof("message") for talk in talks] == ["ack"] * len(talks)
        assert crew.stop() == 0
    assert not any(map(lives, pids))
    assert shards_of(crew) == []
    assert uncounted(crew) == []
    text = crew.log.read_text("utf-8")
    assert (text.count("meter_stopped"), "worker_ended" in text) == (2, False)


def test_workers__whose_parent_is_killed(crew: RunningMeter) -> None:
    """No worker is left behind: each ends as if it had been asked to."""
    pids = [shard.pid for shard in shards_of(crew)]
    assert crew.pid is not None
    os.kill(crew.pid, signal.SIGKILL)
    try:
        wait_until(lambda: not any(map(lives, pids)))
    finally:
        for pid in filter(lives, pids):
            os.kill(pid, signal.SIGKILL)
    assert shards_of(crew) == []
    # The log has what each said last.
    assert crew.log.read_text("utf-8").count("meter_stopped") == 2


def test_workers__that_cannot_start(database_url: str, tmp_path: Path) -> None:
    """What keeps them from starting is told once, and ends the command."""
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    pepper = tmp_path / "pepper"
    pepper.write_text("ab" * 32)
    named = {
        "database_url": database_url, "key_pepper_file": str(pepper), "workers": "2",
        "grpc_address": "127.0.0.1:0", "http_address": "127.0.0.1:0",
        "tls_certificate": str(broken), "tls_key": str(broken),
    }  # fmt: skip
    refused = _run(named)
    assert refused.returncode == 1
    assert refused.stderr.count("are no pair of a certificate and its key") == 1


@pytest.mark.parametrize("other", [{"shard": "3"}, {"sandbox_clock": "2026-10-01T00:00:00Z"}])
def test_workers__of_what_only_one_process_can_have(other: dict[str, str]) -> None:
    """A shard of one's own, or a clock that is moved, is refused beside several workers."""
    refused = _run({"workers": "2", **other})
    (name,) = other
    assert refused.returncode == 2
    assert f"workers: must be 1 with {name}: " in refused.stderr


def _has_read(meter: RunningMeter) -> bool:
    """Tell whether the worker that a new connection reaches has read the machine's accelerators."""
    session = connect(meter)
    with session.channel:
        stub = EnergyServiceStub(session.channel)
        answer = stub.ListEnergySources(
            energy_service_pb2.ListEnergySourcesRequest(), metadata=session.metadata, timeout=60
        )
    (source,) = answer.sources
    # Without a driver there is a reason why nothing was read.
    return source.HasField("read_time") or bool(source.failure)


def _serve(meter: RunningMeter, **settings: str) -> subprocess.CompletedProcess[str]:
    """Start another server beside a meter."""
    pepper = meter.log.parent / "key-pepper"
    named = {"database_url": meter.database_url, "key_pepper_file": str(pepper)}
    addresses = {"grpc_address": "127.0.0.1:0", "http_address": "127.0.0.1:0"}
    return _run(named | addresses | settings)


def _run(settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
    named = {f"TOKENWORKS_{name.upper()}": value for name, value in settings.items()}
    return subprocess.run(
        [TOKENWORKS, "serve"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=os.environ | named,
        text=True,
        timeout=60,
        check=False,
    )
