"""All accounts and API keys in memory: what every event and every call is checked against."""

import threading
from typing import Protocol

from meter.domain.clock import Clock
from meter.domain.credential import RegistrySnapshot
from meter.domain.errors import Reason, Unavailable


class RegistrySource(Protocol):
    """Where accounts and keys are kept: `meter.store.accounts.AccountStore`."""

    @property
    def known(self) -> RegistrySnapshot | None:
        """The newest snapshot that was read or written; None before the first."""
        ...

    def version(self) -> int:
        """Return the registry's version, which every change moves; raises Unavailable."""
        ...

    def load(self) -> RegistrySnapshot:
        """Return all accounts and keys at one version; raises Unavailable."""
        ...


class Registry:
    """Holds the newest snapshot that this process knows; safe to share between threads.

    A background task calls `refresh` every second, so that a change made through another server
    holds here within 2 seconds. One made here holds at once, by `adopt`.
    """

    def __init__(self, store: RegistrySource, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._snapshot: RegistrySnapshot | None = None
        self._checked_seconds = clock.monotonic_seconds()

    @property
    def snapshot(self) -> RegistrySnapshot:
        """The accounts and keys as last known; raises Unavailable before the first `refresh`."""
        if self._snapshot is None:
            raise Unavailable(Reason.STORE_UNAVAILABLE, "The accounts are not read yet.")
        return self._snapshot

    def age_seconds(self) -> float:
        """Return how long ago the snapshot was last known to be the newest."""
        return self._clock.monotonic_seconds() - self._checked_seconds

    def refresh(self) -> None:
        """Read the accounts and keys again when they have changed; blocks.

        Raises Unavailable when the database is away; the snapshot then stays as it is.
        """
        began_seconds = self._clock.monotonic_seconds()
        known = self._snapshot
        version = None if known is None else self._store.version()
        if known is None or version != known.version:
            # Lower than it was: the database is an older one, and its accounts and keys hold.
            is_older = version is not None and known is not None and version < known.version
            self._replace(self._store.load(), is_older=is_older)
        self._checked_seconds = began_seconds

    def adopt(self) -> None:
        """Take over what the store has just written, without asking the database."""
        if self._store.known is not None:
            self._replace(self._store.known)

    def _replace(self, snapshot: RegistrySnapshot, *, is_older: bool = False) -> None:
        with self._lock:
            known = self._snapshot
            if is_older or known is None or known.version < snapshot.version:
                self._snapshot = snapshot
