"""A worker: a meter of its own, told by its parent what to run, and ending with it.

`python -m cli.workers.worker FD FD` is started by the parent alone, with two pipes.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.connection import Connection
from socket import socket
from typing import Any

from prometheus_client.metrics_core import Metric

from cli.logs import configure_logging
from cli.meter_process import StopRequest, run_meter
from cli.process import CommandError, Exit
from cli.workers.messages import Failed, Order, Question, Started


class Parent:
    """The parent, and through it the other workers; safe to share between threads."""

    def __init__(self, *, asked: Connection, asking: Connection) -> None:
        """Take the pipe on which it asks, and the one on which it is asked."""
        self._asked = asked
        self._asking = asking
        self._turn = threading.Lock()
        self._collect: Callable[[], Iterable[Metric]] = list
        self._find_obstacles: Callable[[], Sequence[str]] = lambda: ["is starting"]
        self.order: Order = asked.recv()
        self.http = _listener(self.order.http)
        otlp_http = self.order.otlp_http
        self.otlp_http = None if otlp_http is None else _listener(otlp_http)

    def attend(
        self,
        *,
        collect: Callable[[], Iterable[Metric]],
        find_obstacles: Callable[[], Sequence[str]],
    ) -> None:
        """Answer with these from now on."""
        self._collect, self._find_obstacles = collect, find_obstacles

    def families(self) -> Sequence[Metric]:
        """Return the metrics of all workers."""
        return self._ask(Question.METRICS)

    def obstacles(self) -> Sequence[str]:
        """Return what stands against sending calls to any of them."""
        return self._ask(Question.OBSTACLES)

    def silent(self) -> Sequence[str]:
        """Return a line for each that runs and does not answer."""
        return self._ask(Question.SILENT)

    def tell(self, message: Started | Failed) -> None:
        """Tell it how the start went."""
        with self._turn:
            self._asking.send(message)

    def answer(self) -> None:
        """Answer it until it is gone; then this process is asked to stop, as by SIGTERM."""
        try:
            while True:
                question = self._asked.recv()
                is_metrics = question is Question.METRICS
                self._asked.send(list(self._collect() if is_metrics else self._find_obstacles()))
        except (EOFError, OSError):
            os.kill(os.getpid(), signal.SIGTERM)

    def _ask(self, question: Question) -> Sequence[Any]:
        with self._turn:
            self._asking.send(question)
            answer: Sequence[Any] = self._asking.recv()
        return answer


def main(asked: int, asking: int) -> int:
    """Run a meter until the parent ends, or says so; returns the exit code."""
    with StopRequest() as stop:
        try:
            parent = Parent(asked=Connection(asked), asking=Connection(asking))
            threading.Thread(target=parent.answer, name="parent", daemon=True).start()
            return _run(parent, stop=stop)
        except (KeyboardInterrupt, EOFError):
            # Before anything was served.
            return Exit.FAILED


def _run(parent: Parent, *, stop: StopRequest) -> int:
    order = parent.order
    configure_logging(order.log_level, form=order.log_format)
    try:
        run_meter(
            order.options,
            customer_metrics_max=order.customer_metrics_max,
            stop=stop,
            ready=lambda addresses: parent.tell(Started(addresses=addresses)),
            crew=parent,
        )
    except CommandError as error:
        parent.tell(Failed(message=error.message, code=error.exit_code))
        return error.exit_code
    return 0


def _listener(number: int) -> socket:
    listener = socket(fileno=number)
    # Several are told of a connection, and one gets it: the others must not wait for the next.
    listener.settimeout(0)
    return listener


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
