"""Running reports: whatever becomes of a request that lasts, it counts once, with what is known."""

import gc
from asyncio import CancelledError
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Barrier, Thread
from typing import Final

import pytest

from tests.client.conftest import MakeClient
from tests.client.fake_meter import WAIT_SECONDS, FakeMeter
from tokenworks.client import Finish, Meter, Quality, RunningReport, State, limits
from tokenworks.client.events import RawEvent
from tokenworks.client.hold import MemoryHold, SpooledBatch
from tokenworks.client.intake import Intake
from tokenworks.client.retry import Backoff, Failure
from tokenworks.client.running import RunningReports
from tokenworks.client.sealing import Sealer
from tokenworks.client.session import Pace, Session
from tokenworks.client.tally import Tally

COMPLETED_FINAL: Final = (Finish.COMPLETED, Quality.FINAL)
FAILED_PARTIAL: Final = (Finish.FAILED, Quality.PARTIAL)
CANCELLED_PARTIAL: Final = (Finish.CANCELLED, Quality.PARTIAL)


@pytest.fixture(params=["memory", "spool"])
def client(request: pytest.FixtureRequest, make_client: MakeClient, tmp_path: Path) -> Meter:
    """A client without a spool, then one with it."""
    return make_client(spool=tmp_path if request.param == "spool" else None)


def _finish(report: RunningReport) -> None:
    report.update(output=344)
    assert report.finish(output=400)
    assert not report.finish(output=500), "once"
    assert not report.update(output=600)


def _leave_well(report: RunningReport) -> None:
    with report:
        report.finish(output=400, finish=Finish.TRUNCATED)


def _leave(report: RunningReport) -> None:
    with report:
        report.update(output=344)


def _fail(report: RunningReport) -> None:
    with pytest.raises(LookupError), report:
        report.update(output=344)
        raise LookupError


def _cancel(report: RunningReport) -> None:
    with pytest.raises(CancelledError), report:
        report.update(output=344)
        raise CancelledError


def _abandon_stream(report: RunningReport) -> None:
    def answer() -> object:
        with report:
            report.update(output=344)
            yield 1

    stream = answer()
    next(stream)  # type: ignore[call-overload] # a generator
    stream.close()  # type: ignore[attr-defined] # a generator


ENDS: Final[dict[str, tuple[Callable[[RunningReport], object], int, tuple[Finish, Quality]]]] = {
    "finished": (_finish, 400, COMPLETED_FINAL),
    "finished in its context": (_leave_well, 400, (Finish.TRUNCATED, Quality.FINAL)),
    "left without a finish": (_leave, 344, FAILED_PARTIAL),
    "failed": (_fail, 344, FAILED_PARTIAL),
    "cancelled": (_cancel, 344, CANCELLED_PARTIAL),
    "its stream was closed": (_abandon_stream, 344, CANCELLED_PARTIAL),
    "let go": (RunningReport.update, 0, FAILED_PARTIAL),
}


@pytest.mark.parametrize("case", ENDS)
def test_report__counts_once(fake_meter: FakeMeter, client: Meter, case: str) -> None:
    """Each way in which a request can end counts it once, with its last counts."""
    end, output, how = ENDS[case]
    report = client.begin(account="acme", model="m", tier="high", input=812)
    end(report)
    del report
    gc.collect()
    assert client.flush(WAIT_SECONDS)
    (event,) = fake_meter.events
    assert event["account"] == "acme"
    assert event["tokens"] == {1: 812, 7: output} if output else {1: 812}
    assert (event["finish"], event["quality"]) == how
    assert client.statistics.recorded == client.statistics.acknowledged == 1


