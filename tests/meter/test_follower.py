"""The follower's thread: what ends it is told."""

import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import pytest

from meter.counting.aggregate import UsageDelta
from meter.counting.follower import CountingTransaction, Follower, pause_seconds
from meter.counting.fresh import Run, add_up
from meter.segment import Gathered
from tests.meter.store.recording import segment_of


class BrokenStore:
    """Fails in a way that nobody foresaw."""

    def counting(self, shard: int | None = None) -> AbstractContextManager[CountingTransaction]:
        """Fail."""
        del shard
        raise MemoryError

    def add_up_ahead(self) -> None:
        """Nothing was just committed."""

    def find_orphans(self) -> Sequence[int]:
        """Nobody has left anything behind."""
        return []

    def take_cut_if_due(self, *, now_ms: int, every_ms: int) -> int | None:
        """Take none."""
        del now_ms, every_ms
        return None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_follow__unforeseen_fault_is_told() -> None:
    """A thread that ends without being asked to says so: counting must not stop in silence."""
    died = threading.Event()
    follower = Follower(
        BrokenStore(),
        now_ms=lambda: 0,
        monotonic_seconds=lambda: 0.0,
        on_counted=lambda _: None,
        on_death=died.set,
    )
    follower.start()
    assert died.wait(20)
    follower.stop()


class QuietStore:
    """Has nothing to count, and notes whether it is asked for what others left behind."""

    def __init__(self) -> None:
        self.asked = threading.Event()

    @contextmanager
    def counting(self, shard: int | None = None) -> Iterator[CountingTransaction]:
        """Nothing is there."""
        assert shard is None
        yield Nothing()

    def add_up_ahead(self) -> None:
        """Nothing was just committed."""

    def find_orphans(self) -> Sequence[int]:
        """Nobody has left anything behind."""
        self.asked.set()
        return []

    def take_cut_if_due(self, *, now_ms: int, every_ms: int) -> int | None:
        """Take none."""
        del now_ms, every_ms
        return None


class Nothing:
    """A shard that is counted whole."""

    def recall(self) -> Run | None:
        """Return nothing."""
        return None

    def read(self, *, events_max: int) -> Sequence[bytes]:
        """Return nothing."""
        del events_max
        return []

    def add(self, delta: UsageDelta) -> None:
        """Is never called."""
        raise AssertionError(delta)

    def note_reports(self, segments: Sequence[Gathered]) -> None:
        """Is never called."""
        raise AssertionError(segments)

    def advance(self) -> None:
        """Is never called."""
        raise AssertionError


def test_follow__looks_for_orphans() -> None:
    """Who has nothing to count looks for what those who died have left behind."""
    store = QuietStore()
    follower = Follower(
        store,
        now_ms=lambda: 0,
        monotonic_seconds=time.monotonic,
        on_counted=lambda _: None,
    )
    follower.start()
    assert store.asked.wait(20)
    follower.stop()


class BusyStore(QuietStore):
    """Has one run, and notes when it is told to add up ahead."""

    def __init__(self) -> None:
        super().__init__()
        self.added_up = threading.Event()

    @contextmanager
    def counting(self, shard: int | None = None) -> Iterator[CountingTransaction]:
        """Count a run, once."""
        assert shard is None
        yield OneRun() if not self.added_up.is_set() else Nothing()

    def add_up_ahead(self) -> None:
        """Note it."""
        self.added_up.set()


class OneRun(Nothing):
    """A shard with one run that memory has."""

    def __init__(self) -> None:
        self._runs = [add_up([segment_of(1)], is_noted=lambda _: True)]

    def recall(self) -> Run | None:
        """Return it."""
        return self._runs.pop() if self._runs else None

    def add(self, delta: UsageDelta) -> None:
        """Take it."""
        assert len(delta) == 1

    def note_reports(self, segments: Sequence[Gathered]) -> None:
        """There are none."""
        assert not segments

    def advance(self) -> None:
        """Go on."""


def test_follow__adds_up_while_it_rests() -> None:
    """The pause behind a round is time to add up what is committed meanwhile."""
    store = BusyStore()
    # A round takes some eighths of a second by this clock, and each look another one.
    seconds = itertools.count(0, 0.125).__next__
    follower = Follower(
        store,
        now_ms=lambda: 0,
        monotonic_seconds=lambda: float(seconds()),
        on_counted=lambda _: None,
    )
    follower.start()
    assert store.added_up.wait(20)
    follower.stop()


@pytest.mark.parametrize(
    ("took", "pause"),
    [(0.0, 0.0), (0.01, 0.04), (0.5, 2.0), (1.0, 1.5), (1.5, 0.5), (1.75, 0.0), (3.0, 0.0)],
)
def test_pause__keeps_what_is_not_counted_young(took: float, pause: float) -> None:
    """Short rounds have four times their length, others what is left of 3.5 seconds."""
    assert pause_seconds(took) == pause
