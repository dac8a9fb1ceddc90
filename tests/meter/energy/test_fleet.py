"""Tokens that all servers counted, as the one hears of them that reads the energy."""

from sqlalchemy import Engine

from meter.domain.interval import INTERVAL_MS
from meter.energy.fleet import FleetServed, ServedKey, ServedSums
from meter.energy.live import Served
from meter.store.pool_served import PoolServedStore
from tests.meter.plain_events import BEGIN_MS
from tests.meter.store.pooled import serve
from tests.meter.store.recording import counting_of, follow, owner


class Counted:
    """Sums in memory, and whether others live."""

    def __init__(self) -> None:
        self.found: dict[ServedKey, ServedSums] = {}
        self.asked_ms: list[int] = []
        self.is_alone = False
        self.fleet = FleetServed(self, now_ms=lambda: BEGIN_MS + 1, is_alone=lambda: self.is_alone)

    def sums(self, *, since_ms: int) -> dict[ServedKey, ServedSums]:
        """Return them."""
        self.asked_ms.append(since_ms)
        return dict(self.found)


def served(tier: str, **counts: int) -> Served:
    """Return what the pool h100 served at a tier."""
    return Served(pool="h100", tier=tier, model="m", **counts)


KEY: ServedKey = ("h100", "high", "m", BEGIN_MS)


def test_look__by_how_much_sums_have_risen() -> None:
    """The first look says where sums stand; each later one what came to them, never what went."""
    counted = Counted()
    counted.found[KEY] = (5, 1, 7, 2)
    seen = [counted.fleet.look()]
    counted.found[KEY] = (5, 2, 10, 3)
    counted.found["h100", "free", "m", BEGIN_MS] = (1, 0, 0, 1)
    seen += [counted.fleet.look(), counted.fleet.look()]
    counted.found[KEY] = (0, 0, 0, 2)
    seen.append(counted.fleet.look())
    assert seen == [
        [],
        [
            served("high", cached_tokens=1, output_tokens=3, request_count=1),
            served("free", input_tokens=1, request_count=1),
        ],
        [],
        [],
    ]


def test_look__alone() -> None:
    """Who is alone asks nobody, and begins anew when others come."""
    counted = Counted()
    counted.is_alone = True
    counted.found[KEY] = (5, 1, 7, 2)
    assert [counted.fleet.look(), counted.asked_ms] == [[], []]
    counted.is_alone = False
    assert counted.fleet.look() == []
    assert counted.asked_ms == [BEGIN_MS - 2 * INTERVAL_MS]


def test_look__at_what_another_server_counted(engine: Engine) -> None:
    """What is counted by whom does not matter, and old intervals do not either."""
    fleet = FleetServed(PoolServedStore(engine), now_ms=lambda: BEGIN_MS, is_alone=lambda: False)
    journals = [owner(engine, shard=shard) for shard in (0, 1)]
    followers = [follow(counting_of(engine, shard=shard)) for shard in (0, 1)]
    looks = []
    for output in (5, 7):
        for shard, journal in enumerate(journals):
            serve(journal, shard, output=output)
        serve(journals[0], 0, output=output, end_ms=BEGIN_MS - 4 * INTERVAL_MS)
        serve(journals[0], 3, output=output)
        for follower in followers:
            follower.count_once()
        looks.append(sorted(fleet.look(), key=lambda it: it.tier))
    assert looks == [
        [],
        [
            served("free", output_tokens=7, request_count=1),
            served("high", output_tokens=7, request_count=1),
        ],
    ]
