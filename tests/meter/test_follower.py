"""The follower's thread: what ends it is told."""

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager

import pytest

from meter.counting.follower import CountingTransaction, Follower


class BrokenStore:
    """Fails in a way that nobody foresaw."""

    def counting(self, shard: int | None = None) -> AbstractContextManager[CountingTransaction]:
        """Fail."""
        del shard
        raise MemoryError

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
