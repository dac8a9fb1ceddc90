"""What a process does about its lease, on a store that does as the test says."""

import threading
from collections.abc import Sequence

import pytest

from meter.domain.errors import Reason, StoreRefusal, Unavailable
from meter.domain.limits import LEASE_SECONDS
from meter.leases import Lease, Leases


class Shelf:
    """Shards in memory, and a clock."""

    def __init__(self) -> None:
        self.seconds = 100.0
        self.is_away = False
        self.renews = True
        self.taken: list[int | None] = []
        self.returned: list[Lease] = []
        self.lapsed: list[int] = []
        self.tasks: list[str] = []
        self.is_tasked = True
        self.held = 3

    def take(self, *, shard: int | None) -> Lease:
        """Give the next one out."""
        self._ask()
        self.taken.append(shard)
        return Lease(shard=len(self.taken) - 1, epoch=1, owner="a")

    def renew(self, lease: Lease) -> bool:
        """Renew it, or not."""
        del lease
        self._ask()
        return self.renews

    def give_back(self, lease: Lease) -> None:
        """Take it back."""
        self._ask()
        self.returned.append(lease)

    def adopt(self) -> Sequence[int]:
        """Return those that have run out."""
        lapsed, self.lapsed = self.lapsed, []
        return lapsed

    def hold_task(self, task: str) -> bool:
        """Note it, and let it be done or not."""
        self._ask()
        self.tasks.append(task)
        return self.is_tasked

    def give_tasks_back(self) -> None:
        """Forget them."""
        self._ask()
        self.tasks.clear()

    def held_count(self) -> int:
        """Return a number."""
        return self.held

    def monotonic_seconds(self) -> float:
        """Return the time."""
        return self.seconds

    def _ask(self) -> None:
        if self.is_away:
            raise Unavailable(Reason.STORE_UNAVAILABLE, "away")


def leases_on(shelf: Shelf, *, shard: int | None = None) -> Leases:
    """Return leases that have taken the first shard."""
    leases = Leases(shelf, shard=shard, monotonic_seconds=shelf.monotonic_seconds)
    leases.take()
    return leases


def test_round__lost(caplog: pytest.LogCaptureFixture) -> None:
    """Who lost the shard of the settings takes any other, once, and goes on."""
    shelf = Shelf()
    leases = leases_on(shelf, shard=0)
    shelf.renews = False
    leases.round()
    shelf.renews = True
    leases.round()
    assert (shelf.taken, leases.shard) == ([0, None], 1)
    assert [it.message for it in caplog.records] == ["shard_lost"]


def test_lost__by_what_was_lost_before() -> None:
    """Hearing late of a shard that was given up already changes nothing."""
    shelf = Shelf()
    leases = leases_on(shelf)
    first = leases.current()
    leases.lost(first)
    second = leases.current()
    leases.lost(first)
    assert leases.current() is second


def test_round__adopts_only_when_attentive() -> None:
    """Nobody is taken for dead before this process could see for itself that he does not renew."""
    shelf = Shelf()
    heard: list[tuple[int, int]] = []
    leases = Leases(
        shelf,
        shard=None,
        monotonic_seconds=shelf.monotonic_seconds,
        on_round=lambda held, adopted: heard.append((held, adopted)),
    )
    leases.take()
    shelf.lapsed = [7]
    for _ in range(LEASE_SECONDS):
        leases.round()
        shelf.seconds += 1
    assert [adopted for _, adopted in heard] == [0] * LEASE_SECONDS
    leases.round()
    assert heard[-1] == (3, 1)


def test_is_held__while_the_database_is_away() -> None:
    """A lease that could not be renewed for as long as it lasts is held no more."""
    shelf = Shelf()
    leases = leases_on(shelf)
    shelf.is_away = True
    held = []
    for _ in range(LEASE_SECONDS):
        with pytest.raises(Unavailable):
            leases.round()
        held.append(leases.is_held)
        shelf.seconds += 1
    held.append(leases.is_held)
    shelf.is_away = False
    leases.round()
    held.append(leases.is_held)
    assert held == [True] * LEASE_SECONDS + [False, True]


def test_take__of_a_shard_that_may_not_be_counted() -> None:
    """A shard that is refused is not held."""
    shelf = Shelf()

    def refuse(shard: int) -> None:
        raise StoreRefusal(Reason.INTERNAL, f"{shard} no")

    leases = Leases(shelf, shard=None, monotonic_seconds=shelf.monotonic_seconds, on_taken=refuse)
    with pytest.raises(StoreRefusal):
        leases.take()
    assert not leases.is_held


def test_task__of_one_server() -> None:
    """A task is done by who has it, as long as the database was reached of late."""
    shelf = Shelf()
    leases = Leases(shelf, shard=None, monotonic_seconds=shelf.monotonic_seconds, tasks=["energy"])
    seen = [leases.has_task("energy")]
    leases.take()
    seen.append(leases.has_task("energy"))
    shelf.seconds += LEASE_SECONDS
    seen.append(leases.has_task("energy"))
    leases.round()
    seen.append(leases.has_task("energy"))
    shelf.is_tasked = False
    leases.round()
    seen.append(leases.has_task("energy"))
    assert seen == [False, True, False, True, False]


def test_is_alone__by_how_many_live() -> None:
    """Whether others live is looked at in each round."""
    shelf = Shelf()
    shelf.held = 1
    leases = leases_on(shelf)
    seen = [leases.is_alone]
    shelf.held = 2
    leases.round()
    assert [*seen, leases.is_alone] == [True, False]


@pytest.mark.parametrize("is_away", [False, True])
def test_stop__gives_back(*, is_away: bool) -> None:
    """At the end the shard is given back; where the database is away it runs out by itself."""
    shelf = Shelf()
    leases = leases_on(shelf)
    leases.start()
    shelf.is_away = is_away
    leases.stop()
    assert len(shelf.returned) == (0 if is_away else 1)
    assert not leases.is_held


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_thread__unforeseen_fault_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that ends without being asked to says so: leases must not run out in silence."""
    died = threading.Event()
    monkeypatch.setattr("meter.leases._RENEW_SECONDS", 0.001)
    shelf = Shelf()
    leases = Leases(shelf, shard=None, monotonic_seconds=shelf.monotonic_seconds, on_death=died.set)
    leases.take()

    def fail(lease: Lease) -> bool:
        raise MemoryError(lease)

    monkeypatch.setattr(shelf, "renew", fail)
    leases.start()
    assert died.wait(20)
    leases.stop()
