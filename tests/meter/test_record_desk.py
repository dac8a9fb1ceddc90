"""Small calls that come at the same time: one submission, and an answer for each call's own."""

import asyncio
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any, Final

import pytest

from meter.domain.errors import InvalidArgument, MeterError, Reason, StoreRefusal, Unavailable
from meter.domain.limits import BATCH_CLASSES_MAX, GATHERED_CALL_EVENTS_MAX, RECORD_EVENTS_MAX
from meter.domain.outcome import Outcome
from meter.journal.commit import Result, Submission
from meter.journal.protocol import Verdict
from meter.metrics import Metrics
from meter.wire import record_desk
from meter.wire.bounds import Bounds
from meter.wire.record_desk import RecordDesk
from tests.clock import FakeClock
from tests.meter.plain_events import BEGIN_MS
from tests.meter.test_intake import CREDENTIAL, new_intake
from tests.wire.session import event
from tokenworks.meter.v1 import usage_pb2

RECORDED, DUPLICATE = Outcome.RECORDED, Outcome.DUPLICATE
UNKNOWN_TIER: Final = Outcome.TIER_UNKNOWN
AWAY: Final = Unavailable(Reason.STORE_UNAVAILABLE, "away")


class HeldWriter:
    """A writer that holds what it is given until a test answers."""

    def __init__(self) -> None:
        self.held: list[tuple[Submission, asyncio.Future[Result]]] = []

    def submit(self, submission: Submission) -> "asyncio.Future[Result]":
        """Hold it."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.held.append((submission, future))
        return future

    async def answer(self, *outcomes: int, fault: MeterError | None = None) -> Submission:
        """Answer the oldest, RECORDED where no outcomes are given, and let those hear who wait."""
        submission, future = self.held.pop(0)
        if fault is not None:
            future.set_exception(fault)
        else:
            result = Result(verdict=Verdict.RECORD)
            result.outcomes = outcomes or [RECORDED] * len(submission.batch)
            future.set_result(result)
        await rest()
        return submission


class Hall:
    """A desk before a writer that is held, and calls of its key."""

    def __init__(self) -> None:
        clock = FakeClock(BEGIN_MS)
        metrics = Metrics()
        self.writer = HeldWriter()
        bounds = Bounds(metrics, calls_per_second_max=1_000, monotonic_seconds=lambda: 0.0)
        parts: Any = SimpleNamespace(
            intake=new_intake(), bounds=bounds, writer=self.writer, clock=clock, metrics=metrics
        )
        self.desk = RecordDesk(parts)

    async def call(
        self, *events: usage_pb2.UsageEvent, source: int = 0
    ) -> "asyncio.Task[list[int]]":
        """Begin a call, which is where it waits when this returns."""
        raw = [it.SerializeToString() for it in events]
        recording = self.desk.record(raw, CREDENTIAL, size_bytes=100, source=source)
        task = asyncio.create_task(recording)
        await rest()
        return task


async def rest() -> None:
    """Let everything go as far as it goes."""
    for _ in range(20):
        await asyncio.sleep(0)


def fine(**changes: Any) -> usage_pb2.UsageEvent:  # noqa: ANN401
    """Return an event of the time that it is."""
    return event(end_ms=BEGIN_MS, **changes)


def in_a_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run a test on an event loop of its own."""

    def run() -> None:
        asyncio.run(test())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for others loses patience at once."""
    monkeypatch.setattr(record_desk, "GATHERED_SECONDS_MAX", 0.0)


@in_a_loop
async def test_record__what_comes_meanwhile_is_one_submission() -> None:
    """Calls that come while one is recorded are recorded together, and each hears of its own."""
    hall = Hall()
    first = await hall.call(fine())
    others = [await hall.call(fine(), fine()), await hall.call(fine())]
    assert len(hall.writer.held) == 1
    await hall.writer.answer()
    assert await first == [RECORDED]
    submission = await hall.writer.answer(RECORDED, DUPLICATE, RECORDED)
    assert len(submission.batch) == 3
    assert [await other for other in others] == [[RECORDED, DUPLICATE], [RECORDED]]


@in_a_loop
async def test_record__who_is_alone_does_not_wait() -> None:
    """A single caller's calls are each submitted at once."""
    hall = Hall()
    for _ in range(3):
        call = await hall.call(fine())
        await hall.writer.answer()
        assert await call == [RECORDED]


