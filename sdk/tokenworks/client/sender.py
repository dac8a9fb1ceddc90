"""The thread that sends: it drives the session, the hold and the connection."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Event, Thread, current_thread
from typing import Final, TypeAlias

import grpc

from tokenworks.client import limits
from tokenworks.client.clock import monotonic
from tokenworks.client.connection import Address, Connection, Ended, Received
from tokenworks.client.events import DimensionKey
from tokenworks.client.intake import Intake
from tokenworks.client.notices import Notices
from tokenworks.client.retry import Backoff, no_thread
from tokenworks.client.sealing import Sealer
from tokenworks.client.session import Action, Connect, Cut, Pace, Send, Session, Wish
from tokenworks.client.spooling import OpenPlace, Place
from tokenworks.client.tally import Tally
from tokenworks.client.vocabulary import Source, State

_LOG: Final = logging.getLogger("tokenworks.client")


@dataclass(slots=True, eq=False)
class Flush:
    """Whether a wish came true, for a caller that waits."""

    reached: bool = False
    done: Event = field(default_factory=Event)

    def answer(self, *, reached: bool) -> None:
        """Let the caller go."""
        self.reached = reached
        self.done.set()


@dataclass(frozen=True, slots=True)
class _Stop:
    """No more is wanted."""


_News: TypeAlias = Received | Ended | Wish | _Stop


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a sender has done so far, in events unless it says otherwise."""

    recorded: int
    restored: int = 0
    acknowledged: int = 0
    held: int = 0
    set_aside: int = 0
    resent_batches: int = 0
    gaps: int = 0
    spool_bytes: int = 0
    spool_lost: int = 0
    is_spooling: bool = False


