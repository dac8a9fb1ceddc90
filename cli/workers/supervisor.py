"""The parent of several workers: starts them, starts them again, and ends them."""

import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from multiprocessing import Pipe
from queue import SimpleQueue
from typing import Final, TypeAlias

import billing.metrics
import meter.metrics
from cli.meter_process import StopRequest
from cli.process import CommandError, Exit
from cli.workers.messages import Failed, Order, Question, Started
from cli.workers.ports import shared_ports
from cli.workers.roll import Roll
from meter.options import Addresses, MeterOptions
from meter.runtime.clock import SystemClock
from meter.runtime.ids import random_bytes

_log = logging.getLogger("tokenworks")
# Before one that ended is started again: doubled with each that lives for less than a minute.
_PAUSE_SECONDS_MIN: Final = 0.5
_PAUSE_SECONDS_MAX: Final = 30.0
_CALM_SECONDS: Final = 60.0
_NAME_BYTES: Final = 8

# None is that all of it is to stop.
News: TypeAlias = SimpleQueue[Started | Failed | None]


def run_workers(
    options: MeterOptions,
    *,
    count: int,
    customer_metrics_max: int,
    log_level: str,
    log_format: str,
    stop: StopRequest,
    ready: Callable[[Addresses], None],
) -> None:
    """Serve with so many processes until `stop`; `ready` is called once all of them answer.

    Raises CommandError when a port is taken, or one of them cannot start.
    """
    # In a signal handler, which may come at any moment, nothing but this may be used.
    news: News = SimpleQueue()
    stop.notify = lambda: news.put(None)
    options = replace(options, crew=random_bytes(_NAME_BYTES).hex())
    try:
        with shared_ports(options) as ports:
            order = Order(
                options=ports.options,
                customer_metrics_max=customer_metrics_max,
                log_level=log_level,
                log_format=log_format,
                http=ports.http.fileno(),
                otlp_http=None if ports.otlp_http is None else ports.otlp_http.fileno(),
            )
            supervisor = Supervisor(order, count=count, news=news)
            supervisor.start()
            try:
                _attend(news, count=count, ready=ready)
            finally:
                stop.ignore_further()
                supervisor.stop()
    except OSError as error:
        raise CommandError(f"{error}: another server has a port of this one") from error


def _attend(news: News, *, count: int, ready: Callable[[Addresses], None]) -> None:
    """Wait until all workers have started, and then for the end; raises CommandError."""
    for number in range(count + 1):
        told = news.get()
        if told is None:
            return
        if isinstance(told, Failed):
            raise CommandError(told.message, code=Exit(told.code))
        # Each starts once, as far as is told here; what comes last is the end.
        if number == count - 1:
            ready(told.addresses)


class Supervisor:
    """Keeps so many workers running, each on a thread of its own that also answers it."""

    def __init__(self, order: Order, *, count: int, news: News) -> None:
        """Take what they are to run; `news` hears of each that has started, or cannot."""
        self._order = order
        self._news = news
        self._clock = SystemClock()
        self._roll = Roll(
            count=count,
            catalogue=(*meter.metrics.CATALOGUE, *billing.metrics.CATALOGUE),
            monotonic_seconds=self._clock.monotonic_seconds,
        )
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        # Who has served once is started again; the command ends with who cannot.
        self._started: set[int] = set()
        self._threads = [
            threading.Thread(target=self._run, args=(number,), name=f"worker-{number}")
            for number in range(1, count + 1)
        ]

    def start(self) -> None:
        """Start them."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Have them end in good order; returns when they have."""
        with self._lock:
            self._stopping.set()
            for process in self._processes.values():
                process.terminate()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        try:
            self._keep(number)
        finally:
            # By a fault that nobody foresaw: workers that nobody watches are worse than none.
            if not self._stopping.is_set():
                fault = f"Nobody watches worker {number} any more; see the log."
                self._news.put(Failed(message=fault, code=Exit.FAILED))

    def _keep(self, number: int) -> None:
        """Start a worker, and again when it ends, until all are to stop."""
        pause_seconds = _PAUSE_SECONDS_MIN
        while not self._stopping.is_set():
            begun = self._clock.monotonic_seconds()
            failed = self._live(number)
            if failed is None:
                return
            if self._clock.monotonic_seconds() - begun >= _CALM_SECONDS:
                pause_seconds = _PAUSE_SECONDS_MIN
            if number not in self._started:
                self._news.put(failed)
                return
            told = {"worker": number, "fault": failed.message, "seconds": pause_seconds}
            _log.error("worker_ended", extra=told)
            self._stopping.wait(pause_seconds)
            pause_seconds = min(2 * pause_seconds, _PAUSE_SECONDS_MAX)

    def _live(self, number: int) -> Failed | None:
        """Run a worker to its end; returns why it ended, None where it was to."""
        ours_asked, theirs_asked = Pipe()
        ours_asking, theirs_asking = Pipe()
        with ours_asked, ours_asking:
            with theirs_asked, theirs_asking, self._lock:
                if self._stopping.is_set():
                    return None
                try:
                    process = self._begin(theirs_asked.fileno(), theirs_asking.fileno())
                except OSError as error:
                    return Failed(message=f"no process can be started: {error}", code=Exit.FAILED)
                self._processes[number] = process
            failed: Failed | None = None
            with suppress(EOFError, OSError):
                ours_asked.send(self._order)
                while True:
                    told = ours_asking.recv()
                    if isinstance(told, Question):
                        ours_asking.send(self._roll.answer(told))
                    elif isinstance(told, Started):
                        _log.info("worker_started", extra={"worker": number, "pid": process.pid})
                        self._roll.join(number, ours_asked)
                        if number not in self._started:
                            self._started.add(number)
                            self._news.put(told)
                    else:
                        failed = told
            self._roll.leave(number)
        code = process.wait()
        if self._stopping.is_set():
            return None
        return failed or Failed(message=_end_of(code), code=Exit.FAILED)

    def _begin(self, *pipes: int) -> subprocess.Popen[bytes]:
        sockets = [it for it in (self._order.http, self._order.otlp_http) if it is not None]
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "cli.workers.worker", *map(str, pipes)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(*pipes, *sockets),
            # Ctrl-C is the parent's: it tells the others.
            process_group=0,
        )


def _end_of(code: int) -> str:
    return f"a worker was ended by signal {-code}" if code < 0 else f"a worker ended with {code}"
