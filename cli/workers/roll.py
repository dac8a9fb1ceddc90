"""What is true of all workers, asked of each of them."""

import threading
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection, wait
from typing import Final

from cli.workers.messages import Answer, Question
from meter.domain.metric import Entry
from meter.joint_page import JointPage

# Who needs longer is taken for silent: a probe of Kubernetes waits for a second by default, and a
# scrape of Prometheus for ten. Thousands of series take a worker some hundred milliseconds.
_ANSWER_SECONDS_MAX: Final = 0.9
_METRICS_SECONDS_MAX: Final = 3.0


class Roll:
    """Knows the workers that run, and asks them; safe to share between threads."""

    def __init__(
        self,
        *,
        count: int,
        catalogue: Iterable[Entry],
        monotonic_seconds: Callable[[], float],
    ) -> None:
        """Take how many workers there are to be, and the metrics that they have."""
        self._count = count
        self._page = JointPage(catalogue)
        self._monotonic_seconds = monotonic_seconds
        self._lock = threading.Lock()
        self._pipes: dict[int, Connection] = {}
        # Who has been asked and has not answered yet is not asked again before.
        self._owing: dict[int, Question] = {}

    def join(self, worker: int, pipe: Connection) -> None:
        """Note that a worker serves, which answers on a pipe."""
        with self._lock:
            self._pipes[worker] = pipe

    def leave(self, worker: int) -> None:
        """Note that it has ended, if it ran: what it did stays in the sums."""
        with self._lock:
            self._pipes.pop(worker, None)
            self._owing.pop(worker, None)
            self._page.end(worker)

    def answer(self, question: Question) -> Answer:
        """Return what is true of all; waits for the slowest, but not for long."""
        with self._lock:
            if question is Question.METRICS:
                return self._metrics()
            answers = self._ask(Question.OBSTACLES, seconds_max=_ANSWER_SECONDS_MAX)
            silent = [
                f"worker {it}: does not answer" for it in sorted(self._pipes) if it not in answers
            ]
            if question is Question.SILENT:
                return silent
            away = set(range(1, self._count + 1)) - self._pipes.keys()
            return [
                *silent,
                *(f"worker {it}: is being started" for it in sorted(away)),
                *(f"worker {it}: {line}" for it in sorted(answers) for line in answers[it]),
            ]

    def _metrics(self) -> Answer:
        answers = self._ask(Question.METRICS, seconds_max=_METRICS_SECONDS_MAX)
        for worker in self._pipes:
            if worker in answers:
                self._page.take(worker, answers[worker])
            else:
                self._page.miss(worker)
        return self._page.families()

    def _ask(self, question: Question, *, seconds_max: float) -> dict[int, Answer]:
        """Return what the workers say, by their numbers, without those that say nothing."""
        asked = {}
        for worker, pipe in self._pipes.items():
            if self._has_answered(worker, pipe) and _send(pipe, question):
                self._owing[worker] = question
                asked[pipe] = worker
        answers = {}
        deadline = self._monotonic_seconds() + seconds_max
        while asked:
            ready = wait(list(asked), max(0.0, deadline - self._monotonic_seconds()))
            if not ready:
                break
            for pipe in [it for it in asked if it in ready]:
                worker = asked.pop(pipe)
                answer = _receive(pipe)
                if answer is not None:
                    del self._owing[worker]
                    answers[worker] = answer
        return answers

    def _has_answered(self, worker: int, pipe: Connection) -> bool:
        """Tell whether a worker owes no answer; of one that came too late counters are as good."""
        if worker not in self._owing:
            return True
        late = _receive(pipe) if _is_waiting(pipe) else None
        if late is None:
            return False
        if self._owing.pop(worker) is Question.METRICS:
            self._page.take(worker, late)
        return True


def _send(pipe: Connection, question: Question) -> bool:
    try:
        pipe.send(question)
    except OSError:
        return False
    return True


def _is_waiting(pipe: Connection) -> bool:
    try:
        return pipe.poll()
    except OSError:
        return False


def _receive(pipe: Connection) -> Answer | None:
    """Return an answer; None of a worker that has ended."""
    try:
        answer: Answer = pipe.recv()
    except (EOFError, OSError):
        return None
    return answer
