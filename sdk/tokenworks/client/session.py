"""The sender's decisions, without threads, sockets, clocks or files.

Whoever drives it tells it the time (seconds of any clock that never goes back), what the meter
said, how a connection ended and which batches are sealed; it answers with actions to carry out in
their order. Batches lie in a `Hold`, which it asks directly; a hold is a port too.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

from tokenworks.client import limits
from tokenworks.client.hold import DiskFault, Hold, HoldFull, SpooledBatch
from tokenworks.client.messages import (
    Acknowledged,
    Message,
    Opened,
    batch_message,
    heartbeat_message,
    open_message,
    salted,
)
from tokenworks.client.retry import (
    DISAGREED,
    FORKED,
    OVERTAKEN,
    RENEWED,
    SILENT,
    UNWRITTEN,
    WITH_HOLE,
    Backoff,
    Failure,
    Fate,
)
from tokenworks.client.stream import UsageStream, Verdict
from tokenworks.client.vocabulary import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Connect:
    """Open a connection and send this first; one that was open before is gone."""

    opening: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Send a serialised message over the connection."""

    message: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """End the connection; nothing that still comes from it counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wake:
    """Advance again at this time, or sooner when there is news."""

    time: float


Action: TypeAlias = Connect | Send | Cut | Wake


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often things happen, in seconds."""

    flush_interval: float = limits.FLUSH_INTERVAL_SECONDS_DEFAULT
    heartbeat_min: float = limits.HEARTBEAT_SECONDS_MIN
    heartbeat_idle: float = limits.HEARTBEAT_IDLE_SECONDS
    silence_max: float = limits.SILENCE_SECONDS_MAX


class Telling(Protocol):
    """Hears what an operator should know."""

    def state_entered(self, state: State, failure: Failure | None) -> None:
        """Hear where the client stands now, and why."""

    def events_set_aside(self, *, outcomes: Sequence[str], count: int) -> None:
        """Hear that events are in quarantine; `count` is their sum so far."""


class Answer(Protocol):
    """Hears whether a wish came true."""

    def __call__(self, *, reached: bool) -> None:
        """Hear it, once."""


@dataclass(slots=True, kw_only=True, eq=False)
class Wish:
    """That all which was recorded so far becomes durable at the meter, or safe on this disk."""

    answer: Answer
    """Called once: whether it came true."""
    is_for_disk: bool = False
    is_patient: bool = True
    """False: answer at the first look, however things stand."""
    target: int | None = None
    """Set by the session: up to this local number; None until all recorded is sealed."""


