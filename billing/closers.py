"""Who closes: one after the other in this process, or several processes side by side."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from billing.close_result import Closed, Outcome, Tally
from billing.issued import Doing
from billing.period_closing import PeriodClosing
from billing.triage import Ready
from meter.spans import span


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Periods of different contracts that one transaction closes, by usage up to a cut.

    Unless it `tells_all`, only those are told of that wait for somebody; the others are counted.
    """

    ready: tuple[Ready, ...]
    cut_id: int
    doing: Doing
    tells_all: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkDone:
    """What came of a chunk; `left` are those that another job is at."""

    counts: Mapping[Outcome, int]
    told: tuple[Closed, ...]
    left: tuple[Ready, ...]


class Closers(Protocol):
    """Closes chunks, some at the same time; reads them no faster than they are closed."""

    def run(self, chunks: Iterator[Chunk]) -> Iterator[ChunkDone]:
        """Yield what came of chunks, in any order, once each is committed."""
        ...


# Makes so many processes, for the time of the block.
MakeClosers: TypeAlias = Callable[[int], AbstractContextManager[Closers]]


class OwnProcess:
    """Closes in this very process."""

    def __init__(self, closing: PeriodClosing) -> None:
        """Take what closes."""
        self._closing = closing

    def run(self, chunks: Iterator[Chunk]) -> Iterator[ChunkDone]:
        """Yield what came of chunks, in order."""
        for chunk in chunks:
            yield close_chunk(self._closing, chunk)


def close_chunk(closing: PeriodClosing, chunk: Chunk) -> ChunkDone:
    """Close a chunk, but for what another job is at; raises Unavailable."""
    with span("close batch", periods=len(chunk.ready), cut_id=chunk.cut_id):
        closed = closing.close(
            chunk.ready, cut_id=chunk.cut_id, doing=chunk.doing, skip_locked=True
        )
    done = {(it.period.version.contract, it.period.span.start_ms) for it in closed}
    tally = Tally()
    tally.add(closed)
    return ChunkDone(
        counts=dict(tally.counts),
        told=tuple(tally.told() if chunk.tells_all else tally.waiting()),
        left=tuple(it for it in chunk.ready if it.key not in done),
    )
