"""The meter's side: the product's session, rules and group commit over a simulated store."""

import hashlib
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from random import Random

import numpy as np

from meter.domain.errors import MeterError, Reason
from meter.domain.event import Dimensions, DimensionTable, EventBatch, Origin, SetAside
from meter.domain.outcome import Outcome
from meter.journal.commit import Result, Submission, commit_group
from meter.journal.durability import Horizon, Sight
from meter.journal.protocol import DIGEST_BYTES
from meter.journal.session import Ack, Mark, Opened, Seen, StreamSession
from tests.simulation.store import SimulatedStore
from tokenworks.client import messages
from tokenworks.client.retry import BROKEN, Failure, Fate
from tokenworks.meter.v1.meter_service_pb2 import StreamUsageRequest

_IN_FLIGHT_MAX = 4
_NOW_MS = 1_800_000_000_000
_TAKEN_OVER = Failure(fate=Fate.STOP, code="FAILED_PRECONDITION", reason="", detail="")


@dataclass(eq=False)
class Connection:
    """Two pipes between a producer and the meter; what is in them may never arrive."""

    to_meter: deque[bytes] = field(default_factory=deque)
    to_producer: deque[messages.Message] = field(default_factory=deque)
    failure: Failure | None = None
    """How it ended, for the producer to hear."""
    session: StreamSession | None = None
    key: tuple[str, str] = ("", "")
    instance: bytes = b""
    marked: Mark | None = None
    """What the last round of presence has marked and not looked up yet."""

    @property
    def is_open(self) -> bool:
        """Whether anything may still pass."""
        return self.failure is None

    def end(self, failure: Failure = BROKEN) -> None:
        """Drop what is under way."""
        if self.failure is None:
            self.failure = failure
        self.to_meter.clear()


