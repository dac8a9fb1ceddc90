"""Reports whose sender hears no answer, and so sends none again: held until they are recorded.

So many are held; then whoever brings more waits, and its sender feels it through the connection's
flow control. What is held when the process ends is lost. Lives on the event loop alone.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import Final

from meter.domain.credential import Credential
from meter.domain.errors import MeterError
from meter.domain.limits import HELD_REPORTS_MAX
from meter.metrics import Metrics
from meter.sources.observation import Observation, Source
from meter.wire.observed import ObservedIntake

_log = logging.getLogger(__name__)
# How many reports of an API key go to the journal at a time.
_AT_ONCE_MAX: Final = 10_000

_Queue = deque[tuple[Credential, Sequence[Observation]]]


class HeldReports:
    """The reports of one source, by the API key that brought them: each key's go in turn."""

    def __init__(
        self, intake: ObservedIntake, *, source: Source, profile: str, metrics: Metrics
    ) -> None:
        """Take where they go, and whose they are."""
        self._intake = intake
        self._source = source
        self._profile = profile
        self._metrics = metrics
        self._queues: dict[str, _Queue] = {}
        self._senders: dict[str, asyncio.Task[None]] = {}
        self._count = 0
        self._changed = asyncio.Condition()

    def hold(self, observations: Sequence[Observation], *, credential: Credential) -> None:
        """Hold reports, however many there are; `wait_for_room` before the next."""
        if not observations:
            return
        self._note(len(observations))
        queue = self._queues.setdefault(credential.key_id, deque())
        queue.append((credential, observations))
        if credential.key_id not in self._senders:
            self._start(credential.key_id)

    async def wait_for_room(self) -> None:
        """Return when more may be brought."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._count < HELD_REPORTS_MAX)

    async def drain(self, *, seconds: float) -> None:
        """Wait until nothing is held, for so long; then give up what is, and say how much."""
        try:
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(lambda: self._count == 0)
        except TimeoutError:
            self._tell_lost(self._count)
        for sender in list(self._senders.values()):
            sender.cancel()

    def _start(self, key_id: str) -> None:
        sender = asyncio.create_task(self._send(key_id))
        self._senders[key_id] = sender
        sender.add_done_callback(lambda done: self._ended(key_id, done))

    def _ended(self, key_id: str, sender: asyncio.Task[None]) -> None:
        """Forget a sender, or begin anew where more has come; a fault ends neither."""
        del self._senders[key_id]
        fault = None if sender.cancelled() else sender.exception()
        if fault is not None:
            _log.error("reports_not_sent", exc_info=fault)
        if self._queues[key_id] and not sender.cancelled():
            self._start(key_id)
        else:
            del self._queues[key_id]

    async def _send(self, key_id: str) -> None:
        queue = self._queues[key_id]
        while queue:
            credential, first = queue.popleft()
            some = list(first)
            while queue and len(some) + len(queue[0][1]) <= _AT_ONCE_MAX:
                some += queue.popleft()[1]
            try:
                await self._record(some, credential)
            finally:
                async with self._changed:
                    self._note(-len(some))
                    self._changed.notify_all()

    async def _record(self, observations: Sequence[Observation], credential: Credential) -> None:
        while True:
            try:
                await self._intake.take(
                    observations,
                    credential=credential,
                    source=self._source,
                    profile=self._profile,
                )
                return
            except MeterError as error:
                if error.retry_seconds is None:
                    self._tell_lost(len(observations), fault=error)
                    return
                await asyncio.sleep(error.retry_seconds)

    def _tell_lost(self, count: int, *, fault: MeterError | None = None) -> None:
        extra = {"source": self._source.name.lower(), "count": count}
        _log.error("reports_lost", extra=extra, exc_info=fault)

    def _note(self, more: int) -> None:
        self._count += more
        self._metrics.reports_held.labels(self._source.name.lower()).set(self._count)
