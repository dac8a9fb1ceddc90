"""What the parent knows of its workers, who answer, answer late, or are away."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import pytest
from prometheus_client.core import CounterMetricFamily

from cli.workers.messages import Question
from cli.workers.roll import Roll
from meter.domain.metric import Entry

COUNTER = Entry(name="things_total", kind="counter", unit="things", labels=(), meaning="")
THINGS = CounterMetricFamily("things", "Things.", value=7)
OBSTACLE = "stopping: what was taken is answered, nothing more is taken"


class Called:
    """A roll of two, and the workers' ends of their pipes."""

    def __init__(self, stack: ExitStack) -> None:
        # Looked at twice, it is over: nobody is waited for in vain.
        seconds = iter(range(0, 1_000_000, 10))
        self.roll = Roll(
            count=2, catalogue=[COUNTER], monotonic_seconds=lambda: float(next(seconds))
        )
        self._stack = stack
        self.pipes: dict[int, Connection] = {}

    def join(self, number: int) -> None:
        """Have a worker serve."""
        ours, theirs = Pipe()
        self.pipes[number] = self._stack.enter_context(theirs)
        self.roll.join(number, self._stack.enter_context(ours))

    def say(self, number: int, *lines: object) -> None:
        """Have a worker answer, before or after it is asked."""
        self.pipes[number].send(list(lines))

    def ask(self, question: Question = Question.OBSTACLES) -> Sequence[Any]:
        """Ask all of them."""
        return self.roll.answer(question)


@pytest.fixture
def called() -> Iterator[Called]:
    """A roll on which two workers are."""
    with ExitStack() as stack:
        made = Called(stack)
        made.join(1)
        made.join(2)
        yield made


def test_answer__of_all(called: Called) -> None:
    """A machine is ready when all its workers are, and each line says whose it is."""
    called.say(1)
    called.say(2)
    assert called.ask() == []
    called.say(1)
    called.say(2, OBSTACLE)
    assert called.ask() == [f"worker 2: {OBSTACLE}"]


def test_answer__of_one_that_is_silent(called: Called) -> None:
    """Who does not answer is not waited for, and stands against readiness and liveness."""
    called.say(1)
    assert called.ask(Question.SILENT) == ["worker 2: does not answer"]
    called.say(1)
    assert called.ask() == ["worker 2: does not answer"]


def test_answer__of_one_that_is_late(called: Called) -> None:
    """An answer that comes after its question is not taken for that of the next one."""
    called.say(1)
    called.ask()
    called.say(2, "late")
    called.say(1)
    called.say(2)
    assert called.ask() == []
    # It was asked no more often than it answered.
    assert [called.pipes[2].recv() for _ in range(2)] == [Question.OBSTACLES] * 2
    assert not called.pipes[2].poll()


def test_answer__of_metrics_that_are_late(called: Called) -> None:
    """Counters that come after their question are shown at the next one."""
    called.say(1)
    assert called.ask(Question.METRICS) == []
    called.say(2, THINGS)
    called.say(1)
    (shown,) = called.ask(Question.METRICS)
    assert [sample.value for sample in shown.samples] == [7.0]


def test_answer__of_one_that_is_away(called: Called) -> None:
    """One that has ended, or is not there yet, stands against readiness, and not against life."""
    called.roll.leave(2)
    called.say(1)
    assert called.ask() == ["worker 2: is being started"]
    called.say(1)
    assert called.ask(Question.SILENT) == []


def test_answer__of_one_that_dies_while_it_is_asked(called: Called) -> None:
    """The end of a pipe is no answer, and nobody waits for one."""
    called.pipes[2].close()
    called.say(1)
    assert called.ask() == ["worker 2: does not answer"]
