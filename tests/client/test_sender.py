"""The sending thread's sense of time: heartbeats, and connections that fall silent."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from threading import Thread
from typing import Final, TypeAlias

import pytest

from tests.client.fake_meter import API_KEY, WAIT_SECONDS, FakeMeter
from tokenworks.client import Finish, Quality, State, connection
from tokenworks.client.connection import Address
from tokenworks.client.events import TEXT_CLASSES, RawEvent
from tokenworks.client.intake import Intake
from tokenworks.client.retry import Backoff
from tokenworks.client.sender import Sender
from tokenworks.client.session import Pace
from tokenworks.client.spooling import in_memory
from tokenworks.client.tally import Tally

MakeSender: TypeAlias = Callable[[Pace], tuple[Intake, Sender]]

EVENT: Final[RawEvent] = (
    0, (None,) * 7, *(1 for _ in TEXT_CLASSES), None, None, 0, Finish.COMPLETED, Quality.FINAL,
    "", 0, None, None, None, None,
)  # fmt: skip


@pytest.fixture
def make_sender(fake_meter: FakeMeter) -> Iterator[MakeSender]:
    """A function that starts a sender with a pace of its own."""
    with ExitStack() as stack:

        def make(pace: Pace) -> tuple[Intake, Sender]:
            intake = Intake()
            sender = Sender(
                intake,
                tally=Tally(),
                address=Address(target=fake_meter.target, api_key=API_KEY),
                instance=bytes(16),
                defaults=("a", "m", "", "high", 1, "", ""),
                open_place=in_memory("p"),
                buffer_events_max=100,
                pace=pace,
                backoff=Backoff(seconds_min=0.001, seconds_max=0.01, draw=max),
            )
            sender.start()
            stack.callback(sender.stop, timeout_seconds=WAIT_SECONDS)
            return intake, sender

        yield make


def test_sender__idle_connection_is_proved_by_heartbeats(
    fake_meter: FakeMeter, make_sender: MakeSender
) -> None:
    """With nothing to send the client still asks whether the meter is there."""
    make_sender(Pace(flush_interval=0.01, heartbeat_idle=0.01, silence_max=WAIT_SECONDS))
    with fake_meter.changed:
        assert fake_meter.changed.wait_for(lambda: fake_meter.heartbeat_count >= 3, WAIT_SECONDS)
    assert fake_meter.call_count == 1


def test_sender__held_events_are_asked_for_sooner(
    fake_meter: FakeMeter, make_sender: MakeSender
) -> None:
    """While something is not durable, the client asks at the shorter interval."""
    fake_meter.set(durable_lag=1)
    intake, sender = make_sender(
        Pace(flush_interval=0.01, heartbeat_min=0.01, heartbeat_idle=WAIT_SECONDS * 2)
    )
    intake.pending.append(EVENT)
    with fake_meter.changed:
        assert fake_meter.changed.wait_for(lambda: fake_meter.heartbeat_count >= 3, WAIT_SECONDS)
    assert sender.figures.held == 1


def test_sender__silent_connection_is_cut_and_opened_anew(
    fake_meter: FakeMeter, make_sender: MakeSender, caplog: pytest.LogCaptureFixture
) -> None:
    """A meter from which nothing comes is left for a new connection, and nothing is lost."""
    fake_meter.set(acks_held=True)
    intake, sender = make_sender(Pace(flush_interval=0.01, heartbeat_min=0.01, silence_max=0.05))
    intake.pending.append(EVENT)
    with fake_meter.changed:
        assert fake_meter.changed.wait_for(lambda: fake_meter.call_count >= 3, WAIT_SECONDS)
    fake_meter.set(acks_held=False)
    flush = sender.flush()
    assert flush.done.wait(WAIT_SECONDS)
    assert flush.reached
    assert len(fake_meter.events) == 1
    assert sender.figures.acknowledged == 1
    assert "nothing was heard" in caplog.text
    assert "CANCELLED" not in caplog.text, "the end of a connection that was left is no news"


def test_connect__without_a_thread_is_tried_again(
    fake_meter: FakeMeter,
    make_sender: MakeSender,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process at the limit of its threads reports again as soon as it is below it."""
    refused = list[str]()

    class _Scarce(Thread):
        def start(self) -> None:
            if len(refused) < 2:
                refused.append(self.name)
                raise RuntimeError("can't start new thread")
            super().start()

    monkeypatch.setattr(connection, "Thread", _Scarce)
    intake, sender = make_sender(Pace(flush_interval=0.01))
    intake.pending.append(EVENT)
    assert sender.flush().done.wait(WAIT_SECONDS)
    assert len(refused) == 2
    assert len(fake_meter.events) == 1


def test_flush__after_the_end_is_let_go(make_sender: MakeSender) -> None:
    """Whoever asks a sender that has ended gets an answer at once: no."""
    _, sender = make_sender(Pace())
    sender.stop(timeout_seconds=WAIT_SECONDS)
    assert sender.state is State.CLOSED
    flush = sender.flush()
    assert flush.done.is_set()
    assert not flush.reached
