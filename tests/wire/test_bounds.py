"""What one API key and one producer may take: held back first, then refused, and no other is."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from meter.domain import limits
from meter.domain.errors import Overloaded
from meter.metrics import Metrics
from meter.wire.bounds import Bound, Bounds


class Held:
    """A clock that moves when somebody is held back, and for how long that was."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Stand in for the loop's waiting."""
        self.now = 0.0
        self.seconds: list[float] = []
        monkeypatch.setattr("meter.wire.bounds.asyncio.sleep", self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.seconds.append(seconds)
        self.now += seconds


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    """Nobody really waits."""
    return Held(monkeypatch)


@pytest.fixture
def bounds(held: Held) -> Bounds:
    """Bounds with ten calls a second."""
    return Bounds(Metrics(), calls_per_second_max=10, monotonic_seconds=lambda: held.now)


def told(bounds: Bounds, bound: Bound) -> float:
    """Return how often a bound was reached, by the metrics."""
    metrics = bounds._metrics  # noqa: SLF001  as /metrics shows it
    found = metrics.registry.get_sample_value(
        "tokenworks_bounds_reached_total", {"bound": bound.value}
    )
    return found or 0.0


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run on a loop of its own."""
    asyncio.run(work())


def test_call__more_than_the_pace_is_held_back(bounds: Bounds, held: Held) -> None:
    """A key's calls go at its pace, and the next key's do not wait for them."""

    async def work() -> None:
        for _ in range(12):
            async with bounds.of("greedy").call():
                pass
        assert held.seconds == [pytest.approx(0.1), pytest.approx(0.1)]
        async with bounds.of("modest").call():
            pass
        assert len(held.seconds) == 2

    run(work)
    assert told(bounds, Bound.CALLS) == 2


def test_call__is_refused_after_it_was_held(
    bounds: Bounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many at once those whose turn is far off are refused, none of them without a wait."""
    refused: list[Overloaded] = []
    seconds: list[float] = []

    async def keep(amount: float) -> None:
        seconds.append(amount)

    async def one() -> None:
        try:
            async with bounds.of("greedy").call():
                pass
        except Overloaded as error:
            refused.append(error)

    async def work() -> None:
        await asyncio.gather(*(one() for _ in range(10 + 50 + 5)))

    monkeypatch.setattr("meter.wire.bounds.asyncio.sleep", keep)
    run(work)
    assert len(refused) == 5
    assert len(seconds) == 55
    # The last that was let in, and those that were not.
    assert sum(it > limits.HOLD_SECONDS_MAX - 0.05 for it in seconds) == 1 + 5
    assert max(seconds) == limits.HOLD_SECONDS_MAX
    assert refused[0].metadata == {"bound": "calls"}


def test_stream__above_the_bound_is_refused(
    bounds: Bounds, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key holds so many streams; one that ends makes room, and another key has its own."""
    monkeypatch.setattr(limits, "KEY_STREAMS_MAX", 1)

    async def work() -> None:
        share = bounds.of("greedy")
        async with share.stream():
            with pytest.raises(Overloaded):
                async with share.stream():
                    pass
            async with bounds.of("modest").stream():
                pass
        async with share.stream():
            pass

    run(work)
    assert held.seconds == [1], "a refusal waits, too"
    assert told(bounds, Bound.STREAMS) == 1


def test_opening__a_flood_goes_at_a_pace(
    bounds: Bounds, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many streams as may be open are opened at once; from then on so many a second."""
    monkeypatch.setattr(limits, "KEY_STREAMS_MAX", 3)

    async def work() -> None:
        share = bounds.of("greedy")
        for _ in range(5):
            async with share.opening():
                pass

    run(work)
    pace = 1 / limits.KEY_OPENINGS_SECOND_MAX
    assert held.seconds == [pytest.approx(pace), pytest.approx(pace)]


def test_opening__who_is_refused_takes_nobodys_turn(
    bounds: Bounds, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While thousands are held back to be refused, so many a second are still opened."""
    monkeypatch.setattr(limits, "KEY_STREAMS_MAX", 3)
    in_time = 3 + round(limits.HOLD_SECONDS_MAX * limits.KEY_OPENINGS_SECOND_MAX)

    async def work() -> None:
        awake = asyncio.Event()

        async def sleep(_: float) -> None:
            await awake.wait()

        monkeypatch.setattr("meter.wire.bounds.asyncio.sleep", sleep)
        share = bounds.of("greedy")

        async def open_once() -> bool:
            try:
                async with share.opening():
                    return True
            except Overloaded:
                return False

        flood = [asyncio.create_task(open_once()) for _ in range(in_time + 1_000)]
        # Then all others are held back.
        await asyncio.wait(flood[:3])
        held.now += 1.0
        later = asyncio.create_task(open_once())
        awake.set()
        assert sum(await asyncio.gather(*flood)) == in_time
        assert await later

    run(work)


def test_message__a_flood_goes_at_a_pace(bounds: Bounds, held: Held) -> None:
    """A producer's batches go at its pace, over however many streams; another's do not wait."""
    most = limits.PRODUCER_BATCHES_SECOND_MAX

    async def work() -> None:
        share = bounds.of("key")
        for _ in range(most + 3):
            await share.sender("flood").message()
        assert held.seconds == [pytest.approx(1 / most)] * 3
        await share.sender("honest").message()
        assert len(held.seconds) == 3

    run(work)


def test_news__only_who_brings_them_is_held(bounds: Bounds, held: Held) -> None:
    """New dimensions in a flood hold back, and refuse, who brings them; others of the key go on."""
    burst = limits.KEY_DIMENSIONS_BURST_MAX
    pace = limits.KEY_DIMENSIONS_MINUTE_MAX / 60

    async def work() -> None:
        share = bounds.of("key")
        flood, honest = share.sender("flood"), share.sender("honest")
        flood.met(burst + 100)
        await flood.news()
        assert held.seconds == [pytest.approx(101 / pace)]
        flood.met(burst)
        with pytest.raises(Overloaded):
            await flood.news()
        assert held.seconds[1:] == [limits.HOLD_SECONDS_MAX]
        await honest.news()
        assert len(held.seconds) == 2

    run(work)


def test_known__dimensions_of_the_database_are_not_new(bounds: Bounds, held: Held) -> None:
    """After a start all dimensions are new to the server, and cost nobody anything."""

    async def work() -> None:
        sender = bounds.of("key").sender("honest")
        for _ in range(5):
            sender.met(limits.KEY_DIMENSIONS_BURST_MAX)
            sender.known(limits.KEY_DIMENSIONS_BURST_MAX)
            await sender.news()
        sender.met(10)
        await sender.news()

    run(work)
    assert held.seconds == []


def test_events__wait_for_room(bounds: Bounds) -> None:
    """So many events of a key's calls are worked on at a time; others wait for some to be done."""
    done: list[str] = []

    async def work() -> None:
        share = bounds.of("key")
        begun, release = asyncio.Event(), asyncio.Event()

        async def first() -> None:
            async with share.events(limits.KEY_EVENTS_AT_ONCE_MAX):
                begun.set()
                await release.wait()
                done.append("first")

        async def second() -> None:
            async with share.events(1):
                done.append("second")

        one = asyncio.create_task(first())
        await begun.wait()
        two = asyncio.create_task(second())
        async with bounds.of("other").events(1):
            done.append("other")
        release.set()
        waiting: list[Awaitable[None]] = [one, two]
        await asyncio.gather(*waiting)

    run(work)
    assert done == ["other", "first", "second"]


def test_of__forgets_keys_at_rest(bounds: Bounds, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory stays: keys that rest are forgotten, one that is at work is not."""
    monkeypatch.setattr(limits, "KEYS_BOUNDED_MAX", 3)

    async def work() -> None:
        busy = bounds.of("busy")
        async with busy.stream():
            for number in range(20):
                bounds.of(f"key-{number}")
            assert bounds.of("busy") is busy

    run(work)
    assert len(bounds._shares) <= 4  # noqa: SLF001  its memory is the point
