"""A reporting process: the client's session and hold, driven as its thread drives them."""

from collections import Counter
from random import Random

from tests.simulation.disk import SimulatedFolder
from tests.simulation.meter import Connection
from tokenworks.client.columns import SealedBatch
from tokenworks.client.fallback import FallbackHold
from tokenworks.client.hold import Hold, HoldFull, MemoryHold, SpooledBatch
from tokenworks.client.retry import FORKED, Backoff, Failure
from tokenworks.client.session import Connect, Cut, Pace, Send, Session
from tokenworks.client.spool import Spool, SpoolOptions
from tokenworks.client.vocabulary import State
from tokenworks.meter.v1.usage_pb2 import UsageColumns

_PACE = Pace(flush_interval=0.2, heartbeat_min=0.5, heartbeat_idle=2.0, silence_max=5.0)


class SimulatedProducer:
    """One start of a process; `folder` None keeps everything in memory.

    `truth` has every event that was recorded; `safe` those that were on disk when they were taken.
    """

    def __init__(
        self,
        name: str,
        *,
        folder: SimulatedFolder | None,
        options: SpoolOptions,
        random: Random,
        now: float,
        keys: list[int],
        reached: Counter[str],
    ) -> None:
        """Open the spool; raises SpoolUnusable. `keys` gives running reports their names."""
        self.name = name
        self.folder = folder
        self.truth: list[bytes] = []
        self.safe: set[bytes] = set()
        self.dropped: set[bytes] = set()
        self.connection: Connection | None = None
        self.is_connecting = False
        self.is_forked = False
        self._random = random
        self._reached = reached
        self._intake: list[bytes] = []
        self._finals: list[tuple[int, bytes]] = []
        self._running: dict[int, bytes] = {}
        self._keys = keys
        self._spool: FallbackHold | None = None
        hold: Hold = MemoryHold()
        if folder is not None:
            spool = Spool.open(folder, producer=name, options=options)
            reached["torn tails"] += spool.findings.torn_bytes > 0
            reached["damaged batches"] += spool.findings.damaged_batch_count
            reached["reports recovered"] += len(spool.recovered)
            hold = self._spool = FallbackHold(spool)
        self.hold = hold
        self.session = Session(
            hold,
            producer=name,
            instance=random.randbytes(16),
            pace=_PACE,
            backoff=Backoff(draw=random.uniform),
            telling=self,
            now=now,
            is_on_disk=None if self._spool is None else self._spool.is_on_disk,
            doubts_when_behind=folder is not None,
        )

    def state_entered(self, state: State, failure: Failure | None) -> None:
        """Hear where the client stands."""
        if failure is not None and state is State.TAKEN_OVER:
            self.is_forked = failure is FORKED
            self._reached["spools forked"] += self.is_forked

    def events_set_aside(self, *, outcomes: object, count: int) -> None:
        """Hear of quarantine."""

    @property
    def recovered(self) -> set[bytes]:
        """Events of reports whose end was not found."""
        return {UsageColumns.FromString(last.payload).event_ids for _, last in self.hold.recovered}

    @property
    def running(self) -> set[bytes]:
        """Events of reports that run."""
        return {*self._running.values(), *(event for _, event in self._finals)}

    @property
    def is_drained(self) -> bool:
        """Whether nothing is left to send."""
        left = self._intake or self._finals or self._running
        return not left and not self.hold.held_event_count

    def record(self) -> None:
        """Record an event."""
        self._intake.append(self._new_event())

    def begin(self) -> None:
        """Begin a running report."""
        self._keys[0] += 1
        self._running[self._keys[0]] = self._new_event()

    def finish(self) -> None:
        """Finish the oldest running report."""
        if self._running:
            key = next(iter(self._running))
            self._finals.append((key, self._running.pop(key)))

    def finish_all(self) -> None:
        """Finish all of them."""
        while self._running:
            self.finish()

    def advance(self, now: float) -> None:
        """Do what the sender's thread does in one turn."""
        session = self.session
        if session.is_sealing_due(now):
            self._seal()
            session.sealed(now)
        for action in session.advance(now):
            if isinstance(action, Connect):
                self.connection = Connection()
                self.is_connecting = True
                self.connection.to_meter.append(action.opening)
            elif isinstance(action, Send):
                assert self.connection is not None
                if self.connection.is_open:
                    self.connection.to_meter.append(action.message)
            elif isinstance(action, Cut):
                self._hang_up()

    def hear(self, now: float) -> None:
        """Take the next message of the meter, or that the connection is gone."""
        connection = self.connection
        if connection is None:
            return
        if connection.to_producer:
            self.session.hear(connection.to_producer.popleft(), now)
        elif connection.failure is not None:
            failure, self.connection = connection.failure, None
            self.session.ended(failure, now)

    def die(self) -> set[bytes]:
        """Vanish as by `kill -9`; returns the events that may be lost by it."""
        self._hang_up()
        return set(self.truth) - self.safe

    def close(self) -> set[bytes]:
        """End in good order; returns the events that may be lost by it."""
        self.finish_all()
        self._seal()
        self._hang_up()
        self.hold.close()
        return set(self.truth) - self.safe

    def _hang_up(self) -> None:
        if self.connection is not None:
            self.connection.end()
            self.connection.to_producer.clear()
        self.connection = None

    def _seal(self) -> None:
        batches = []
        while self._intake:
            count = self._random.randint(1, 3)
            ids, self._intake = self._intake[:count], self._intake[count:]
            batches.append((ids, SpooledBatch(batch=_sealed(ids))))
        for key, event in self._finals:
            batches.append(([event], SpooledBatch(batch=_sealed([event]), settles=(key,))))
        self._finals = []
        for ids, spooled in batches:
            dropped, local = self.session.dropped_event_count, self.hold.next
            self.session.take([spooled])
            if self.session.dropped_event_count > dropped:
                self._reached["events dropped, spool full"] += 1
                self.dropped.update(set(ids) - self.safe)
            elif self._spool and self.hold.next > local and self._spool.is_on_disk(local):
                self.safe.update(ids)
        if self._spool is not None:
            progress = {key: _sealed([event]).payload for key, event in self._running.items()}
            try:
                self.hold.append([], progress=progress)
            except HoldFull:
                self._reached["progress not kept, spool full"] += 1
            known = self._spool._known  # noqa: SLF001 - what a restart would find
            self.safe.update(event for key, event in self._running.items() if key in known)

    def _new_event(self) -> bytes:
        event = self._random.randbytes(16)
        self.truth.append(event)
        return event


def _sealed(event_ids: list[bytes]) -> SealedBatch:
    payload = UsageColumns(event_ids=b"".join(event_ids)).SerializeToString()
    return SealedBatch(payload=payload, event_count=len(event_ids))
