"""A driven clock over a real Postgres: edge by edge, kept before shown, counted before a cut."""

from collections.abc import Callable, Sequence

import pytest
from sqlalchemy import Engine

from meter.domain.errors import InvalidArgument, MeterError, Reason, Refused, Unavailable
from meter.runtime.driven_clock import ClockDriver, DrivenClock
from meter.store.cuts import CutStore
from meter.store.facts import FactStore
from meter.store.installation import InstallationStore
from meter.store.journal import JournalStore
from meter.store.usage import UsageStore
from tests.meter.store.recording import administrator, ask, ask_one, follow, record

# A midnight, in UTC.
BEGIN_MS = 1_790_812_800_000
EDGE_MS = 900_000
DAY_MS = 96 * EDGE_MS
CUTS = "SELECT (extract(epoch FROM cut_time) * 1000)::bigint FROM cuts ORDER BY cut_id"


class Witness(InstallationStore):
    """Keeps the time, and notes what the clock showed when it was kept."""

    def __init__(self, engine: Engine, clock: DrivenClock) -> None:
        super().__init__(engine)
        self._clock = clock
        self.kept: list[tuple[int, int]] = []

    def move_to(self, time_ms: int, *, is_waited_for: bool) -> None:
        """Keep it."""
        self.kept.append((time_ms, self._clock.now_ms()))
        super().move_to(time_ms, is_waited_for=is_waited_for)


class Driven:
    """A clock, whoever drives it, and where it stood and was kept at each edge that was heard."""

    def __init__(self, engine: Engine, *, begin_ms: int) -> None:
        self.clock = DrivenClock(begin_ms)
        self.kept = Witness(engine, self.clock)
        self.heard: list[tuple[int, int, int | None]] = []
        self.driver = ClockDriver(
            self.clock,
            kept=self.kept,
            counted=FactStore(engine),
            cuts=CutStore(engine),
            wake_counting=lambda: None,
            on_edge=[self.hear],
            counted_seconds_max=0.0,
        )

    def hear(self, edge_ms: int) -> None:
        """Take an edge."""
        self.heard.append((edge_ms, self.clock.now_ms(), self.kept.find_driven_ms()))

    @property
    def stands(self) -> set[int | None]:
        """Where the clock stands: as it is shown, and as it is kept."""
        return {self.clock.now_ms(), self.kept.find_driven_ms()}


@pytest.fixture
def driven(engine: Engine, database_url: str) -> Driven:
    """A clock that stands two minutes past a midnight."""
    with administrator(database_url) as connection:
        connection.execute(
            "INSERT INTO installation VALUES (true, true, to_timestamp(%s))",
            [BEGIN_MS / 1000 + 120],
        )
    return Driven(engine, begin_ms=BEGIN_MS + 120_000)


@pytest.mark.parametrize(
    ("to_ms", "edges"),
    [
        (BEGIN_MS + 120_000, []),
        (BEGIN_MS + EDGE_MS - 1, []),
        (BEGIN_MS + EDGE_MS, [1]),
        (BEGIN_MS + 3 * EDGE_MS + 7, [1, 2, 3]),
        (BEGIN_MS + DAY_MS + 1, list(range(1, 97))),
    ],
)
def test_drive__passes_each_edge(driven: Driven, to_ms: int, edges: Sequence[int]) -> None:
    """At each edge in between the clock stands and is kept there; at the end, where it was sent."""
    done = driven.driver.drive(to_ms)
    times = [BEGIN_MS + edge * EDGE_MS for edge in edges]
    assert driven.heard == [(time, time, time) for time in times]
    assert (done.start_ms, done.end_ms) == (BEGIN_MS + 120_000, to_ms)
    assert (done.edge_count, done.cut_count) == (len(edges), 96 in edges)
    assert driven.stands == {to_ms}


def test_drive__keeps_before_it_shows(driven: Driven) -> None:
    """A time is on its way to the disk before anybody can be told it: no crash takes it back."""
    driven.driver.drive(BEGIN_MS + 2 * EDGE_MS + 7)
    times = [BEGIN_MS + it for it in (120_000, EDGE_MS, 2 * EDGE_MS, 2 * EDGE_MS + 7)]
    assert driven.kept.kept == list(zip(times[1:], times, strict=False))


