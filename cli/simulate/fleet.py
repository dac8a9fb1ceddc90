"""The fleet: one process for each server, and what they report of themselves."""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection, get_context
from multiprocessing.process import BaseProcess
from typing import Final

from cli.simulate.server import Progress, Replay, serve

# After its last report a process only has to end.
_JOIN_SECONDS_MAX: Final = 10.0


def run_fleet(replay: Replay, *, on_progress: Callable[[Progress], None]) -> list[Progress | None]:
    """Run the servers to their end; returns the last Progress of each, None where there is none.

    A server that died has a last Progress that is not final. Ctrl-C makes the servers report no
    more, and wait for what they reported; a second one ends them.
    """
    # Spawned, not forked: each is a fresh process, as servers are, and gRPC does not like forks.
    context = get_context("spawn")
    stop = context.Event()
    last: list[Progress | None] = [None] * replay.server_count
    readers: list[connection.Connection[None, Progress]] = []
    processes: list[BaseProcess] = []
    try:
        with interrupts_ignored():
            for server_index in range(replay.server_count):
                reader, writer = context.Pipe(duplex=False)
                process = context.Process(
                    target=serve,
                    args=(replay, server_index, writer, stop),
                    name=replay.producer(server_index),
                    daemon=True,
                )
                process.start()
                # Only the process holds its end now, so that its death shows as end of file.
                writer.close()
                readers.append(reader)
                processes.append(process)
        try:
            _listen(readers, last=last, on_progress=on_progress)
        except KeyboardInterrupt:
            stop.set()
            _listen(readers, last=last, on_progress=on_progress)
    finally:
        _end(processes, readers=readers)
    return last


@contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Start processes that ignore Ctrl-C from their first instruction on.

    It reaches the whole group, and what it means is decided here alone.
    """
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _listen(
    readers: "Sequence[connection.Connection[None, Progress]]",
    *,
    last: list[Progress | None],
    on_progress: Callable[[Progress], None],
) -> None:
    """Take in reports until every process has closed its end."""
    waiting = [reader for reader in readers if not reader.closed]
    while waiting:
        for ready in connection.wait(waiting):
            assert isinstance(ready, connection.Connection)
            try:
                progress = ready.recv()
            except EOFError:
                ready.close()
                waiting.remove(ready)
                continue
            last[progress.server_index] = progress
            on_progress(progress)


def _end(
    processes: Sequence[BaseProcess],
    *,
    readers: "Sequence[connection.Connection[None, Progress]]",
) -> None:
    # Whoever has not reported to the end by now is not waited for.
    seconds = _JOIN_SECONDS_MAX if all(reader.closed for reader in readers) else 0.0
    for process in processes:
        process.join(seconds)
        if process.is_alive():
            process.kill()
            process.join()
        process.close()
    for reader in readers:
        reader.close()
