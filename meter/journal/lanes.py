"""What waits for its commit, taken in turn: nobody's many hold up another's few."""

from collections import deque
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Lanes(Generic[Item]):
    """A queue for each sender; one item of each is taken in turn. A sender's own keep their order.

    A sender that comes anew waits for at most one item of each other.
    """

    def __init__(self) -> None:
        """Begin empty."""
        self._lanes: dict[Hashable, deque[Item]] = {}
        self._turns: deque[Hashable] = deque()
        self._count = 0

    def __len__(self) -> int:
        """Return how many items wait."""
        return self._count

    def put(self, lane: Hashable, item: Item) -> None:
        """Add an item behind those of its sender."""
        self._lane(lane).append(item)
        self._count += 1

    def put_back(self, items: Iterable[tuple[Hashable, Item]]) -> None:
        """Add items, in the order in which they were taken, before those of their senders."""
        for lane, item in reversed(list(items)):
            self._lane(lane).appendleft(item)
            self._count += 1

    def peek(self) -> Item:
        """Return the item whose turn it is; there must be one."""
        return self._lanes[self._turns[0]][0]

    def take(self) -> Item:
        """Remove and return the item whose turn it is; there must be one."""
        lane = self._turns.popleft()
        waiting = self._lanes[lane]
        item = waiting.popleft()
        self._count -= 1
        if waiting:
            self._turns.append(lane)
        else:
            del self._lanes[lane]
        return item

    def take_all(self) -> list[Item]:
        """Remove and return all items."""
        return [self.take() for _ in range(self._count)]

    def _lane(self, lane: Hashable) -> deque[Item]:
        waiting = self._lanes.get(lane)
        if waiting is None:
            waiting = self._lanes[lane] = deque()
            self._turns.append(lane)
        return waiting