def test_drive__cuts_at_each_midnight(driven: Driven, database_url: str) -> None:
    """A cut is taken at each midnight that is passed, at its very time, and none in between."""
    assert driven.driver.drive(BEGIN_MS + 3 * DAY_MS).cut_count == 3
    assert driven.driver.drive(BEGIN_MS + 4 * DAY_MS - 1).cut_count == 0
    assert ask(database_url, CUTS) == [(BEGIN_MS + day * DAY_MS,) for day in (1, 2, 3)]


def fault_of(act: Callable[[], object]) -> MeterError:
    """Return how it must fail."""
    with pytest.raises(MeterError) as failure:
        act()
    return failure.value


def test_drive__back(driven: Driven) -> None:
    """No time before now is gone to."""
    fault = fault_of(lambda: driven.driver.drive(BEGIN_MS))
    assert (type(fault), fault.reason) == (Refused, Reason.CLOCK_REFUSED)
    assert "2026-10-01T00:02:00Z" in fault.message
    assert driven.stands == {BEGIN_MS + 120_000}


def test_drive__too_far(driven: Driven) -> None:
    """A wrong year is refused before anything moves, for nothing would bring the clock back."""
    fault = fault_of(lambda: driven.driver.drive(BEGIN_MS + 120_001 + 100 * DAY_MS))
    assert (type(fault), fault.metadata["field"]) == (InvalidArgument, "to")
    assert driven.stands == {BEGIN_MS + 120_000}


def test_drive__waits_for_counting(
    driven: Driven, journal: JournalStore, usage: UsageStore, database_url: str
) -> None:
    """The clock stays before a midnight until what was recorded is counted; then the cut has it."""
    record(journal, 5)
    last_ms = BEGIN_MS + DAY_MS - EDGE_MS
    for _ in range(2):
        fault = fault_of(lambda: driven.driver.drive(BEGIN_MS + DAY_MS + EDGE_MS))
        assert (type(fault), fault.reason) == (Unavailable, Reason.STORE_UNAVAILABLE)
        assert "2026-10-01T23:45:00Z" in fault.message
        assert driven.stands == {last_ms}
        assert ask(database_url, CUTS) == []
    follow(usage).count_once()
    done = driven.driver.drive(BEGIN_MS + DAY_MS + EDGE_MS)
    assert (done.start_ms, done.edge_count, done.cut_count) == (last_ms, 2, 1)
    assert ask_one(database_url, "SELECT position FROM cut_positions") == 1
    assert [edge_ms for edge_ms, _, _ in driven.heard] == [
        BEGIN_MS + edge * EDGE_MS for edge in range(1, 98)
    ]


def test_drive__given_up(driven: Driven) -> None:
    """Who no longer wants to go on ends it at an edge; the next one goes on from there."""
    to_ms = BEGIN_MS + 10 * EDGE_MS
    fault = fault_of(lambda: driven.driver.drive(to_ms, is_given_up=lambda: len(driven.heard) == 3))
    assert fault.reason is Reason.SHUTTING_DOWN
    assert driven.stands == {BEGIN_MS + 3 * EDGE_MS}
    assert driven.driver.drive(to_ms).edge_count == 7


def test_drive__stopped(driven: Driven) -> None:
    """A server that stops passes no further edge."""
    driven.driver.stop()
    fault = fault_of(lambda: driven.driver.drive(BEGIN_MS + EDGE_MS))
    assert (fault.reason, driven.heard) == (Reason.SHUTTING_DOWN, [])


def test_follow__another_server(driven: Driven) -> None:
    """What another server has moved is taken over; nothing is ever taken back."""
    driven.kept.move_to(BEGIN_MS + DAY_MS, is_waited_for=True)
    driven.driver.follow()
    assert driven.stands == {BEGIN_MS + DAY_MS}
    driven.clock.move_to(BEGIN_MS)
    assert driven.stands == {BEGIN_MS + DAY_MS}
