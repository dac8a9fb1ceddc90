"""Processes that close side by side: each with a connection to the database and a look of its own.

They are started anew and not forked: a server that closes has threads.
"""

import multiprocessing
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Final

import billing.app
import meter.lending
from billing.closers import Chunk, ChunkDone, Closers, MakeClosers, close_chunk
from billing.period_closing import PeriodClosing
from cli.traces import tracing
from meter.domain.errors import Reason, Unavailable
from meter.options import JobOptions
from meter.runtime.garbage import uncollected

# Chunks that wait for each process: it never stands still, and little is read ahead.
_AHEAD: Final = 2


def make_closers(options: JobOptions) -> MakeClosers:
    """Return what makes processes that close on a database."""

    def make(count: int) -> AbstractContextManager[Closers]:
        return _closers(options, count)

    return make


@contextmanager
def _closers(options: JobOptions, count: int) -> Iterator[Closers]:
    pool = ProcessPoolExecutor(
        count,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start,
        initargs=(options,),
    )
    try:
        for _ in range(count):
            # A process starts when it is handed something: now, so that it reads the terms by then.
            pool.submit(_ready)
        yield _Processes(pool, chunk_count_max=count * _AHEAD)
    finally:
        pool.shutdown(cancel_futures=True)


class _Processes:
    """Hands chunks to processes, a few ahead of what is done."""

    def __init__(self, pool: ProcessPoolExecutor, *, chunk_count_max: int) -> None:
        self._pool = pool
        self._chunk_count_max = chunk_count_max

    def run(self, chunks: Iterator[Chunk]) -> Iterator[ChunkDone]:
        """Yield what came of chunks, in order; raises Unavailable when a process has died."""
        under_way: deque[Future[ChunkDone]] = deque()
        try:
            for chunk in chunks:
                under_way.append(self._pool.submit(_close, chunk))
                if len(under_way) >= self._chunk_count_max:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        except BrokenProcessPool as error:
            raise Unavailable(
                Reason.STORE_UNAVAILABLE,
                "A process that closes has died; what it had not committed is open. Close again.",
            ) from error


class _Own:
    """What this process, one of several, closes with."""

    stack: Final = ExitStack()
    closing: PeriodClosing | None = None


def _start(options: JobOptions) -> None:
    """Connect, in a process of its own."""
    host = _Own.stack.enter_context(meter.lending.open_host(options))
    _Own.stack.enter_context(tracing(options.otlp_traces_endpoint))
    _Own.closing = billing.app.make_closing(host).closer
    _Own.closing.look()


def _ready() -> None:
    """Do nothing, in a process that is started for it."""


def _close(chunk: Chunk) -> ChunkDone:
    assert _Own.closing is not None, "it was started"
    # What a chunk is made of is let go by its end; a collection in between finds nothing.
    with uncollected():
        return close_chunk(_Own.closing, chunk)
