"""What one API key, and one producer, may take of a server: so that others have their share.

Who goes too fast is held back first, as a full buffer does it, and refused after that: RESOURCE_
EXHAUSTED with OVERLOADED, the bound's name in the metadata. Lives on the event loop alone.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Final

from meter.domain import limits
from meter.domain.errors import Overloaded, Reason
from meter.domain.pace import Pace
from meter.metrics import Metrics

_log = logging.getLogger(__name__)
# A key's reaching of a bound is logged once in so many seconds.
_TOLD_SECONDS: Final = 60.0


class Bound(StrEnum):
    """What somebody has too many of; the names are the metric's."""

    CALLS = "calls"
    EVENTS = "events"
    STREAMS = "streams"
    OPENINGS = "openings"
    PRODUCERS = "producers"
    BATCHES = "batches"
    DIMENSIONS = "dimensions"


class Sender:
    """What one producer of a key may do; a key's calls are a sender, too."""

    def __init__(self, share: "Share") -> None:
        """Begin with nothing taken."""
        now = share.now_seconds()
        self._share = share
        self._messages = Pace(
            per_second=limits.PRODUCER_BATCHES_SECOND_MAX,
            burst_max=limits.PRODUCER_BATCHES_SECOND_MAX,
            now_seconds=now,
        )
        self._news = dimension_pace(now)

    async def message(self) -> None:
        """Let the next message of its stream in, at its pace."""
        wait = self._messages.take(1, now_seconds=self._share.now_seconds())
        if wait > 0:
            self._share.note(Bound.BATCHES)
            await asyncio.sleep(wait)

    async def news(self) -> None:
        """Hold back who brings new dimensions while its key has brought too many.

        Raises Overloaded. Other producers of the key, who bring none, go on.
        """
        wait = self.news_wait()
        if wait > 0:
            self._share.note(Bound.DIMENSIONS)
            await asyncio.sleep(min(wait, limits.HOLD_SECONDS_MAX))
            if wait > limits.HOLD_SECONDS_MAX:
                raise self._share.reached(Bound.DIMENSIONS)

    def news_wait(self) -> float:
        """Return for how many seconds `news` would hold it."""
        now = self._share.now_seconds()
        wait = self._share.dimensions.wait_seconds(now)
        return 0.0 if wait <= 0 or self._news.is_full(now) else wait

    def met(self, count: int) -> None:
        """Charge dimensions that were new to this server."""
        if count:
            now = self._share.now_seconds()
            self._news.take(count, now_seconds=now)
            self._share.dimensions.take(count, now_seconds=now)

    def known(self, count: int) -> None:
        """Give back those of them that the database had."""
        if count:
            self._news.give_back(count)
            self._share.dimensions.give_back(count)

    def is_at_rest(self, now_seconds: float) -> bool:
        """Tell whether it may be forgotten."""
        return self._messages.is_full(now_seconds) and self._news.is_full(now_seconds)


