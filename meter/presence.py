"""Who is there: writes when producers were heard, and looks whether the database still agrees.

One statement every two seconds for all open streams of this server, whatever they say. What it
finds on the way ends a stream that a newer instance has followed, and calls one back whose
database has lost what was acknowledged, though neither says anything.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from meter.domain.errors import MeterError
from meter.domain.event import Origin
from meter.domain.limits import (
    ACCOUNT_PRODUCERS_MAX,
    OPENINGS_ALONE_MAX,
    OPENINGS_TOGETHER_MAX,
    PRESENCE_ROWS_MAX,
)
from meter.gathering import Gathering
from meter.journal.protocol import ProducerState
from meter.journal.session import Mark, Seen
from meter.metrics import Metrics
from meter.producers import Opening, Presence, ProducerPort, Standing, Summary

_log = logging.getLogger(__name__)
_NOBODY: Final = Summary(counts={}, hearings={}, backlog_count=0, missing_count=0, seen={})


@dataclass(frozen=True, slots=True, kw_only=True)
class Attendance:
    """An open stream at some moment; `heard_time` is that of its last message, monotonic."""

    account_id: str
    producer: str
    instance: bytes
    announced_sequence: int
    heard_time: float
    mark: Mark

    @property
    def name(self) -> tuple[str, str]:
        """Account and producer."""
        return (self.account_id, self.producer)

    @property
    def key(self) -> tuple[str, str, bytes]:
        """By what the database's answer is found."""
        return (self.account_id, self.producer, self.instance)


class OpenStream(Protocol):
    """A stream as this module sees it; called on the event loop."""

    def attendance(self) -> Attendance:
        """Return what it has heard and acknowledged by now."""
        ...

    def seen(self, mark: Mark, found: Seen | None) -> None:
        """Take what was found after the mark was taken."""
        ...


class ShownProducers:
    """How all producers stand, in the metrics."""

    def __init__(self, metrics: Metrics) -> None:
        """Take the metrics."""
        self._metrics = metrics
        self._shown: set[tuple[str, str]] = set()

    def show(self, summary: Summary) -> None:
        """Set the gauges; a producer that is no longer expected has no last sign of life."""
        metrics = self._metrics
        for standing in Standing:
            state = standing.name.lower()
            metrics.producers.labels(state).set(summary.counts.get(standing, 0))
        metrics.producers_silent.set(summary.hearing().silent_count)
        metrics.producer_backlog.set(summary.backlog_count)
        metrics.batches_missing.set(summary.missing_count)
        for gone in self._shown - summary.seen.keys():
            metrics.producer_seen.remove(*gone)
        for name, seen_ms in summary.seen.items():
            metrics.producer_seen.labels(*name).set((seen_ms or 0) / 1000)
        self._shown = set(summary.seen)


