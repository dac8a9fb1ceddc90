"""The shard of the journal that this process writes: held for a time, and another when it is lost.

A lease says who is alive; what keeps two processes from writing one shard is the epoch, which each
commit checks in its own transaction. So a lease that ends too early costs a change of shards, and
one that ends too late costs seconds; neither costs an event.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from meter.domain.errors import MeterError, Reason, Unavailable
from meter.domain.limits import LEASE_SECONDS

_log = logging.getLogger(__name__)
# A lease that ran out is seen by others after another half a second: a shard changes its owner
# within five.
_RENEW_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A shard, as `owner` has taken it: with an epoch that nobody else has."""

    shard: int
    epoch: int
    owner: str


class ShardLost(Unavailable):
    """Another process has taken over the shard; nothing was recorded."""

    def __init__(self, shard: int) -> None:
        """Take the shard."""
        super().__init__(
            Reason.SHUTTING_DOWN, f"Another server has taken over shard {shard}. Connect again."
        )


class LeasePort(Protocol):
    """Where shards are held: `meter.store.leases.LeaseStore`, which blocks.

    All methods raise Unavailable when the database is away.
    """

    def take(self, *, shard: int | None) -> Lease:
        """Take over a shard, or the lowest that nobody holds, a new one at last."""
        ...

    def renew(self, lease: Lease) -> bool:
        """Hold it for another while; False when somebody else has taken it. Waits for nobody."""
        ...

    def give_back(self, lease: Lease) -> None:
        """Let go of it."""
        ...

    def hold_task(self, task: str) -> bool:
        """Do a task for all, or go on with it; False while somebody else does."""
        ...

    def give_tasks_back(self) -> None:
        """Let go of all tasks."""
        ...

    def adopt(self) -> Sequence[int]:
        """Fence whoever let a lease run out, and return those shards: they lie free."""
        ...

    def held_count(self) -> int:
        """Return how many shards are held."""
        ...


class Leases:
    """The lease of this process, renewed on a thread of its own; safe to share between threads."""

    def __init__(
        self,
        store: LeasePort,
        *,
        shard: int | None,
        monotonic_seconds: Callable[[], float],
        tasks: Sequence[str] = (),
        on_taken: Callable[[int], None] = lambda _: None,
        on_round: Callable[[int, int], None] = lambda _held, _adopted: None,
        on_death: Callable[[], None] = lambda: None,
    ) -> None:
        """Take where shards are held, and the one to begin with; None is the lowest free one.

        `tasks` name what one of all servers does that have the same name for it.
        `on_taken` hears of each shard before it is written, and may refuse it. `on_round` hears
        how many shards are held by anybody, and how many this process has adopted. `on_death` is
        told when a fault that nobody foresaw ends the thread.
        """
        self._store = store
        self._first_shard = shard
        self._monotonic_seconds = monotonic_seconds
        self._tasks = tuple(tasks)
        self._on_taken = on_taken
        self._on_round = on_round
        self._on_death = on_death
        self._taking = threading.Lock()
        self._lease: Lease | None = None
        self._shard: int | None = None
        self._renewed_seconds = 0.0
        self._tasked_seconds: dict[str, float] = {}
        self._held_count = 1
        # Since when each round has reached the database; None when the last one has not.
        self._attentive_since: float | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    @property
    def shard(self) -> int:
        """The shard that was taken last; `take` comes first."""
        assert self._shard is not None
        return self._shard

    @property
    def is_held(self) -> bool:
        """Tell whether the lease, as far as is known here, has not run out."""
        age_seconds = self._monotonic_seconds() - self._renewed_seconds
        return self._lease is not None and age_seconds < LEASE_SECONDS

    @property
    def is_alone(self) -> bool:
        """Tell whether no other server was alive when that was last looked at."""
        return self._held_count <= 1

    def has_task(self, task: str) -> bool:
        """Tell whether a task is this server's: for less long than the database believes it."""
        tasked = self._tasked_seconds.get(task)
        return tasked is not None and self._monotonic_seconds() - tasked < LEASE_SECONDS

    def take(self) -> Lease:
        """Take the first shard; whoever held one that is named can write no more.

        Raises Unavailable, and StoreRefusal when it may not be counted.
        """
        with self._taking:
            lease = self._take(self._first_shard)
        self._look(self._monotonic_seconds())
        return lease

    def current(self) -> Lease:
        """Return the lease; where it was lost, another one is taken. Raises as `take` does."""
        with self._taking:
            return self._lease or self._take(None)

    def confirmed(self, lease: Lease) -> Lease:
        """Return the lease if it stands in the database, which may be an older one; else another.

        Raises as `take` does.
        """
        if not self._store.renew(lease):
            self.lost(lease)
        return self.current()

    def lost(self, lease: Lease) -> None:
        """Hear that somebody else has taken over the shard."""
        with self._taking:
            if self._lease != lease:
                return
            self._lease = None
        _log.warning("shard_lost", extra={"shard": lease.shard})

    def round(self) -> None:
        """Renew the lease, or take another one, and adopt the shards of those who are gone.

        Raises as `take` does. Nobody is taken for gone before this process has had the database
        for as long as a lease lasts: while it was away, nobody could renew anything.
        """
        begun = self._monotonic_seconds()
        lease = self._lease
        if lease is not None and self._store.renew(lease):
            self._renewed_seconds = begun
        elif lease is not None:
            self.lost(lease)
        self.current()
        if self._attentive_since is None:
            self._attentive_since = begun
        adopted: Sequence[int] = ()
        if begun - self._attentive_since >= LEASE_SECONDS:
            adopted = self._store.adopt()
        for shard in adopted:
            _log.warning("shard_adopted", extra={"shard": shard})
        self._look(begun)
        self._on_round(self._held_count, len(adopted))

    def start(self) -> None:
        """Begin to renew."""
        self._thread.start()

    def stop(self) -> None:
        """Give the shard back; nothing is written to it any more."""
        self._stopping.set()
        self._thread.join()
        lease, self._lease = self._lease, None
        if lease is None:
            return
        try:
            self._store.give_tasks_back()
            self._store.give_back(lease)
        except MeterError:
            # It runs out.
            _log.debug("shard_not_given_back", extra={"shard": lease.shard})

    def _take(self, shard: int | None) -> Lease:
        begun = self._monotonic_seconds()
        lease = self._store.take(shard=shard)
        self._on_taken(lease.shard)
        self._renewed_seconds = begun
        self._lease, self._shard = lease, lease.shard
        _log.debug("shard_taken", extra={"shard": lease.shard, "epoch": lease.epoch})
        return lease

    def _look(self, begun: float) -> None:
        self._held_count = self._store.held_count()
        for task in self._tasks:
            if self._store.hold_task(task):
                self._tasked_seconds[task] = begun
            else:
                self._tasked_seconds.pop(task, None)

    def _run(self) -> None:
        try:
            while not self._stopping.wait(_RENEW_SECONDS):
                self._try_round()
        finally:
            if not self._stopping.is_set():
                self._on_death()

    def _try_round(self) -> None:
        try:
            self.round()
        except MeterError as error:
            self._attentive_since = None
            _log.debug("lease_not_renewed", extra={"fault": str(error)})