class Share:
    """What one API key has taken of this server and not given back."""

    def __init__(self, key_id: str, *, bounds: "Bounds") -> None:
        """Begin with nothing taken."""
        self._key_id = key_id
        self._bounds = bounds
        self.now_seconds = bounds.now_seconds
        now = self.now_seconds()
        calls = bounds.calls_per_second_max
        self._calls = Pace(per_second=calls, burst_max=calls, now_seconds=now)
        self._openings = Pace(
            per_second=limits.KEY_OPENINGS_SECOND_MAX,
            burst_max=limits.KEY_STREAMS_MAX,
            now_seconds=now,
        )
        self.dimensions = dimension_pace(now)
        self._senders: dict[str, Sender] = {}
        self._turns = asyncio.Semaphore(limits.KEY_CALLS_AT_ONCE_MAX)
        self._doors = asyncio.Semaphore(limits.KEY_OPENINGS_AT_ONCE_MAX)
        self._room = asyncio.Condition()
        self._call_count = self._stream_count = self._event_count = self._held_count = 0

    def sender(self, producer: str) -> Sender:
        """Return what a producer may do; "" stands for the key's calls."""
        sender = self._senders.get(producer)
        if sender is None:
            if len(self._senders) >= limits.KEY_STREAMS_MAX:
                now = self.now_seconds()
                self._senders = {k: it for k, it in self._senders.items() if not it.is_at_rest(now)}
            sender = self._senders[producer] = Sender(self)
        return sender

    @asynccontextmanager
    async def call(self) -> AsyncIterator[None]:
        """Let one call in, in its turn; raises Overloaded."""
        is_crowded = self._call_count >= limits.KEY_CALLS_WAITING_MAX
        self._call_count += 1
        try:
            await self._take_turn(is_over=is_crowded)
            if is_crowded:
                raise self.reached(Bound.CALLS)
            async with self._turns:
                yield
        finally:
            self._call_count -= 1

    @asynccontextmanager
    async def events(self, count: int) -> AsyncIterator[None]:
        """Have a call's events worked on when there is room for them; raises Overloaded."""
        if not self._has_room(count):
            self.note(Bound.EVENTS)
            self._held_count += 1
            try:
                async with asyncio.timeout(limits.HOLD_SECONDS_MAX), self._room:
                    await self._room.wait_for(lambda: self._has_room(count))
            except TimeoutError as error:
                raise self.reached(Bound.EVENTS) from error
            finally:
                self._held_count -= 1
        self._event_count += count
        try:
            yield
        finally:
            self._event_count -= count
            if self._held_count:
                async with self._room:
                    self._room.notify_all()

    @asynccontextmanager
    async def stream(self) -> AsyncIterator[None]:
        """Hold one stream open, which begins in its turn as a call does; raises Overloaded."""
        await self._take_turn(is_over=self._stream_count >= limits.KEY_STREAMS_MAX)
        if self._stream_count >= limits.KEY_STREAMS_MAX:
            raise self.reached(Bound.STREAMS)
        self._stream_count += 1
        try:
            yield
        finally:
            self._stream_count -= 1

    @asynccontextmanager
    async def opening(self) -> AsyncIterator[None]:
        """Open a producer in its turn; raises Overloaded."""
        wait = self._openings.take(1, now_seconds=self.now_seconds())
        if wait > 0:
            self.note(Bound.OPENINGS)
            is_refused = wait > limits.HOLD_SECONDS_MAX
            if is_refused:
                # Before it is held back: those who come meanwhile would be refused for its sake.
                self._openings.give_back(1)
            await asyncio.sleep(min(wait, limits.HOLD_SECONDS_MAX))
            if is_refused:
                raise self.reached(Bound.OPENINGS)
        async with self._doors:
            yield

    def is_at_rest(self) -> bool:
        """Tell whether it may be forgotten."""
        now = self.now_seconds()
        paces = (self._calls, self._openings, self.dimensions)
        return not (self._call_count or self._stream_count) and all(
            pace.is_full(now) for pace in paces
        )

    def note(self, bound: Bound) -> None:
        """Count that the key has reached a bound."""
        self._bounds.note(bound, key_id=self._key_id)

    def reached(self, bound: Bound) -> Overloaded:
        """Return the error for whoever was held back in vain."""
        self.note(bound)
        return Overloaded(
            Reason.OVERLOADED,
            f"This API key has reached its bound of {bound} on this server. Send less at once.",
            bound=bound,
        )

    async def _take_turn(self, *, is_over: bool) -> None:
        """Wait for a call's turn; raises Overloaded where it is too far off.

        A refusal costs work, too: whoever does not wait is made to, also where it `is_over` anyway.
        """
        wait = self._calls.take(1, now_seconds=self.now_seconds())
        if wait > 0:
            self.note(Bound.CALLS)
        if wait > 0 or is_over:
            await asyncio.sleep(min(max(wait, float(is_over)), limits.HOLD_SECONDS_MAX))
        if wait > limits.HOLD_SECONDS_MAX:
            self._calls.give_back(1)
            raise self.reached(Bound.CALLS)

    def _has_room(self, count: int) -> bool:
        return self._event_count + count <= limits.KEY_EVENTS_AT_ONCE_MAX


class Bounds:
    """The shares of all API keys of a server; those without one have a share together."""

    def __init__(
        self,
        metrics: Metrics,
        *,
        calls_per_second_max: int,
        monotonic_seconds: Callable[[], float],
    ) -> None:
        """Take where it is counted, and how many calls one API key may make in a second."""
        self.calls_per_second_max = calls_per_second_max
        self.now_seconds = monotonic_seconds
        self._metrics = metrics
        self._shares: dict[str, Share] = {}
        self._told: dict[tuple[str, str], float] = {}

    def of(self, key_id: str) -> Share:
        """Return the share of an API key; "" is that of all who have none."""
        share = self._shares.get(key_id)
        if share is None:
            if len(self._shares) >= limits.KEYS_BOUNDED_MAX:
                self._shares = {k: it for k, it in self._shares.items() if not it.is_at_rest()}
                self._told.clear()
            share = self._shares[key_id] = Share(key_id, bounds=self)
        return share

    def note(self, bound: Bound, *, key_id: str) -> None:
        """Count that a bound was reached, and say so now and then."""
        self._metrics.bounds.labels(bound).inc()
        now = self.now_seconds()
        told = self._told.get((key_id, bound))
        if told is None or now - told > _TOLD_SECONDS:
            self._told[key_id, bound] = now
            _log.warning("bound_reached", extra={"bound": str(bound), "key_id": key_id})


def dimension_pace(now_seconds: float) -> Pace:
    """Return how fast new dimensions may come."""
    return Pace(
        per_second=limits.KEY_DIMENSIONS_MINUTE_MAX / 60,
        burst_max=limits.KEY_DIMENSIONS_BURST_MAX,
        now_seconds=now_seconds,
    )