def test_record__waits_for_those_who_were_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a turn of two, one call waits for another: both callers come again."""

    async def act() -> None:
        hall = Hall()
        await hall.call(fine())
        await hall.call(fine())
        await hall.call(fine())
        await hall.writer.answer()
        monkeypatch.setattr(record_desk, "GATHERED_SECONDS_MAX", 3_600.0)
        await hall.writer.answer()
        await hall.call(fine())
        assert not hall.writer.held
        await hall.call(fine())
        assert len((await hall.writer.answer()).batch) == 2

    asyncio.run(act())


@in_a_loop
async def test_record__waits_for_them_for_a_while() -> None:
    """Who waits for somebody that does not come is submitted all the same."""
    hall = Hall()
    for _ in range(3):
        await hall.call(fine())
    await hall.writer.answer()
    await hall.writer.answer()
    await hall.call(fine())
    assert len((await hall.writer.answer()).batch) == 1


@in_a_loop
async def test_record__places_are_those_of_the_own_call() -> None:
    """What is set aside, before or after it is claimed, has its place in its call."""
    hall = Hall()
    await hall.call(fine())
    await hall.call(fine(), fine(tier="none"))
    await hall.call(fine(tier="none"))
    await hall.call(fine(), fine())
    await hall.writer.answer()
    submission = await hall.writer.answer()
    assert [entry.index for entry in submission.set_aside] == [1, 0]
    assert submission.claims is not None
    assert submission.claims.indexes == [0, 3, 4]
    assert submission.claims.places == [0, 1, 0, 0, 1]


@in_a_loop
async def test_record__outcomes_of_the_check_and_of_the_claims() -> None:
    """Each event of a turn has its own outcome, whether it was claimed or not."""
    hall = Hall()
    await hall.call(fine())
    mixed = await hall.call(fine(tier="none"), fine())
    other = await hall.call(fine())
    await hall.writer.answer()
    await hall.writer.answer(DUPLICATE, RECORDED)
    assert await mixed == [UNKNOWN_TIER, DUPLICATE]
    assert await other == [RECORDED]


@in_a_loop
async def test_record__what_cannot_be_read_is_its_callers_fault() -> None:
    """A call of too many token classes is refused alone; what came with it is recorded."""
    hall = Hall()
    await hall.call(fine())
    many = dict.fromkeys(range(1, BATCH_CLASSES_MAX + 2), 1)
    wrong = await hall.call(fine(tokens=many))
    right = await hall.call(fine())
    await hall.writer.answer()
    with pytest.raises(InvalidArgument):
        await wrong
    await hall.writer.answer()
    assert await right == [RECORDED]


@in_a_loop
async def test_record__what_the_database_refuses_is_one_callers_fault() -> None:
    """A submission that is refused is tried again call by call: the culprit alone hears of it."""
    hall = Hall()
    await hall.call(fine())
    culprit = await hall.call(fine())
    other = await hall.call(fine())
    await hall.writer.answer()
    await hall.writer.answer(fault=StoreRefusal(Reason.INTERNAL, "refused"))
    assert [len(submission.batch) for submission, _ in hall.writer.held] == [1, 1]
    await hall.writer.answer(fault=StoreRefusal(Reason.INTERNAL, "refused"))
    await hall.writer.answer()
    with pytest.raises(StoreRefusal):
        await culprit
    assert await other == [RECORDED]


@in_a_loop
async def test_record__a_database_that_is_away_is_everyones_fault() -> None:
    """Where the fate of a turn is not known nothing is tried again, and everyone hears of it."""
    hall = Hall()
    await hall.call(fine())
    calls = [await hall.call(fine()), await hall.call(fine())]
    await hall.writer.answer()
    await hall.writer.answer(fault=AWAY)
    assert not hall.writer.held
    for call in calls:
        with pytest.raises(Unavailable):
            await call


@in_a_loop
async def test_record__who_does_not_wait_for_the_answer() -> None:
    """A call that was given up takes nothing from those that are recorded with it."""
    hall = Hall()
    await hall.call(fine())
    gone = await hall.call(fine())
    other = await hall.call(fine())
    gone.cancel()
    await hall.writer.answer()
    await hall.writer.answer()
    assert await other == [RECORDED]


@in_a_loop
async def test_record__large_calls_and_reports_go_by_themselves() -> None:
    """What is large enough, and what is counted by request, does not wait for others."""
    hall = Hall()
    await hall.call(fine())
    await hall.call(*(fine() for _ in range(GATHERED_CALL_EVENTS_MAX + 1)))
    await hall.call(fine(request_id="r"), source=usage_pb2.SOURCE_PROXY)
    assert [len(submission.batch) for submission, _ in hall.writer.held] == [1, 11, 1]


@in_a_loop
async def test_record__a_turn_is_no_larger_than_a_call_may_be() -> None:
    """However many calls wait: a turn takes as many events as one call may bring."""
    hall = Hall()
    await hall.call(fine())
    turn = RECORD_EVENTS_MAX // GATHERED_CALL_EVENTS_MAX
    calls = [
        asyncio.create_task(
            hall.desk.record(
                [fine().SerializeToString() for _ in range(GATHERED_CALL_EVENTS_MAX)],
                CREDENTIAL,
                size_bytes=1,
                source=0,
            )
        )
        for _ in range(turn + 1)
    ]
    await rest()
    await hall.writer.answer()
    assert len((await hall.writer.answer()).batch) == RECORD_EVENTS_MAX
    assert sum(call.done() for call in calls) == turn
    assert len((await hall.writer.answer()).batch) == GATHERED_CALL_EVENTS_MAX
