"""How tests settle requests that several reported, with a journal of their own and no server."""

import asyncio
from collections.abc import Callable

from sqlalchemy import Engine

from meter.arbiter import Settlement
from meter.corrections import NewCorrection
from meter.domain.event import DimensionTable, Origin
from meter.journal.commit import Submission
from meter.store.arbitration import ArbitrationStore
from meter.store.journal import JournalStore
from meter.wire.arbitration import Arbiter
from tests.meter.plain_events import BEGIN_MS
from tests.meter.store.recording import commit


class Settling:
    """Decides all that waits when it is called, with corrections in one shard's journal."""

    def __init__(self, engine: Engine, journal: JournalStore, *, shard: int = 0) -> None:
        """Take the journal of a shard."""
        self.store = ArbitrationStore(engine, own_shard=lambda: shard)
        self._journal = journal
        # What comes between a look and its corrections, and what comes after each of them.
        self.before_append: Callable[[], None] = lambda: None
        self.after_append: Callable[[], None] = lambda: None

    def __call__(self) -> None:
        """Look at all that waits, once."""
        arbiter = Arbiter(self._append, store=self.store, is_ours=lambda: True)
        asyncio.run(arbiter.round())

    async def _append(self, wanted: NewCorrection, *, account_id: str, settles: Settlement) -> int:
        await asyncio.to_thread(self.before_append)
        origin = Origin(account_id=account_id, key_id=wanted.key_id, received_ms=BEGIN_MS)
        submission = Submission(
            origin=origin, batch=wanted.to_batch(DimensionTable()), corrects=wanted, settles=settles
        )
        (result,) = commit(self._journal, submission)
        await asyncio.to_thread(self.after_append)
        return result.correction_id
