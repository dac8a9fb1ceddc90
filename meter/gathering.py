"""What many wait for is done for all of them together; what comes meanwhile is the next group."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

from meter.domain.errors import MeterError, StoreRefusal

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Gathering(Generic[Item, Answer]):
    """Has items worked on in groups, one at a time; lives on the event loop.

    Nobody waits for a group to fill: the first goes at once, and whoever comes before it is back
    goes together after it. Items of one key are never worked on at the same time, and keep their
    order. Who no longer waits for its answer is left out of a group that has not begun, and harms
    none that has.
    """

    def __init__(
        self,
        together: Callable[[Sequence[Item]], Awaitable[Sequence[Answer | None]]],
        alone: Callable[[Item], Awaitable[Answer]],
        *,
        key_of: Callable[[Item], Hashable],
        size_max: int,
        alone_max: int,
    ) -> None:
        """Take what answers up to `size_max` items, in order, and what answers one.

        `together` answers None for an item that would hold up the others. That one is handed to
        `alone`, beside the next groups, with up to `alone_max` at a time; so are all items of a
        group that failed by what was in it. What `alone` raises is its item's answer; a MeterError
        of `together` that is no StoreRefusal is everyone's.
        """
        self._together = together
        self._alone = alone
        self._key_of = key_of
        self._size_max = size_max
        self._waiting: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self._working: asyncio.Task[None] | None = None
        self._doors = asyncio.Semaphore(alone_max)
        self._lone: dict[Hashable, asyncio.Task[None]] = {}

    async def ask(self, item: Item) -> Answer:
        """Return the answer to an item; raises what working on it raised."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._begin()
        return await future

    def _begin(self) -> None:
        if self._working is None:
            self._working = asyncio.create_task(self._work())

    async def _work(self) -> None:
        while group := self._take_group():
            items = [item for item, _ in group]
            (found,) = await asyncio.gather(self._together(items), return_exceptions=True)
            if isinstance(found, MeterError) and not isinstance(found, StoreRefusal):
                for _, future in group:
                    _fail(future, found)
                continue
            answers = [None] * len(group) if isinstance(found, BaseException) else found
            for (item, future), answer in zip(group, answers, strict=True):
                if answer is None:
                    lone = asyncio.create_task(self._answer_alone(item, future))
                    self._lone[self._key_of(item)] = lone
                elif not future.done():
                    future.set_result(answer)
        self._working = None

    def _take_group(self) -> Sequence[tuple[Item, "asyncio.Future[Answer]"]]:
        group: dict[Hashable, tuple[Item, asyncio.Future[Answer]]] = {}
        left = []
        while self._waiting and len(group) < self._size_max:
            item, future = self._waiting.popleft()
            key = self._key_of(item)
            if future.done():
                continue
            if key in group or key in self._lone:
                left.append((item, future))
            else:
                group[key] = (item, future)
        self._waiting.extendleft(reversed(left))
        return list(group.values())

    async def _answer_alone(self, item: Item, future: "asyncio.Future[Answer]") -> None:
        async with self._doors:
            if not future.done():
                (found,) = await asyncio.gather(self._alone(item), return_exceptions=True)
                if isinstance(found, BaseException):
                    _fail(future, found)
                elif not future.done():
                    future.set_result(found)
        del self._lone[self._key_of(item)]
        # What has the same key may have waited for this alone.
        self._begin()


def _fail(future: "asyncio.Future[Answer]", error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
        # Who is cancelled before it hears of it does not ask; that is no fault.
        future.exception()