def test_finish__usage_object_goes_along(
    fake_meter: FakeMeter, make_client: MakeClient, tmp_path: Path
) -> None:
    """What a provider said at the end travels with the report, as it was at that moment."""
    client = make_client(spool=tmp_path, source="proxy")
    report = client.begin(input=10, profile="openai", request_id="r")
    usage = {"prompt_tokens": 10, "text": "a secret"}
    assert report.finish(output=5, usage=usage)
    usage["prompt_tokens"] = 11
    assert fake_meter.wait_for_events(1)
    (event,) = fake_meter.events
    assert event["usage"] == {"convention": "openai", "prompt_tokens": 10}


def test_close__ends_running_reports(fake_meter: FakeMeter, client: Meter) -> None:
    """Closing counts what still runs, as partial; what comes for it later counts no more."""
    report = client.begin(input=1)
    assert client.close(WAIT_SECONDS)
    assert [event["tokens"] for event in fake_meter.events] == [{1: 1}]
    assert not report.finish(output=5)
    assert client.statistics.dropped == 0


def test_begin__too_many_count_at_their_end(
    fake_meter: FakeMeter, client: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reports beyond the bound are not followed, but count like any event when they end."""
    monkeypatch.setattr(limits, "RUNNING_REPORTS_MAX", 1)
    followed, beyond = client.begin(input=1), client.begin(input=2)
    assert beyond.update(output=3)
    assert beyond.finish(output=4)
    assert not beyond.finish()
    assert followed.finish()
    assert client.flush(WAIT_SECONDS)
    tokens = sorted(str(event["tokens"]) for event in fake_meter.events)
    assert tokens == [str({1: 1}), str({1: 2, 7: 4})]


def test_report__never_raises(fake_meter: FakeMeter, client: Meter) -> None:
    """Arguments that do not exist are counted as invalid, and the report goes on without them."""
    report = client.begin(5, bogus=1, self=1)  # type: ignore[arg-type,call-arg]
    assert report.update(input=3)
    assert not report.update(bogus=1, self=1)  # type: ignore[call-arg]
    assert not report.finish("x", input=4)  # type: ignore[arg-type]
    assert report.finish(output=1)
    assert client.flush(WAIT_SECONDS)
    assert [event["tokens"] for event in fake_meter.events] == [{1: 3, 7: 1}]
    assert client.statistics.invalid == 3


def test_finish__of_many_threads_counts_once(fake_meter: FakeMeter, client: Meter) -> None:
    """Whoever comes first ends a report; updates at that moment do not bring it back."""
    reports = [client.begin(input=i + 1) for i in range(200)]
    start, won = Barrier(4), list[bool]()

    def run(number: int) -> None:
        start.wait()
        for report in reports:
            report.update(output=number)
            won.append(report.finish())

    threads = [Thread(target=run, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(won) == 200
    assert client.close(WAIT_SECONDS)
    inputs = sorted(event["tokens"][1] for event in fake_meter.events)  # type: ignore[index]
    assert inputs == list(range(1, 201))


def test_update__at_the_moment_of_the_end_brings_nothing_back() -> None:
    """A report that ends while another thread is in the middle of an update stays ended."""
    intake = Intake()
    reports = _reports(intake)
    report = reports.begin({"input": 1}, is_clean=True)
    intake.running = _EndedWhileLookedUp(intake.running)
    assert report.update(input=2)
    assert not intake.running
    assert not intake.take_changed()


def test_seal__end_between_two_looks_is_the_last_word() -> None:
    """A report that ends after its progress was taken leaves no progress beside its end."""
    intake = _LateEnd()
    reports = _reports(intake)
    report = reports.begin({"input": 1}, is_clean=True)
    intake.late = report.finish
    hold = _Noted()
    sealer = Sealer(intake, tally=Tally(), defaults=("a", "m", "", "high", 1, "", ""))
    sealer.is_spooled = True
    sealer.seal(_session(hold), is_everything=True)
    assert (hold.next, hold.progress) == (2, {})


def test_finish__without_room_is_dropped() -> None:
    """While the disk fails and the meter is away, ends of reports fill no memory without bound."""
    intake = Intake()
    report = _reports(intake, has_room=False).begin({"input": 1}, is_clean=True)
    assert not report.finish(output=2)
    assert not intake.event_count


def test_seal__ends_of_two_kinds_share_batches() -> None:
    """One end that is unfit, and ends that cannot share a batch, do not put each into its own."""
    intake = Intake()
    reports = _reports(intake)
    running = [reports.begin({"input": 1}, is_clean=True) for _ in range(64)]
    for number, report in enumerate(running):
        report.finish(event_id=bytes([number] * 16) if number % 2 else None)
    reports.begin({"input": 1}, is_clean=True).finish(attempt="x")  # type: ignore[arg-type]
    hold = _Noted()
    sealer = Sealer(intake, tally=Tally(), defaults=("a", "m", "", "high", 1, "", ""))
    sealer.seal(_session(hold), is_everything=True)
    assert hold.held_event_count == 64
    assert hold.next - 1 < 16


def test_take_changed__each_report_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where more reports change than are written down at a time, none waits for ever."""
    monkeypatch.setattr(limits, "PROGRESS_WRITTEN_MAX", 1)
    intake = Intake()
    reports = _reports(intake)
    running = [reports.begin({"input": i}, is_clean=True) for i in range(3)]
    taken = set[int]()
    for _ in running:
        for report in running:
            report.update(output=1)
        taken |= intake.take_changed().keys()
    assert len(taken) == 3


def test_end_all__reports_that_are_let_go_meanwhile_end_once() -> None:
    """The collector may end a report in the middle of closing; closing does not fail of it."""
    intake = Intake()
    reports = _reports(intake)
    kept = [reports.begin({"input": 1}, is_clean=True) for _ in range(1_000)]
    gc.disable()
    for _ in range(10):
        circle: list[object] = [reports.begin({"input": 1}, is_clean=True)]
        circle.append(circle)
    thresholds = gc.get_threshold()
    # Due in the middle of what `end_all` looks through.
    gc.set_threshold(gc.get_count()[0] + len(kept) // 2)
    gc.enable()
    try:
        reports.end_all()
    finally:
        gc.set_threshold(*thresholds)
    assert len(intake.finals) == len(kept) + 10


class _EndedWhileLookedUp(dict[int, list[RawEvent]]):
    """Running reports that end as soon as somebody has looked one up."""

    def get(self, key: int, default: None = None) -> list[RawEvent] | None:  # type: ignore[override] # all that is needed
        """Return what is known, and end it."""
        return self.pop(key, default)


class _LateEnd(Intake):
    """Has a report end right after its progress was taken."""

    __slots__ = ("late",)
    late: Callable[[], bool]

    def take_changed(self) -> dict[int, RawEvent]:
        """See `Intake`."""
        taken = super().take_changed()
        assert taken
        assert self.late()
        return taken


class _Noted(MemoryHold):
    """Notes the progress that it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.progress: dict[int, bytes] = {}

    def append(self, batches: Sequence[SpooledBatch], *, progress: Mapping[int, bytes]) -> None:
        """See `Hold`."""
        self.progress |= progress
        super().append(batches, progress=progress)


class _Silent:
    """Hears and says nothing."""

    def state_entered(self, state: State, failure: Failure | None) -> None:
        """See `Telling`."""

    def events_set_aside(self, *, outcomes: Sequence[str], count: int) -> None:
        """See `Telling`."""


def _session(hold: MemoryHold) -> Session:
    return Session(
        hold, producer="p", instance=bytes(16), pace=Pace(), backoff=Backoff(draw=max),
        telling=_Silent(), now=0.0,
    )  # fmt: skip


def _reports(intake: Intake, *, has_room: bool = True) -> RunningReports:
    return RunningReports(
        intake,
        is_spooled=True,
        put=lambda _: True,
        has_room=lambda: has_room,
        refuse=lambda _: False,
        wait=lambda: True,
        clock=lambda: 1,
    )