class SimulatedMeter:
    """A server process: loses its memory in a crash, never what it has committed."""

    def __init__(
        self, store: SimulatedStore, random: Random, *, standby: bool, reached: Counter[str]
    ) -> None:
        """Take the store; with a `standby`, durable is what that has."""
        self._store = store
        self._random = random
        self._reached = reached
        self._table = DimensionTable()
        self._table.intern(
            Dimensions(
                account="a", model="m", served_model="", tier="t", mode=1, pool="", region=""
            )
        )
        self._waiting: list[tuple[Connection, int, Submission | None]] = []
        self.horizon = Horizon(["s"]) if standby else None
        self.standby_position = 0
        self.line = 0
        self.connections: list[Connection] = []

    def crash(self) -> None:
        """Forget everything; connections break."""
        self._reached["meter crashes"] += 1
        for connection in self.connections:
            connection.end()
        self.connections.clear()
        self._waiting.clear()
        if self.horizon is not None:
            self.horizon = Horizon(["s"])

    def look_at_standby(self) -> None:
        """Do a round of looking how far the standby is."""
        if self.horizon is None:
            return
        number = self.horizon.begin()
        sight = Sight(
            line=str(self.line),
            position=self._store.commit_number,
            flushed={"s": self.standby_position},
        )
        self.horizon.take(number, sight)

    def read(self, connection: Connection) -> None:
        """Take the next message of a connection."""
        raw = connection.to_meter.popleft()
        message = StreamUsageRequest.FromString(raw)
        kind = message.WhichOneof("message")
        if kind == "open":
            self._open(connection, message)
        elif connection.session is None:
            connection.end()
        elif kind == "heartbeat":
            connection.session.heard(message.heartbeat.last_sequence)
            self._waiting.append((connection, 0, None))
        else:
            batch = message.batch
            origin = Origin(
                account_id=connection.key[0],
                key_id="k",
                received_ms=_NOW_MS,
                producer=connection.key[1],
                instance=connection.instance,
                sequence=batch.sequence,
                digest=hashlib.sha256(raw).digest()[:DIGEST_BYTES],
            )
            events = self._events(batch.columns.event_ids)
            submission = Submission(origin=origin, batch=events, whole=raw)
            if batch.is_doubtful:
                self._reached["doubtful batches"] += 1
                aside = SetAside(index=-1, outcome=Outcome.BATCH_DOUBTFUL, payload=raw)
                submission = replace(submission, batch=self._events(b""), set_aside=(aside,))
            self._waiting.append((connection, batch.sequence, submission))

    def commit(self) -> None:
        """Record what waits as one group, and answer it."""
        waiting, self._waiting = self._waiting, []
        waiting = [item for item in waiting if item[0].is_open]
        group = [submission for _, _, submission in waiting if submission is not None]
        try:
            results = iter(commit_group(self._store, group, now_ms=lambda: _NOW_MS))
        except MeterError:
            for connection, _, submission in waiting:
                if submission is not None:
                    connection.end()
            return
        for connection, sequence, submission in waiting:
            result = None if submission is None else next(results)
            if connection.is_open:
                self._answer(connection, sequence, result)

    def mark(self) -> None:
        """Begin a round of presence: note what each stream was told."""
        for connection in self.connections:
            if connection.session is not None and connection.is_open:
                connection.marked = connection.session.mark()

    def look(self) -> None:
        """End the round: compare it with what the database has."""
        contents = self._store.contents
        for connection in self.connections:
            mark, connection.marked = connection.marked, None
            if mark is None or connection.session is None or not connection.is_open:
                continue
            state = contents.producers.get(connection.key)
            found = None
            if state is not None:
                is_known = (connection.key, connection.instance) in contents.instances
                found = Seen(instance=state.instance, sequence=state.sequence, is_known=is_known)
            try:
                opened = connection.session.seen(mark, found)
            except MeterError as error:
                self._fail(connection, error)
                continue
            if opened is not None:
                self._reached["idle streams called back"] += 1
                self._send(connection, opened)

    def _open(self, connection: Connection, message: StreamUsageRequest) -> None:
        opening = message.open
        connection.key, connection.instance = ("", opening.producer), opening.instance
        session = StreamSession(
            producer=opening.producer, instance=opening.instance, horizon=self.horizon
        )
        try:
            state = self._store.open_producer(
                connection.key, opening.instance, opening.first_sequence, opening.missing_from
            )
            opened = session.opened(state)
        except MeterError as error:
            self._fail(connection, error)
            return
        connection.session = session
        self._send(connection, opened)

    def _answer(
        self, connection: Connection, sequence: int, result: Result | MeterError | None
    ) -> None:
        session = connection.session
        assert session is not None
        try:
            if result is None:
                answer: Opened | Ack | None = session.beat()
            elif isinstance(result, MeterError):
                is_known = (connection.key, connection.instance) in self._store.contents.instances
                raise session.fenced(is_known=is_known)
            else:
                answer = session.answer(sequence, result)
        except MeterError as error:
            self._fail(connection, error)
            return
        if answer is not None:
            self._reached["holes"] += isinstance(answer, Opened)
            self._send(connection, answer)

    def _fail(self, connection: Connection, error: MeterError) -> None:
        is_fenced = error.reason is Reason.PRODUCER_TAKEN_OVER
        self._reached["fences"] += is_fenced
        connection.end(_TAKEN_OVER if is_fenced else BROKEN)

    def _send(self, connection: Connection, answer: Opened | Ack) -> None:
        if isinstance(answer, Opened):
            connection.to_producer.append(
                messages.Opened(next_sequence=answer.next_sequence, in_flight_max=_IN_FLIGHT_MAX)
            )
            return
        changed = Outcome.BATCH_CHANGED
        is_changed = any(item.outcome == changed for item, _ in answer.set_aside)
        self._reached["changed batches"] += is_changed
        connection.to_producer.append(
            messages.Acknowledged(
                sequence=answer.sequence,
                durable_sequence=answer.durable_sequence,
                set_aside_count=len(answer.set_aside),
                is_changed=is_changed,
            )
        )

    def _events(self, event_ids: bytes) -> EventBatch:
        count = len(event_ids) // 16
        return EventBatch(
            table=self._table,
            dimension=np.zeros(count, np.int64),
            end_ms=np.full(count, _NOW_MS, np.int64),
            tokens={1: np.ones(count, np.int64)},
            event_ids=np.frombuffer(event_ids, np.uint8).reshape(-1, 16),
        )
