"""Reads of replicas: what they add, restarts, gaps, and tokens in the right intervals."""

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from meter.domain.interval import INTERVAL_MS
from meter.domain.limits import COUNTER_KEPT_MS
from meter.engine_drift import TokenKind
from meter.engines.counting import Counted, EngineRead, KnownReplica, count
from meter.engines.page import EngineCounter, EnginePage

BEGIN_MS = 2_000_000 * INTERVAL_MS
GAP_MS = 120_000
OUTPUT = TokenKind.OUTPUT


class Reader:
    """Reads one replica, and adds up what its reads add."""

    def __init__(self) -> None:
        self.known: KnownReplica | None = None
        self.sums: dict[int, int] = {}
        self.gap_tokens = 0
        self.reset_count = 0

    def read(
        self,
        time_ms: int,
        tokens: Mapping[str, int],
        *,
        pool: str = "h100",
        profile: str = "vllm/1",
    ) -> Counted | None:
        """Read counters so many ms after the begin."""
        counters = {
            series: EngineCounter(model="m", kind=OUTPUT, tokens=value)
            for series, value in tokens.items()
        }
        read = EngineRead(
            replica="r",
            pool=pool,
            time_ms=BEGIN_MS + time_ms,
            page=EnginePage(profile=profile, counters=counters),
        )
        counted = count(read, known=self.known, gap_ms=GAP_MS)
        if counted is None:
            return None
        self.known = KnownReplica(
            pool=pool, profile=profile, time_ms=read.time_ms, standing=dict(tokens)
        )
        for (_, _, start_ms), sums in counted.tokens.items():
            place = (start_ms - BEGIN_MS) // INTERVAL_MS
            self.sums[place] = self.sums.get(place, 0) + sums.tokens
            self.gap_tokens += sums.gap_tokens
            self.reset_count += sums.reset_count
        return counted


def test_count__first_read_says_where_counters_stand() -> None:
    """What was counted before anybody looked is nobody's."""
    reader = Reader()
    assert reader.read(0, {"a": 5_000}) == Counted(is_new=True)
    reader.read(15_000, {"a": 5_070})
    assert reader.sums == {0: 70}


def test_count__same_read_again_adds_nothing() -> None:
    """A read that is not newer is none."""
    reader = Reader()
    reader.read(0, {"a": 0})
    reader.read(15_000, {"a": 70})
    assert reader.read(15_000, {"a": 70}) is None
    assert reader.read(10_000, {"a": 50}) is None
    assert reader.sums == {0: 70}


def test_count__counter_that_appears_began_since() -> None:
    """A counter that is new on a page that is known began at 0, so all of it came since."""
    reader = Reader()
    reader.read(0, {})
    reader.read(15_000, {"a": 70})
    reader.read(30_000, {"a": 70, "b": 5})
    assert (reader.sums, reader.reset_count) == ({0: 75}, 0)


def test_count__restart() -> None:
    """A counter that went back began anew at 0; one that was gone meanwhile did, too."""
    reader = Reader()
    reader.read(0, {"a": 1_000, "b": 10})
    reader.read(15_000, {"a": 30})
    reader.read(30_000, {"a": 40, "b": 500})
    assert (reader.sums, reader.reset_count) == ({0: 30 + 10 + 500}, 1)


def test_count__idle_time_is_known() -> None:
    """A counter that stands still counts nothing: what comes next is of the time since then."""
    reader = Reader()
    for place in range(4):
        reader.read(place * INTERVAL_MS // 2, {"a": 7})
    reader.read(2 * INTERVAL_MS, {"a": 107})
    assert reader.sums == {0: 0, 1: 100}


def test_count__gap_is_spread_and_told() -> None:
    """Of reads too far apart it is not known when: tokens are spread by time, and none is lost."""
    reader = Reader()
    reader.read(0, {"a": 0})
    reader.read(3 * INTERVAL_MS, {"a": 300})
    assert (reader.sums, reader.gap_tokens) == ({0: 100, 1: 100, 2: 100}, 300)
    reader.read(3 * INTERVAL_MS + GAP_MS, {"a": 309})
    assert reader.gap_tokens == 300


def test_count__leap_is_no_tokens() -> None:
    """More than any engine makes is the counter of something else."""
    reader = Reader()
    reader.read(0, {"a": 0})
    reader.read(15_000, {"a": 10**12})
    reader.read(30_000, {"a": 10**12 + 5})
    assert (reader.sums, reader.reset_count) == ({0: 5}, 1)


def test_count__another_replica_in_its_place() -> None:
    """A URL of another pool, of another engine, or silent for long, is looked at anew."""
    for changes, time_ms in (
        ({"pool": "h200"}, 15_000),
        ({"profile": "vllm/2"}, 15_000),
        ({}, COUNTER_KEPT_MS + 1),
    ):
        reader = Reader()
        reader.read(0, {"a": 100})
        assert reader.read(time_ms, {"a": 700}, **changes) == Counted(is_new=True)


class Engine:
    """An engine, and an oracle: what it made, and what of that nobody can know."""

    def __init__(self) -> None:
        self.counters: dict[str, int] = {}
        self.made = 0
        self.unread = 0
        self.lost = 0

    def make(self, series: str, tokens: int) -> None:
        """Make tokens."""
        self.counters[series] = self.counters.get(series, 0) + tokens
        self.made += tokens
        self.unread += tokens

    def restart(self) -> None:
        """Begin anew; what was made since the last read is in no counter any more."""
        self.counters = {}
        self.lost += self.unread
        self.unread = 0


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("make"), st.sampled_from(["a", "b"]), st.integers(0, 10**6)),
        st.tuples(st.just("read"), st.just(""), st.integers(1, 3 * INTERVAL_MS)),
        st.tuples(st.just("restart"), st.just(""), st.just(0)),
    )
)


@given(STEPS)
def test_count__all_that_was_made(steps: list[tuple[str, str, int]]) -> None:
    """Whatever happens, all is counted that an engine made and was not lost with a restart."""
    # A restart is seen by a page without counters: between two reads it may be outgrown unseen.
    engine, reader = Engine(), Reader()
    time_ms = 0
    reader.read(0, {})
    for act, series, number in steps:
        if act == "make":
            engine.make(series, number)
        elif act == "restart":
            engine.restart()
            time_ms += 1
            reader.read(time_ms, {})
        else:
            time_ms += number
            reader.read(time_ms, engine.counters)
            engine.unread = 0
    assert sum(reader.sums.values()) == engine.made - engine.lost - engine.unread