class Roster:
    """The open streams of this server; all but the store runs on the event loop."""

    def __init__(
        self,
        store: ProducerPort,
        *,
        silence_seconds: float | None,
        monotonic_seconds: Callable[[], float],
        on_summary: Callable[[Summary], None],
    ) -> None:
        """Take the store; `silence_seconds` None calls nobody silent, as on a driven clock.

        `monotonic_seconds` are those of the installation: on a driven clock they stand with it, or
        whoever was cut off would be heard at the time to which it leaps. `on_summary` hears how all
        producers stand, after each round.
        """
        self._store = store
        self._silence_seconds = silence_seconds
        self._monotonic_seconds = monotonic_seconds
        self._on_summary = on_summary
        # Streams, and up to when each was heard according to the database.
        self._streams: dict[OpenStream, float] = {}
        self._by_name: dict[tuple[str, str], set[OpenStream]] = {}
        self._parted: dict[tuple[str, str], Attendance] = {}
        self._writing = asyncio.Lock()
        self._openings = Gathering(
            self._open_together,
            self._open_alone,
            key_of=lambda opening: opening.origin.producer_key,
            size_max=OPENINGS_TOGETHER_MAX,
            alone_max=OPENINGS_ALONE_MAX,
        )
        self._endings = Gathering(
            self._end_together,
            self._end_alone,
            key_of=lambda origin: origin.producer_key,
            size_max=OPENINGS_TOGETHER_MAX,
            alone_max=1,
        )
        self._attentive_since: float | None = None
        self.summary = _NOBODY
        """How all producers stood in the last round."""

    def now_seconds(self) -> float:
        """Return the time by which streams say when they were heard."""
        return self._monotonic_seconds()

    async def open(
        self, origin: Origin, *, first_sequence: int, missing_from: int
    ) -> ProducerState:
        """Make an instance its producer's newest and return the state, as the store does.

        All that wait are opened together. Raises Overloaded where the account has no room for a
        new producer, Unavailable when the database is away.
        """
        opening = Opening(origin=origin, first_sequence=first_sequence, missing_from=missing_from)
        return await self._openings.ask(opening)

    def join(self, stream: OpenStream) -> None:
        """Watch a stream that has just opened."""
        attendance = stream.attendance()
        self._streams[stream] = attendance.heard_time
        self._by_name.setdefault(attendance.name, set()).add(stream)

    def leave(self, stream: OpenStream) -> None:
        """Watch it no more; what it said last is still written."""
        if not self._remove(stream) or len(self._parted) >= PRESENCE_ROWS_MAX:
            return
        attendance = stream.attendance()
        before = self._parted.get(attendance.name)
        if before is not None and before.instance == attendance.instance:
            # The same process over an earlier connection.
            announced = max(before.announced_sequence, attendance.announced_sequence)
            attendance = replace(attendance, announced_sequence=announced)
        self._parted[attendance.name] = attendance

    async def end(self, stream: OpenStream, origin: Origin) -> None:
        """Note that a stream has ended in good order: its producer is retired."""
        self._remove(stream)
        attendance = stream.attendance()
        before = self._parted.get(attendance.name)
        if before is not None and (before.announced_sequence <= attendance.mark.recorded_sequence):
            # A connection that broke before: written later, it would undo the goodbye.
            del self._parted[attendance.name]
        try:
            await self._endings.ask(origin)
        except MeterError as error:
            # It will be called silent, which a person can settle; nothing is lost.
            _log.warning(
                "goodbye_not_written",
                extra={"producer": origin.producer, "fault": str(error), "cause": error.cause},
            )

    def has_open(self, account_id: str, producer: str) -> bool:
        """Tell whether a producer has an open stream here."""
        return (account_id, producer) in self._by_name

    def has_room(self, account_id: str) -> bool:
        """Tell whether an account may have one more producer, by the last round's count."""
        hearing = self.summary.hearings.get(account_id)
        return hearing is None or hearing.expected_count < ACCOUNT_PRODUCERS_MAX

    def announced_sequence(self, account_id: str, producer: str) -> int:
        """Return the highest number that a producer announced here and that may be unwritten."""
        name = (account_id, producer)
        heard = [stream.attendance() for stream in self._by_name.get(name, ())]
        heard += [self._parted[name]] if name in self._parted else []
        return max((each.announced_sequence for each in heard), default=0)

    def silence_ms(self) -> int | None:
        """Return for how long a producer may be unheard; None while nobody is called silent.

        That is so until this server has been attentive for as long itself: after its start, and
        after the database was away, when it is we who have not listened.
        """
        bound, since = self._silence_seconds, self._attentive_since
        if bound is None or since is None or self._monotonic_seconds() - since <= bound:
            return None
        return round(bound * 1000)

    async def round(self) -> None:
        """Write who was heard, tell each stream what was found, and add all producers up.

        A database that is away makes this round the less, nothing more.
        """
        try:
            async with self._writing:
                await self._write()
            if self._attentive_since is None:
                self._attentive_since = self._monotonic_seconds()
            summary = await asyncio.to_thread(self._store.summarize, silence_ms=self.silence_ms())
        except MeterError:
            self._attentive_since = None
            _log.debug("presence_skipped")
            return
        self.summary = summary
        self._on_summary(summary)

    async def _open_together(self, asked: Sequence[Opening]) -> Sequence[ProducerState | None]:
        openings = [self._heard(each) for each in asked]
        return await asyncio.to_thread(self._store.open_producers, openings)

    async def _open_alone(self, asked: Opening) -> ProducerState:
        opening = self._heard(asked)
        return await asyncio.to_thread(
            self._store.open_producer,
            opening.origin,
            first_sequence=opening.first_sequence,
            missing_from=opening.missing_from,
            announced_sequence=opening.announced_sequence,
            may_be_new=opening.may_be_new,
        )

    def _heard(self, asked: Opening) -> Opening:
        """Add what is known here by now: until its turn it may have announced more."""
        account_id, producer = asked.origin.producer_key
        return replace(
            asked,
            announced_sequence=self.announced_sequence(account_id, producer),
            may_be_new=self.has_room(account_id),
        )

    async def _end_together(self, origins: Sequence[Origin]) -> Sequence[bool | None]:
        # A round under way has seen them open, and would make them active again.
        async with self._writing:
            return await asyncio.to_thread(self._store.end_producers, origins)

    async def _end_alone(self, origin: Origin) -> bool:
        async with self._writing:
            await asyncio.to_thread(self._store.end_producer, origin)
        return True

    async def _write(self) -> None:
        now = self._monotonic_seconds()
        # What was acknowledged is noted before the database is asked: it can only have more.
        present = [(stream, stream.attendance()) for stream in self._streams]
        parted = list(self._parted.values())
        told: dict[tuple[str, str, bytes], Presence] = {}
        for each in parted:
            _add(told, each, heard_seconds=now - each.heard_time)
        for stream, each in present:
            is_news = each.heard_time > self._streams[stream]
            _add(told, each, heard_seconds=now - each.heard_time if is_news else None)
        found: dict[tuple[str, str, bytes], Seen] = {}
        rows = list(told.values())
        for begin in range(0, len(rows), PRESENCE_ROWS_MAX):
            chunk = rows[begin : begin + PRESENCE_ROWS_MAX]
            found |= await asyncio.to_thread(self._store.write_presences, chunk)
        for each in parted:
            sight = found.get(each.key)
            is_told = sight is None or sight.is_told
            if is_told and self._parted.get(each.name) is each:
                del self._parted[each.name]
        for stream, each in present:
            if stream in self._streams:
                sight = found.get(each.key)
                if sight is None or sight.is_told:
                    self._streams[stream] = each.heard_time
                stream.seen(each.mark, sight)

    def _remove(self, stream: OpenStream) -> bool:
        if self._streams.pop(stream, None) is None:
            return False
        name = stream.attendance().name
        streams = self._by_name[name]
        streams.discard(stream)
        if not streams:
            del self._by_name[name]
        return True


def _add(
    told: dict[tuple[str, str, bytes], Presence],
    each: Attendance,
    *,
    heard_seconds: float | None,
) -> None:
    """Add a stream; a producer that was cut off may have two of one instance for a while."""
    other = told.get(each.key)
    ages = [heard_seconds, None if other is None else other.heard_seconds]
    told[each.key] = Presence(
        account_id=each.account_id,
        producer=each.producer,
        instance=each.instance,
        announced_sequence=max(
            each.announced_sequence, 0 if other is None else other.announced_sequence
        ),
        heard_seconds=min((age for age in ages if age is not None), default=None),
    )