class Sender:
    """Takes events from the intake and sees them to the meter, on a thread of its own."""

    def __init__(
        self,
        intake: Intake,
        *,
        tally: Tally,
        address: Address,
        instance: bytes,
        defaults: DimensionKey,
        source: Source | None = None,
        open_place: OpenPlace,
        buffer_events_max: int,
        pace: Pace,
        backoff: Backoff,
        is_drain: bool = False,
    ) -> None:
        """`buffer_events_max` bounds the events in memory that are not durable yet.

        `is_drain`: stop by itself as soon as nothing is held.
        """
        self._intake = intake
        self._tally = tally
        self._address = address
        self._instance = instance
        self._open_place = open_place
        self._buffer_events_max = buffer_events_max
        self._pace = pace
        self._backoff = backoff
        self._is_drain = is_drain
        self._sealer = Sealer(intake, tally=tally, defaults=defaults, source=source)
        self._news: SimpleQueue[_News] = SimpleQueue()
        self._channel: grpc.Channel | None = None
        self._connection: Connection | None = None
        self._is_channel_used = False
        """Whether the meter has answered on this channel, whose connection ages."""
        self._certificates_time = -math.inf
        self._place: Place | None = None
        self._session: Session | None = None
        self._notices: Notices | None = None
        self._wake_time = 0.0
        self._dropped_told = 0
        self._lost_before = 0
        self._gone_count = 0
        self._end_state: State | None = None
        self._thread = Thread(target=self.run, name="tokenworks-sender", daemon=True)
        self.lost_count = 0
        """Events that were given up at the end."""

    @property
    def is_running(self) -> bool:
        """Whether the thread lives."""
        return self._thread.is_alive()

    @property
    def is_current(self) -> bool:
        """Whether it is the thread that asks."""
        return current_thread() is self._thread

    @property
    def place(self) -> Place | None:
        """Where batches lie, once the thread has opened it."""
        return self._place

    @property
    def state(self) -> State:
        """Where the client stands."""
        if self._end_state is not None:
            return self._end_state
        return State.IDLE if self._session is None else self._session.state

    @property
    def figures(self) -> Figures:
        """What was done so far."""
        session, place = self._session, self._place
        recorded = self._sealer.taken_count + self._intake.event_count
        if session is None or place is None:
            return Figures(recorded=recorded, held=recorded)
        held = place.hold.held_event_count
        stream = session.stream
        return Figures(
            recorded=recorded,
            restored=session.restored_event_count,
            acknowledged=stream.acknowledged_event_count,
            held=self._intake.event_count + held - self._gone_count,
            set_aside=stream.set_aside_event_count,
            resent_batches=stream.resent_count,
            gaps=stream.gap_count,
            spool_bytes=0 if place.spool is None else place.spool.size_bytes,
            spool_lost=place.hold.lost_event_count,
            is_spooling=place.spool is not None and place.spool.works,
        )

    def start(self) -> None:
        """Start the thread. Raises RuntimeError where the process has no room for another."""
        self._intake.room = self._buffer_events_max
        self._thread.start()

    def flush(self, *, is_for_disk: bool = False, is_patient: bool = True) -> Flush:
        """Ask for all that was recorded so far to become durable, or to be on this disk.

        `done` is set at the end; not `is_patient`: as soon as it was tried.
        """
        flush = Flush()
        self._news.put(Wish(answer=flush.answer, is_for_disk=is_for_disk, is_patient=is_patient))
        if not self.is_running:
            flush.done.set()
        return flush

    def stop(self, *, timeout_seconds: float) -> None:
        """End the thread; what is neither durable nor spooled by then is dropped."""
        self._intake.room = 0
        self._news.put(_Stop())
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)

    def run(self) -> None:
        """Do all the work; returns at the end. `start` has a thread for it."""
        is_sound = False
        try:
            self._set_up()
            assert self._session is not None
            while not self._session.is_stopped:
                self._step(self._session)
                self._take_news(self._session)
            is_sound = True
        finally:
            self._intake.room = 0
            try:
                self._put_away()
            finally:
                self._end(is_sound=is_sound)

    def _set_up(self) -> None:
        place = self._place = self._open_place()
        self._notices = Notices(
            _LOG, tally=self._tally, target=self._address.target, producer=place.producer
        )
        self._lost_before = place.hold.lost_event_count
        self._sealer.is_spooled = place.spool is not None
        self._session = Session(
            place.hold,
            producer=place.producer,
            instance=self._instance,
            pace=self._pace,
            backoff=self._backoff,
            telling=self._notices,
            now=monotonic(),
            is_on_disk=None if place.spool is None else place.spool.is_on_disk,
            doubts_when_behind=place.spool is not None,
        )

    def _take_news(self, session: Session) -> None:
        """Wait for news, no longer than until something is due, and take all there is."""
        try:
            self._take(self._news.get(timeout=max(self._wake_time - monotonic(), 0)), session)
            while True:
                self._take(self._news.get_nowait(), session)
        except Empty:
            pass

    def _take(self, news: _News, session: Session) -> None:
        if isinstance(news, Wish):
            session.wish(news)
        elif isinstance(news, _Stop):
            session.stop()
        elif news.connection is not self._connection:
            pass  # of a connection that was given up
        elif isinstance(news, Ended):
            session.ended(news.failure, monotonic())
        else:
            self._is_channel_used = True
            session.hear(news.message, monotonic())

    def _step(self, session: Session) -> None:
        now = monotonic()
        is_everything = session.is_sealing_due(now)
        self._sealer.seal(session, is_everything=is_everything)
        if is_everything:
            session.sealed(now)
        # What was dropped is counted before anybody is told that a wish did not come true.
        self._count_dropped(session)
        self._perform_all(session.advance(now))
        self._look_around(session)
        assert self._notices is not None
        self._notices.tell(now)

    def _count_dropped(self, session: Session) -> None:
        if session.dropped_event_count > self._dropped_told:
            self._tally.drop(count=session.dropped_event_count - self._dropped_told)
            self._dropped_told = session.dropped_event_count

    def _look_around(self, session: Session) -> None:
        place, notices = self._place, self._notices
        assert place is not None
        assert notices is not None
        room = self._buffer_events_max - place.memory_event_count
        self._intake.room = 0 if session.is_stopped else max(room, 0)
        if place.spool is not None:
            notices.spool_seen(place.spool, lost_before=self._lost_before)
        if self._is_drain and not place.hold.held_event_count:
            session.stop()
        self._look_at_certificates(session, notices)

    def _look_at_certificates(self, session: Session, notices: Notices) -> None:
        kept, now = self._address.certificates, monotonic()
        if kept is None or now - self._certificates_time < limits.CERTIFICATE_SECONDS:
            return
        self._certificates_time, fault = now, kept.fault
        if kept.look():
            self._is_channel_used = True
            session.renew(now)
        elif kept.fault != fault:
            notices.certificates_broken(kept.fault)

    def _perform_all(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, Send):
                assert self._connection is not None, "a session sends over what it has opened"
                self._connection.send(action.message)
            elif isinstance(action, Connect):
                self._connect(action.opening)
            elif isinstance(action, Cut):
                self._cut()
            else:
                self._wake_time = action.time

    def _connect(self, opening: bytes) -> None:
        self._connection = None
        try:
            if self._channel is not None and self._is_channel_used:
                self._channel.close()
                self._channel = None
            if self._channel is None:
                self._channel = self._address.channel()
                self._is_channel_used = False
            self._connection = Connection(
                self._channel, api_key=self._address.api_key, deliver=self._news.put
            )
        except RuntimeError as error:
            # Not closed: gRPC might wait for ever for a thread that it could not start either.
            self._channel = None
            self._news.put(Ended(connection=None, failure=no_thread(str(error))))
        else:
            self._connection.send(opening)

    def _cut(self) -> None:
        if self._connection is not None:
            self._connection.cut()
            self._connection = None

    def _put_away(self) -> None:
        """Have in the spool what is left, where there is one."""
        session = self._session
        if session is not None and self._place is not None and self._place.spool is not None:
            self._sealer.seal(session, is_everything=True)
            session.sealed(monotonic())
            self._count_dropped(session)
            self._look_around(session)

    def _end(self, *, is_sound: bool) -> None:
        """Leave nothing behind: what is not spooled is counted, waiters are let go."""
        place, session, left_count = self._place, self._session, 0
        if place is not None and session is not None:
            held = place.hold.held_event_count
            self._gone_count = held if place.spool is None else place.spool.volatile_event_count
            left_count = held - self._gone_count
            session.stop()
            self._hang_up(is_idle=not held and not self._intake.event_count)
            place.hold.close()
        self.lost_count = self._gone_count + self._sealer.give_up()
        if self._notices is not None:
            self._notices.tell(math.inf)
            self._notices.ended(self.state, lost_count=self.lost_count, left_count=left_count)
        if self.lost_count:
            self._tally.drop(count=self.lost_count)
        if self.state is not State.TAKEN_OVER:
            self._end_state = State.CLOSED if is_sound else State.FAILED
        while not self._news.empty():
            news = self._news.get_nowait()
            if isinstance(news, Wish):
                news.answer(reached=False)

    def _hang_up(self, *, is_idle: bool) -> None:
        """End the connection; in good order where nothing is left, which says goodbye."""
        if self._connection is not None and is_idle:
            self._connection.finish(timeout_seconds=limits.FINISH_SECONDS_MAX)
        else:
            self._cut()
        if self._channel is not None:
            self._channel.close()
