"""Looks how far the configured standbys are, and moves the horizon of what is durable."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol, Self

from meter.domain.errors import MeterError
from meter.journal.durability import Horizon, Sight

_log = logging.getLogger(__name__)


class ReplicationPort(Protocol):
    """Where that can be seen: `meter.store.replication.ReplicationStore`, which blocks."""

    def check_privilege(self) -> None:
        """Raise Refused where the service may not see it."""
        ...

    def look(self) -> Sight:
        """Return where the log ends and how far each standby is; raises Unavailable."""
        ...


class Standbys:
    """The watch over the standbys; one for a server."""

    def __init__(
        self, store: ReplicationPort, *, horizon: Horizon, on_missing: Callable[[int], None]
    ) -> None:
        """Take where to look, what streams ask, and who hears how many standbys do not follow."""
        self._store = store
        self._on_missing = on_missing
        self.horizon = horizon

    @classmethod
    def begin(
        cls, store: ReplicationPort, names: Sequence[str], *, on_missing: Callable[[int], None]
    ) -> Self:
        """Look for the first time; raises Refused where the service may not, and Unavailable.

        What is recorded from then on belongs to this database, or to a later one.
        """
        store.check_privilege()
        standbys = cls(store, horizon=Horizon(names), on_missing=on_missing)
        standbys._take(standbys.horizon.begin(), store.look())
        return standbys

    async def round(self) -> None:
        """Look once more; a database that is away moves nothing."""
        number = self.horizon.begin()
        try:
            sight = await asyncio.to_thread(self._store.look)
        except MeterError:
            _log.debug("standbys_not_seen")
            return
        self._take(number, sight)

    def _take(self, number: int, sight: Sight) -> None:
        missing = self.horizon.missing
        if self.horizon.take(number, sight):
            _log.warning("database_changed", extra={"line": sight.line})
        self._on_missing(len(self.horizon.missing))
        if self.horizon.missing and self.horizon.missing != missing:
            # Producers keep what they have until these are back.
            _log.warning("standbys_missing", extra={"standbys": ",".join(self.horizon.missing)})
        elif missing and not self.horizon.missing:
            _log.info("standbys_complete")
