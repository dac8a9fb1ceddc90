"""Events that calls bring by their ids: what small calls bring at the same time is one submission.

A call of one event costs its own reading, checking and place in a group many times what the event
does. So the small calls of an API key that come while others of it are being recorded are taken
together. Lives on the event loop alone.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, field

from meter.domain.credential import Credential
from meter.domain.errors import Overloaded, Unavailable
from meter.domain.event import Origin
from meter.domain.limits import (
    GATHERED_CALL_EVENTS_MAX,
    GATHERED_SECONDS_MAX,
    KEYS_BOUNDED_MAX,
    RECORD_EVENTS_MAX,
)
from meter.sources.observation import Source
from meter.wire.observed import merged
from meter.wire.observed_counts import note_differing, note_observed, note_outcomes
from meter.wire.stream import StreamParts

# Serialized UsageEvent messages.
_Events = Sequence[bytes]


@dataclass(slots=True, kw_only=True)
class _Call:
    """A small call that waits to be recorded; the answer has an outcome for each event."""

    events: _Events
    size_bytes: int
    credential: Credential
    answer: "asyncio.Future[list[int]]"
    context: Context = field(default_factory=copy_context)


class RecordDesk:
    """Records what calls bring; small ones of one key in turns, each with all that came by then."""

    def __init__(self, parts: StreamParts) -> None:
        """Take what streams work with."""
        self._parts = parts
        self._gatherings: dict[str, _Gathering] = {}

    async def record(
        self, events: _Events, credential: Credential, *, size_bytes: int, source: int
    ) -> list[int]:
        """Return an `Outcome` number for each event of a call once all are on disk.

        Events with a `source` are reports. Raises InvalidArgument, Overloaded, Unavailable.
        """
        if source or len(events) > GATHERED_CALL_EVENTS_MAX:
            return await self._record(
                events, credential, size_bytes=size_bytes, source=source, places=None
            )
        call = _Call(
            events=events,
            size_bytes=size_bytes,
            credential=credential,
            answer=asyncio.get_running_loop().create_future(),
        )
        self._gathering_of(credential.key_id).add(call)
        return await call.answer

    async def record_calls(self, calls: Sequence[_Call]) -> list[list[int]]:
        """Record calls of one API key as one submission, and return the outcomes of each."""
        outcomes = await self._record(
            [event for call in calls for event in call.events],
            # The newest: what one key may do is judged by the accounts of now.
            calls[-1].credential,
            size_bytes=sum(call.size_bytes for call in calls),
            source=0,
            places=[place for call in calls for place in range(len(call.events))],
        )
        begin, answers = 0, []
        for call in calls:
            answers.append(outcomes[begin : begin + len(call.events)])
            begin += len(call.events)
        return answers

    async def _record(
        self,
        events: _Events,
        credential: Credential,
        *,
        size_bytes: int,
        source: int,
        places: Sequence[int] | None,
    ) -> list[int]:
        parts = self._parts
        sender = parts.bounds.of(credential.key_id).sender("")
        origin = Origin(
            account_id=credential.account_id or "",
            key_id=credential.key_id,
            received_ms=parts.clock.now_ms(),
        )
        met_count = parts.intake.met_count
        submission, checked = parts.intake.from_events(
            events, credential, origin, size_bytes=size_bytes, source=source, places=places
        )
        sender.met(parts.intake.met_count - met_count)
        result = await parts.writer.submit(submission)
        sender.known(result.known_dimension_count)
        outcomes = merged(checked.tolist(), result.outcomes)
        if source:
            who = Source(source)
            note_observed(parts.metrics, who, Counter(outcomes), now_ms=parts.clock.now_ms())
            note_differing(parts.metrics, who, result)
        else:
            note_outcomes(parts.metrics, Counter(outcomes))
        return outcomes

    def _gathering_of(self, key_id: str) -> "_Gathering":
        gathering = self._gatherings.get(key_id)
        if gathering is None:
            if len(self._gatherings) >= KEYS_BOUNDED_MAX:
                self._gatherings = {k: it for k, it in self._gatherings.items() if it.is_busy()}
            gathering = self._gatherings[key_id] = _Gathering(self)
        return gathering


class _Gathering:
    """The small calls of one API key: one turn of them is recorded at a time, whole calls each.

    A turn begins when as many wait as the last one had: while some callers' turn is committed, the
    others gather for theirs. It waits a few milliseconds at most, a caller who is alone does not.
    """

    def __init__(self, desk: RecordDesk) -> None:
        self._desk = desk
        self._waiting: list[_Call] = []
        self._usual_count = 1
        self._turn: asyncio.Task[None] | None = None
        self._patience: asyncio.TimerHandle | None = None

    def add(self, call: _Call) -> None:
        self._waiting.append(call)
        self._go_on()

    def is_busy(self) -> bool:
        return bool(self._waiting) or self._turn is not None

    def _go_on(self) -> None:
        if self._turn is not None or not self._waiting:
            return
        if len(self._waiting) >= self._usual_count:
            self._begin()
        elif self._patience is None:
            loop = asyncio.get_running_loop()
            self._patience = loop.call_later(GATHERED_SECONDS_MAX, self._begin)

    def _begin(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        calls, self._waiting = _first_of(self._waiting)
        self._usual_count = len(calls)
        # In the first call's context: what is traced and logged is of a call that is in it.
        self._turn = asyncio.get_running_loop().create_task(
            self._record(calls), context=calls[0].context
        )
        self._turn.add_done_callback(self._ended)

    def _ended(self, _turn: "asyncio.Task[None]") -> None:
        self._turn = None
        self._go_on()

    async def _record(self, calls: Sequence[_Call]) -> None:
        """Answer each call; where what one of them brings is at fault, the others are recorded."""
        recording = asyncio.ensure_future(self._desk.record_calls(calls))
        await asyncio.wait([recording])
        fault = recording.exception()
        if fault is None:
            for call, outcomes in zip(calls, recording.result(), strict=True):
                if not call.answer.done():
                    call.answer.set_result(outcomes)
        elif len(calls) == 1 or isinstance(fault, Overloaded | Unavailable):
            for call in calls:
                if not call.answer.done():
                    call.answer.set_exception(fault)
        else:
            await asyncio.gather(*(self._record([call]) for call in calls))


def _first_of(waiting: list[_Call]) -> tuple[list[_Call], list[_Call]]:
    """Return the calls of the next turn, as many events as one call may have, and the others."""
    event_count = 0
    for place, call in enumerate(waiting):
        event_count += len(call.events)
        if event_count > RECORD_EVENTS_MAX:
            return waiting[:place], waiting[place:]
    return waiting, []
