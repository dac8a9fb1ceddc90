"""Rounds of reading engines' pages: what fails alone, who reads, and what is shown."""

from collections.abc import Iterator, Sequence

import pytest
from prometheus_client import CollectorRegistry

from meter.domain.interval import INTERVAL_MS
from meter.domain.limits import ENGINE_KEPT_MS, ENGINE_SETTLE_MS
from meter.engine_drift import EngineDrift, TokenKind
from meter.engine_metrics import EngineMetrics
from meter.engines.counting import Counted, EngineRead, EngineTokens
from meter.engines.watch import EngineWatch
from meter.options import EnginePlace
from meter.series import Exposition
from tests.clock import FakeClock
from tests.engine_page import Replica, running_replica

HOUR_MS = 4 * INTERVAL_MS
DAY_MS = 24 * HOUR_MS
# A midnight, and a moment after it.
BEGIN_MS = 20_000 * DAY_MS
FAILED = "tokenworks_engine_reads_failed_total"


class Kept:
    """Keeps reads, and the drifts that a test says."""

    hold_ppm = None

    def __init__(self) -> None:
        self.reads: list[EngineRead] = []
        self.drifts: list[EngineDrift] = []
        self.asked: list[tuple[int, int]] = []
        self.kept_from_ms = 0

    def record(self, read: EngineRead, *, gap_ms: int) -> Counted:
        """Keep a read, of which each adds 5 tokens."""
        assert gap_ms == HOUR_MS
        self.reads.append(read)
        key = ("m", TokenKind.OUTPUT, BEGIN_MS)
        return Counted(tokens={key: EngineTokens(tokens=5)})

    def forget(self, *, before_ms: int) -> None:
        """Note from when on a test's reads are kept."""
        self.kept_from_ms = before_ms

    def compare(self, *, start_ms: int, end_ms: int) -> Sequence[EngineDrift]:
        """Return what a test said."""
        self.asked.append((start_ms, end_ms))
        return self.drifts


class Room:
    """A watch of two replicas, by a clock that the test sets."""

    def __init__(self, replicas: Sequence[Replica]) -> None:
        self.replicas = replicas
        self.clock = FakeClock(BEGIN_MS)
        self.kept = Kept()
        self.is_reader = True
        self.registry = CollectorRegistry()
        self.watch = EngineWatch(
            [EnginePlace(pool=f"p{n}", url=it.url) for n, it in enumerate(replicas)],
            store=self.kept,
            drifts=self.kept,
            metrics=EngineMetrics(Exposition(self.registry)),
            clock=self.clock,
            gap_ms=HOUR_MS,
            is_reader=lambda: self.is_reader,
        )

    def metric(self, name: str, **labels: str) -> float | None:
        """Return a sample's value, None where there is none."""
        return self.registry.get_sample_value(name, labels)


@pytest.fixture
def room() -> Iterator[Room]:
    """A room with two replicas."""
    with running_replica() as first, running_replica() as second:
        room = Room([first, second])
        yield room
        room.watch.stop()


def drift(*, compared_ms: int) -> EngineDrift:
    """Return a drift of 10 of 100."""
    return EngineDrift(
        pool="p0",
        model="m",
        kind=TokenKind.OUTPUT,
        start_ms=0,
        end_ms=DAY_MS,
        compared_ms=compared_ms,
        engine_tokens=100,
        metered_tokens=90,
    )


def test_read__one_that_fails_harms_no_other(room: Room) -> None:
    """What a replica shows is recorded, whatever another one does, and that is counted."""
    first, second = room.replicas
    second.process.serve(prompt=7, output=3)
    second.page = second.process.page()
    for reason, status, page in (
        ("refused", 503, b""),
        ("unreadable", 200, b"vllm:prompt_tokens_total NaN\nvllm:generation_tokens_total 5\n"),
        ("no_counters", 200, b"<html>soon back</html>"),
    ):
        first.status, first.page = status, page
        room.watch.read_now()
        assert room.metric(FAILED, pool="p0", reason=reason) == 1
    assert {it.replica for it in room.kept.reads} == {second.url}
    assert len(room.kept.reads) == 3
    assert sorted(it.tokens for it in room.kept.reads[0].page.counters.values()) == [3, 7]
    counted = room.metric("tokenworks_engine_tokens_total", pool="p1", model="m", kind="output")
    assert counted == 15


def test_read__only_by_one_of_all(room: Room) -> None:
    """A server that is not the reader asks no engine."""
    room.is_reader = False
    room.watch.read_now()
    assert [it.ask_count for it in room.replicas] == [0, 0]
    room.is_reader = True
    room.watch.read_now()
    assert [it.ask_count for it in room.replicas] == [1, 1]


def test_look__last_complete_hour_and_day(room: Room) -> None:
    """An hour and a day are shown once they are settled, again each minute, and at once anew."""
    room.clock.now = BEGIN_MS + HOUR_MS + ENGINE_SETTLE_MS - 1
    room.watch.look()
    assert room.kept.asked == [(BEGIN_MS - HOUR_MS, BEGIN_MS), (BEGIN_MS - DAY_MS, BEGIN_MS)]
    room.clock.now += 1
    room.watch.look()
    assert room.kept.asked[2] == (BEGIN_MS, BEGIN_MS + HOUR_MS)
    room.clock.now += 59_000
    room.watch.look()
    assert len(room.kept.asked) == 4
    room.clock.now += 1_000
    room.watch.look()
    assert len(room.kept.asked) == 6


def test_look__what_was_read_in_part_is_not_shown(room: Room) -> None:
    """A window of which less than nine tenths were read has no number, or loses the one it had."""
    name = "tokenworks_engine_drift_tokens"
    labels = {"pool": "p0", "model": "m", "kind": "output"}
    for compared_ms, hour, day in (
        (HOUR_MS, 10, None),
        (DAY_MS * 9 // 10, 10, 10),
        (DAY_MS * 9 // 10 - 1, 10, None),
        (HOUR_MS * 9 // 10 - 1, None, None),
    ):
        room.kept.drifts = [drift(compared_ms=compared_ms)]
        room.clock.now += 60_000
        room.watch.look()
        assert room.metric(name, **labels, window="1h") == hour
        assert room.metric(name, **labels, window="1d") == day


def test_forget__what_nobody_may_ask_for(room: Room) -> None:
    """What is older than a question may reach back is forgotten, by whole intervals."""
    room.clock.now += INTERVAL_MS + 1
    room.watch.forget()
    assert room.kept.kept_from_ms == BEGIN_MS + INTERVAL_MS - ENGINE_KEPT_MS
