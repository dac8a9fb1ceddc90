"""What engines counted on a real Postgres: taken once, whoever else reads the same page."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from sqlalchemy import Engine

from meter.domain.interval import INTERVAL_MS
from meter.engine_drift import TokenKind
from meter.engines.counting import EngineRead
from meter.engines.page import EngineCounter, EnginePage
from meter.store.engines import EngineDriftStore, EngineStore
from tests.meter.plain_events import BEGIN_MS
from tests.meter.store.recording import ask, ask_one

SUM = "SELECT coalesce(sum(tokens), 0)::bigint FROM engine_intervals"
STANDING = "SELECT series, tokens FROM engine_counters ORDER BY series"
GAP_MS = 60_000


def read(time_ms: int, *, pool: str = "h100", node: int = 1, **tokens: int) -> EngineRead:
    """Return a read of a node's replica, so many ms after the begin."""
    counters = {
        series: EngineCounter(model="m", kind=TokenKind.OUTPUT, tokens=value)
        for series, value in tokens.items()
    }
    return EngineRead(
        replica=f"http://node-{node}:8000/metrics",
        pool=pool,
        time_ms=BEGIN_MS + time_ms,
        page=EnginePage(profile="vllm/1", counters=counters),
    )


def test_record__a_restart_goes_on(engine: Engine, database_url: str) -> None:
    """Where counters stand outlives a server; the same read again adds nothing."""
    EngineStore(engine).record(read(0, a=1_000), gap_ms=GAP_MS)
    EngineStore(engine).record(read(1_000, a=1_300, b=5), gap_ms=GAP_MS)
    assert EngineStore(engine).record(read(1_000, a=1_300, b=5), gap_ms=GAP_MS) is None
    assert ask_one(database_url, SUM) == 305
    EngineStore(engine).record(read(2_000, b=7), gap_ms=GAP_MS)
    assert ask(database_url, STANDING) == [("b", 7)]
    assert ask_one(database_url, SUM) == 307


def test_record__two_readers_at_once(engine: Engine, database_url: str) -> None:
    """Two servers that read the same page count its tokens once, the first read included."""
    stores, barrier = [EngineStore(engine), EngineStore(engine)], Barrier(2)

    def run(number: int) -> None:
        for place in range(30):
            barrier.wait()
            # One looks a little later, and sees a little more.
            time_ms, tokens = 1_000 * place + number, 1_000 + 10 * place + number
            stores[number].record(read(time_ms, a=tokens), gap_ms=GAP_MS)

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(run, number) for number in range(2)]:
            done.result()
    first, last = 1_000, 1_000 + 290 + 1
    assert ask_one(database_url, SUM) in {last - first, last - first - 1}
    assert ask(database_url, STANDING) == [("a", last)]


def test_record__moved_to_another_pool(engine: Engine, database_url: str) -> None:
    """A replica that serves another pool begins there: its counts before are the other's."""
    store = EngineStore(engine)
    store.record(read(0, a=10), gap_ms=GAP_MS)
    store.record(read(1_000, a=20), gap_ms=GAP_MS)
    store.record(read(2_000, pool="h200", a=50), gap_ms=GAP_MS)
    store.record(read(3_000, pool="h200", a=51), gap_ms=GAP_MS)
    sums = "SELECT pool, tokens FROM engine_intervals ORDER BY pool"
    assert ask(database_url, sums) == [("h100", 10), ("h200", 1)]
    first = "SELECT extract(epoch FROM first_time)::bigint * 1000 FROM engine_replicas"
    assert ask_one(database_url, first) == BEGIN_MS + 2_000


def test_forget__what_is_old(engine: Engine, database_url: str) -> None:
    """What engines counted before an edge goes, with engines that were not read since."""
    store = EngineStore(engine)
    edge_ms = 2 * INTERVAL_MS
    for pool, node in (("h100", 1), ("h200", 2)):
        for place in range(5):
            show = read(place * INTERVAL_MS, pool=pool, node=node, a=100 * place)
            store.record(show, gap_ms=GAP_MS)
    store.record(read(0, node=3, a=5), gap_ms=GAP_MS)
    store.record(read(1_000, node=3, a=7), gap_ms=GAP_MS)
    store.forget(before_ms=BEGIN_MS + edge_ms)
    assert ask(database_url, "SELECT pool, sum(tokens)::int FROM engine_intervals GROUP BY 1") == [
        ("h100", 200),
        ("h200", 200),
    ]
    assert ask_one(database_url, "SELECT count(*) FROM engine_intervals") == 4
    assert ask_one(database_url, "SELECT count(*) FROM engine_counters") == 2
    assert ask(database_url, "SELECT replica FROM engine_replicas WHERE replica ~ '3:'") == []
    again = store.record(read(edge_ms, node=3, a=9), gap_ms=GAP_MS)
    assert again is not None
    assert again.is_new


def test_forget__is_no_drift(engine: Engine) -> None:
    """Time of which nothing is kept is compared with nothing: usage of then is not drift."""
    store, drifts = EngineStore(engine), EngineDriftStore(engine)
    for place in range(5):
        store.record(read(place * INTERVAL_MS, a=100 * place), gap_ms=GAP_MS)
    span = {"start_ms": BEGIN_MS, "end_ms": BEGIN_MS + 4 * INTERVAL_MS}
    (before,) = drifts.compare(**span)
    store.forget(before_ms=BEGIN_MS + 2 * INTERVAL_MS)
    (after,) = drifts.compare(**span)
    assert (before.compared_ms, after.compared_ms) == (4 * INTERVAL_MS, 2 * INTERVAL_MS)
    assert after.start_ms == BEGIN_MS + 2 * INTERVAL_MS


def test_forget__while_an_engine_is_read(engine: Engine, database_url: str) -> None:
    """An engine that is forgotten just when it is read again begins anew."""
    store, barrier = EngineStore(engine), Barrier(2, timeout=20)

    def record() -> None:
        for place in range(30):
            barrier.wait()
            store.record(read((place + 1) * INTERVAL_MS, a=10 * place), gap_ms=GAP_MS)

    def forget() -> None:
        for place in range(30):
            barrier.wait()
            store.forget(before_ms=BEGIN_MS + (place + 1) * INTERVAL_MS)

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(record), threads.submit(forget)]:
            done.result()
    assert ask(database_url, STANDING) == [("a", 290)]