class Session:
    """One start of a producer's sender."""

    def __init__(
        self,
        hold: Hold,
        *,
        producer: str,
        instance: bytes,
        pace: Pace,
        backoff: Backoff,
        telling: Telling,
        now: float,
        is_on_disk: Callable[[int], bool] | None = None,
        doubts_when_behind: bool = False,
    ) -> None:
        """`is_on_disk` says of a local number whether all up to it survives the process.

        None: nothing does before it is durable at the meter. `doubts_when_behind` is as in
        `UsageStream`. What the hold has recovered of running reports is taken up here, as their
        last word.
        """
        self._hold = hold
        self._producer = producer
        self._instance = instance
        self._pace = pace
        self._backoff = backoff
        self._telling = telling
        self._is_on_disk = is_on_disk
        self._wishes: list[Wish] = []
        self._actions: list[Action] = []
        self._sealed_time = self._retry_time = self._heard_time = self._heartbeat_time = now
        self._is_connected = False
        self._is_spoiled = False
        """Something was dropped since wishes were last answered."""
        self.stream = UsageStream(hold, doubts_when_behind=doubts_when_behind)
        self.state = State.IDLE
        self.is_stopped = False
        """Nothing is sent any more; for good."""
        self.dropped_event_count = 0
        """Events that found no room in the hold."""
        if hold.recovered:
            # A copy of this spool finds the same reports: the batches must not look the same too.
            self.take(
                [
                    SpooledBatch(
                        batch=replace(last, payload=salted(last.payload, salt=instance)),
                        settles=(key,),
                    )
                    for key, last in hold.recovered
                ]
            )
        self.restored_event_count = hold.held_event_count
        """Events that an earlier start had left."""

    @property
    def _is_spooled(self) -> bool:
        return self._is_on_disk is not None

    def wish(self, wish: Wish) -> None:
        """Take a wish; it is answered by `advance`, or by `stop`."""
        self._wishes.append(wish)

    def is_sealing_due(self, now: float) -> bool:
        """Whether all that is recorded should be sealed and taken now, not only full batches.

        On disk events are safe, so they go there each interval; in memory they wait for others to
        share their batch until it could leave.
        """
        if any(wish.target is None for wish in self._wishes):
            return True
        elapsed = now - self._sealed_time >= self._pace.flush_interval
        return elapsed and (self._is_spooled or self.stream.has_room)

    def take(
        self, batches: Sequence[SpooledBatch], *, progress: Mapping[int, bytes] | None = None
    ) -> None:
        """Take sealed batches over, and what is known of running reports (see `Hold.append`)."""
        held_before, lost_before = self._hold.held_event_count, self._hold.lost_event_count
        try:
            self._hold.append(batches, progress=progress or {})
        except (HoldFull, DiskFault):
            kept = max(self._hold.held_event_count - held_before, 0)
            given = sum(spooled.batch.event_count for spooled in batches)
            self.dropped_event_count += given - kept
            self._is_spoiled = self._is_spoiled or bool(batches)
        if self._hold.lost_event_count > lost_before:
            self._is_spoiled = True

    def sealed(self, now: float) -> None:
        """Note that all which was recorded before `is_sealing_due` was asked has been taken."""
        self._sealed_time = now
        for wish in self._wishes:
            if wish.target is None:
                wish.target = self._hold.next - 1

    def hear(self, message: Message | None, now: float) -> None:
        """Take a message of the meter; None is one that says nothing but that it is there."""
        if not self._is_connected:
            return  # Said over a connection that was given up.
        self._heard_time = now
        try:
            verdict = self._verdict(message)
        except DiskFault:
            self._disconnect(UNWRITTEN, now)
            return
        if verdict is Verdict.REOPEN:
            self._disconnect(WITH_HOLE if self.stream.must_reopen else DISAGREED, now)
        elif verdict is Verdict.TAKEN_OVER:
            self._disconnect(OVERTAKEN, now)
        elif verdict is Verdict.FORKED:
            self._disconnect(FORKED, now)

    def ended(self, failure: Failure, now: float) -> None:
        """Note that the connection is gone."""
        if self._is_connected:
            self._disconnect(failure, now)

    def renew(self, now: float) -> None:
        """Come anew, and soon: what the client shows the meter has changed."""
        if self._is_connected:
            self._disconnect(RENEWED, now)
        else:
            self._retry_time = now

    def advance(self, now: float) -> Sequence[Action]:
        """Do what is due; returns what is to be carried out, at the end when to come again."""
        if not self.is_stopped:
            if not self._is_connected:
                if now >= self._retry_time:
                    self._connect(now)
            elif now - self._heard_time >= self._pace.silence_max:
                self._disconnect(SILENT, now)
            self._transmit(now)
            self._beat(now)
        self._answer_wishes()
        actions, self._actions = self._actions, []
        if not self.is_stopped:
            actions.append(Wake(time=self._wake_time(now)))
        return actions

    def stop(self) -> None:
        """Send nothing any more, and let go of whoever waits."""
        self.is_stopped = True
        self._answer_wishes()
        self._refuse_wishes()

    def _verdict(self, message: Message | None) -> Verdict:
        if isinstance(message, Opened):
            verdict = self.stream.opened(
                next_sequence=message.next_sequence, in_flight_max=message.in_flight_max
            )
            if verdict is Verdict.CONTINUE:
                self._enter(State.STREAMING)
            return verdict
        if isinstance(message, Acknowledged):
            return self._acknowledge(message)
        return Verdict.CONTINUE

    def _acknowledge(self, ack: Acknowledged) -> Verdict:
        verdict = self.stream.acknowledged(
            sequence=ack.sequence,
            durable_sequence=ack.durable_sequence,
            set_aside_count=ack.set_aside_count,
            is_changed=ack.is_changed,
        )
        self._backoff.succeeded()
        if ack.set_aside_count:
            self._telling.events_set_aside(
                outcomes=ack.outcomes, count=self.stream.set_aside_event_count
            )
        return verdict

    def _connect(self, now: float) -> None:
        if self.state is State.IDLE:
            self._enter(State.CONNECTING)
        self._heard_time = now
        self._is_connected = True
        opening = open_message(
            producer=self._producer,
            instance=self._instance,
            first_sequence=self.stream.connect(),
            missing_from=self.stream.missing_from,
        )
        self._actions.append(Connect(opening=opening))

    def _disconnect(self, failure: Failure, now: float) -> None:
        if self._is_connected:
            self._is_connected = False
            self._actions.append(Cut())
        self.stream.disconnect()
        if failure.fate is Fate.STOP:
            self._enter(State.TAKEN_OVER, failure)
            self.is_stopped = True
            return
        slowly = failure.fate is Fate.RETRY_SLOWLY
        # The meter ends each stream after some minutes: it is no trouble before the next one fails.
        is_planned = failure.code == "OK" and self.state is State.STREAMING
        away = State.CONNECTING if is_planned else State.WAITING
        self._enter(State.REFUSED if slowly else away, failure)
        self._retry_time = now + self._backoff.seconds_after(failure)

    def _transmit(self, now: float) -> None:
        if not self._is_connected:
            return
        try:
            while (numbered := self.stream.next_batch()) is not None:
                self._actions.append(Send(message=batch_message(numbered)))
        except DiskFault:
            return  # It is tried again at the next turn.
        if self.stream.must_reopen and self.stream.is_open:
            self._disconnect(WITH_HOLE, now)

    def _beat(self, now: float) -> None:
        """Ask for the state of things: soon while something is held, else to see if all is well."""
        if self._can_beat and now >= self._beat_time:
            self._heartbeat_time = now
            message = heartbeat_message(last_sequence=self.stream.last_sequence)
            self._actions.append(Send(message=message))

    @property
    def _can_beat(self) -> bool:
        return self._is_connected and self.stream.is_open and not self.stream.is_comparing

    @property
    def _beat_time(self) -> float:
        if self._hold.held_event_count:
            return self._heartbeat_time + self._pace.heartbeat_min
        return max(self._heartbeat_time, self._heard_time) + self._pace.heartbeat_idle

    def _wake_time(self, now: float) -> float:
        """When something is due next; nothing that waits for news alone is."""
        seal_time = self._sealed_time + self._pace.flush_interval
        times = [seal_time if seal_time > now else now + self._pace.flush_interval]
        if self._is_connected:
            times.append(self._heard_time + self._pace.silence_max)
        else:
            times.append(self._retry_time)
        if self._can_beat:
            times.append(self._beat_time)
        return max(min(times), now)

    def _answer_wishes(self) -> None:
        if self._is_spoiled:
            self._is_spoiled = False
            self._refuse_wishes()
        waiting = []
        for wish in self._wishes:
            if wish.target is None:
                waiting.append(wish)
            elif self._has_come_true(wish, wish.target):
                wish.answer(reached=True)
            elif wish.is_patient:
                waiting.append(wish)
            else:
                wish.answer(reached=False)
        self._wishes = waiting

    def _has_come_true(self, wish: Wish, target: int) -> bool:
        if self.stream.settled >= target:
            return True
        return wish.is_for_disk and self._is_on_disk is not None and self._is_on_disk(target)

    def _refuse_wishes(self) -> None:
        for wish in self._wishes:
            wish.answer(reached=False)
        self._wishes.clear()

    def _enter(self, state: State, failure: Failure | None = None) -> None:
        if state is not self.state:
            self.state = state
            self._telling.state_entered(state, failure)
