"""A stream's answers: said in order when they are decided, and room for as many batches more."""

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from meter.domain import limits
from meter.domain.errors import Unavailable
from meter.journal import writer as writer_module
from meter.journal.commit import Result, Submission
from meter.journal.protocol import Verdict
from meter.journal.writer import Decision, JournalWriter, shutting_down
from meter.metrics import Metrics
from meter.wire.answers import Answers, Waiting
from meter.wire.bounds import Bounds, Sender
from tests.clock import FakeClock
from tests.meter.test_intake import INTAKE, ORIGIN

RECORDED = Result(verdict=Verdict.RECORD, recorded_count=3)
CLOCK = FakeClock(0)


class Peer:
    """Stands for a call: takes answers while its window is open."""

    def __init__(self) -> None:
        """Begin with an open window and nothing heard."""
        self.window = asyncio.Event()
        self.window.set()
        self.heard: list[int] = []

    async def write(self, message: Any) -> None:  # noqa: ANN401
        """Take an answer."""
        await self.window.wait()
        self.heard.append(message.ack.sequence)


class Talk:
    """A stream's answers with batches on their way."""

    def __init__(self, batch_count: int) -> None:
        """Hand in so many batches."""
        metrics = Metrics()
        self.peer = Peer()
        self.answers = Answers(
            self.peer,  # type: ignore[arg-type]  # no more of a call is asked for
            metrics=metrics,
            clock=CLOCK,
            is_known=_nobody_asks,
        )
        bounds = Bounds(metrics, calls_per_second_max=1, monotonic_seconds=CLOCK.monotonic_seconds)
        sender = Sender(bounds.of("key"))
        self.batches = [Waiting(number, sender, 0.0, 0) for number in range(1, batch_count + 1)]
        for batch in self.batches:
            self.answers.add(batch)

    def decide(self, number: int, decision: Decision = RECORDED) -> None:
        """Decide a batch by its number."""
        self.answers.decide(self.batches[number - 1], decision)

    async def end(self) -> None:
        """Have said what there is to say."""
        self.answers.end()
        await self.answers.run()


async def _nobody_asks() -> bool:
    raise AssertionError


async def _settle() -> None:
    """Let all run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a test's work, for as long as it may take."""

    async def bounded() -> None:
        async with asyncio.timeout(30):
            await work

    asyncio.run(bounded())


def test_run__says_what_is_decided_in_the_order_of_arrival() -> None:
    """A batch that is decided before an earlier one is said after it, in one ack."""

    async def work() -> None:
        talk = Talk(3)
        running = asyncio.create_task(talk.answers.run())
        talk.decide(2)
        await _settle()
        assert talk.peer.heard == []
        talk.decide(1)
        await _settle()
        assert talk.peer.heard == [2]
        talk.decide(3)
        talk.answers.end()
        await running
        assert talk.peer.heard == [2, 3]

    run(work())


def test_wait_for_room__until_an_ack_is_sent() -> None:
    """Of who takes no answers no more is read than may be on its way."""

    async def work() -> None:
        talk = Talk(limits.BATCHES_IN_FLIGHT_MAX - 1)
        was_full = talk.answers.is_full
        talk.answers.add(talk.batches[0])
        assert (was_full, talk.answers.is_full) == (False, True)
        talk.peer.window.clear()
        running = asyncio.create_task(talk.answers.run())
        reading = asyncio.create_task(talk.answers.wait_for_room())
        talk.decide(1)
        await _settle()
        assert not reading.done()
        talk.peer.window.set()
        await reading
        assert talk.peer.heard == [1]
        running.cancel()

    run(work())


def test_decide__what_is_told_first_holds() -> None:
    """A batch whose fate was not known when the server stopped is not acknowledged after that."""

    async def work() -> None:
        talk = Talk(1)
        talk.decide(1, shutting_down())
        talk.decide(1)
        with pytest.raises(Unavailable):
            await talk.end()
        assert talk.peer.heard == []

    run(work())


def test_stop__decides_once_what_is_decided_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call is told that the server stops; a commit that ends after that ends the writer well."""
    may_end = threading.Event()

    def commit(_store: object, group: Sequence[Submission], **_: object) -> list[Result]:
        assert may_end.wait(30)
        return [RECORDED for _ in group]

    monkeypatch.setattr(writer_module, "commit_group", commit)
    monkeypatch.setattr(writer_module, "_STOP_SECONDS", 0)

    async def work() -> None:
        writer = JournalWriter(
            None,  # type: ignore[arg-type]  # nothing is asked of it
            observer=Metrics(),
            now_ms=CLOCK.now_ms,
            monotonic_seconds=CLOCK.monotonic_seconds,
            buffer_bytes_max=1,
            on_commit=lambda: None,
        )
        running = asyncio.create_task(writer.run())
        nothing, _ = INTAKE.translator.from_rows([])
        # Two that take nothing of the buffer: neither is in the other's way.
        futures = [writer.submit(Submission(origin=ORIGIN, batch=nothing)) for _ in range(2)]
        await _settle()
        writer.stop()
        for future in futures:
            with pytest.raises(Unavailable):
                await future
        may_end.set()
        await running

    run(work())
