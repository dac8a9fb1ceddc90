"""Gathering: what waits is done together, and nobody's fault or delay is another's."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from meter.domain.errors import Overloaded, Reason, StoreRefusal, Unavailable
from meter.gathering import Gathering


class Desk:
    """Works on names like `a` or `a2`, of which the first letter is the key, and notes how.

    `held` names are not answered together; `faults` are what working on a name raises.
    """

    def __init__(self, *, size_max: int = 100, alone_max: int = 1) -> None:
        self.groups: list[str] = []
        self.lone: list[str] = []
        self.lone_at_once = 0
        self.held: set[str] = set()
        self.faults: dict[str, Exception] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.lone_gate = asyncio.Event()
        self.lone_gate.set()
        self._lone_count = 0
        self.gathering: Gathering[str, str] = Gathering(
            self._together,
            self._alone,
            key_of=lambda name: name[0],
            size_max=size_max,
            alone_max=alone_max,
        )

    def ask(self, *names: str) -> list["asyncio.Task[str]"]:
        """Ask for each of the names."""
        return [asyncio.create_task(self.gathering.ask(name)) for name in names]

    async def _together(self, names: Sequence[str]) -> Sequence[str | None]:
        self.groups.append(" ".join(names))
        await self.gate.wait()
        for name in names:
            if name in self.faults:
                raise self.faults[name]
        return [None if name in self.held else name.upper() for name in names]

    async def _alone(self, name: str) -> str:
        self.lone.append(name)
        self._lone_count += 1
        self.lone_at_once = max(self.lone_at_once, self._lone_count)
        await self.lone_gate.wait()
        self._lone_count -= 1
        if name in self.faults:
            raise self.faults[name]
        return name.upper()


def run(work: Callable[[Desk], Awaitable[None]], desk: Callable[[], Desk] = Desk) -> Desk:
    """Live through it; nothing there waits for longer than ten seconds."""

    async def live() -> Desk:
        own = desk()
        async with asyncio.timeout(10):
            await work(own)
        return own

    return asyncio.run(live())


async def settle() -> None:
    """Return when all that can go on has gone on."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_ask__what_comes_meanwhile_goes_together() -> None:
    """The first goes at once and alone; all who come before it is back are the next group."""

    async def work(desk: Desk) -> None:
        desk.gate.clear()
        first = desk.ask("a")
        await settle()
        rest = desk.ask("b", "c", "d")
        await settle()
        assert desk.groups == ["a"]
        desk.gate.set()
        assert await asyncio.gather(*first, *rest) == ["A", "B", "C", "D"]

    assert run(work).groups == ["a", "b c d"]


def test_ask__a_group_is_bounded_and_has_a_key_once() -> None:
    """What is too much, or of a key that is in the group, is of the next one, in its order."""

    async def work(desk: Desk) -> None:
        asked = desk.ask("a", "b", "a2", "c", "d", "a3", "b2")
        await asyncio.gather(*asked)

    assert run(work, lambda: Desk(size_max=3)).groups == ["a b c", "a2 d b2", "a3"]


def test_ask__who_is_held_holds_up_nobody() -> None:
    """One that is held is waited for alone, while groups go on; its key's others wait for it."""

    async def work(desk: Desk) -> None:
        desk.held = {"a"}
        desk.lone_gate.clear()
        held, free, second = desk.ask("a", "b", "a2")
        assert await free == "B"
        assert await asyncio.gather(*desk.ask("c", "d")) == ["C", "D"]
        assert (desk.lone, held.done(), second.done()) == (["a"], False, False)
        desk.lone_gate.set()
        assert [await held, await second] == ["A", "A2"]

    assert run(work).groups == ["a b", "c d", "a2"]


def test_ask__so_many_wait_alone_at_a_time() -> None:
    """Of those that are held no more wait at a time than may."""

    async def work(desk: Desk) -> None:
        desk.held = {"a", "b", "c", "d", "e"}
        desk.lone_gate.clear()
        asked = desk.ask(*desk.held)
        await settle()
        assert len(desk.lone) == 2
        desk.lone_gate.set()
        await asyncio.gather(*asked)

    assert run(work, lambda: Desk(alone_max=2)).lone_at_once == 2


@pytest.mark.parametrize("fault", [ValueError("odd"), StoreRefusal(Reason.INTERNAL, "odd")])
def test_ask__what_is_wrong_with_one_is_its_own(fault: Exception) -> None:
    """A group that fails by what is in it is done one by one; only the culprit hears of it."""

    async def work(desk: Desk) -> None:
        desk.faults = {"b": fault}
        found = await asyncio.gather(*desk.ask("a", "b", "c"), return_exceptions=True)
        assert found == ["A", fault, "C"]
        assert await asyncio.gather(*desk.ask("b2")) == ["B2"]

    run(work)


def test_ask__what_alone_raises_is_its_own() -> None:
    """A refusal of one that was left over reaches it and nobody else."""

    async def work(desk: Desk) -> None:
        desk.held = {"a"}
        desk.lone_gate.clear()
        held, free = desk.ask("a", "b")
        assert await free == "B"
        desk.faults = {"a": Overloaded(Reason.OVERLOADED, "too many")}
        desk.lone_gate.set()
        with pytest.raises(Overloaded):
            await held

    run(work)


def test_ask__a_database_that_is_away_is_everyones() -> None:
    """All of a group hear that the database is away, nobody is tried alone; the next group goes."""
    away = Unavailable(Reason.STORE_UNAVAILABLE, "away")

    async def work(desk: Desk) -> None:
        desk.faults = {"b": away}
        found = await asyncio.gather(*desk.ask("a", "b"), return_exceptions=True)
        assert found == [away, away]
        desk.faults = {}
        assert await asyncio.gather(*desk.ask("a", "b")) == ["A", "B"]

    assert run(work).lone == []


def test_ask__who_is_gone_harms_nobody() -> None:
    """Who waits no more is left out; of a group under way, and alone, the others get theirs."""

    async def work(desk: Desk) -> None:
        desk.gate.clear()
        gone, stays = desk.ask("a", "b")
        await settle()
        left_out, held, last = desk.ask("c", "d", "e")
        await settle()
        gone.cancel()
        left_out.cancel()
        desk.held = {"d"}
        desk.lone_gate.clear()
        desk.gate.set()
        assert [await stays, await last] == ["B", "E"]
        held.cancel()
        await settle()
        again = desk.ask("d2")
        desk.lone_gate.set()
        assert await asyncio.gather(*again) == ["D2"]
        assert desk.groups == ["a b", "d e", "d2"]

    run(work)


def test_ask__who_is_gone_before_its_turn_alone_is_not_worked_on() -> None:
    """One that is held and gives up before a place is free costs nobody that place."""

    async def work(desk: Desk) -> None:
        desk.held = {"a", "b"}
        desk.lone_gate.clear()
        first, second = desk.ask("a", "b")
        await settle()
        second.cancel()
        await settle()
        desk.lone_gate.set()
        assert await first == "A"
        await settle()

    assert run(work).lone == ["a"]
