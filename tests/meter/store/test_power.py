"""How well power is known, from the counters of a real Postgres."""

import pytest
from sqlalchemy import Engine

from meter.domain.boundary import Boundary
from meter.energy.counters import Bounds, Reading, Source
from meter.energy.factory import UNDESCRIBED, Factory, Pool
from meter.energy.validity import PoolDevices, SilentDevice
from meter.store.energy import EnergyStore
from meter.store.factories import FactoryStore
from meter.store.power import PowerStore
from tests.meter.plain_events import BEGIN_MS

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
NOW_MS = BEGIN_MS + 10 * HOUR_MS
GAPS_MS = {it: 15 * MINUTE_MS if it is Source.REPORTED else MINUTE_MS for it in Source}


@pytest.fixture
def power(engine: Engine) -> PowerStore:
    """Tells of a factory's devices: some fresh, some silent, some long gone."""
    store = EnergyStore(engine, factories=FactoryStore(engine))
    seen = [
        ("GPU-1", Boundary.BOARD, "h100", Source.DCGM, MINUTE_MS),
        ("GPU-2", Boundary.BOARD, "h100", Source.DCGM, MINUTE_MS + 1),
        ("GPU-3", Boundary.BOARD, "h100", Source.DCGM, 6 * HOUR_MS),
        ("GPU-4", Boundary.BOARD, "h100", Source.DCGM, 6 * HOUR_MS + 1),
        ("rack", Boundary.BOARD, "h100", Source.REPORTED, 15 * MINUTE_MS),
        ("static:h100", Boundary.BOARD, "h100", Source.STATIC, HOUR_MS),
        ("node-1", Boundary.HOST, "h100", Source.REPORTED, HOUR_MS),
        ("static:old", Boundary.BOARD, "old", Source.STATIC, 2 * HOUR_MS),
        ("meter", Boundary.FACILITY, "oslo", Source.REPORTED, HOUR_MS),
    ]
    bounds = Bounds(watts_max=dict.fromkeys(Boundary, 1), gaps_ms=GAPS_MS)
    for device, boundary, name, source, ago_ms in seen:
        reading = Reading(
            boundary=boundary, name=name, device=device, time_ms=NOW_MS - ago_ms, counter_mj=0
        )
        store.record([reading], source=source, bounds=bounds)
    return PowerStore(engine)


def devices(
    device_count: int,
    fresh_count: int,
    *,
    ago_ms: int,
    source: Source,
    pool: str = "h100",
    boundary: Boundary = Boundary.BOARD,
    listed_count: int = 0,
) -> PoolDevices:
    """Return a pool's devices, the newest of which was seen so long ago."""
    return PoolDevices(
        pool=pool,
        boundary=boundary,
        source=source,
        device_count=device_count,
        fresh_count=fresh_count,
        listed_count=listed_count,
        last_sample_ms=NOW_MS - ago_ms,
    )


def test_pools__by_boundary_and_source(power: PowerStore) -> None:
    """Devices of the last 6 hours, and of them those with a fresh sample; sites are no pools."""
    assert power.pools(now_ms=NOW_MS, gaps_ms=GAPS_MS, factory=UNDESCRIBED) == [
        devices(3, 1, ago_ms=MINUTE_MS, source=Source.DCGM),
        devices(1, 1, ago_ms=15 * MINUTE_MS, source=Source.REPORTED),
        devices(1, 0, ago_ms=HOUR_MS, source=Source.STATIC),
        devices(1, 0, ago_ms=HOUR_MS, source=Source.REPORTED, boundary=Boundary.HOST),
        devices(1, 0, ago_ms=2 * HOUR_MS, source=Source.STATIC, pool="old"),
    ]


def test_pools__that_are_listed(power: PowerStore) -> None:
    """Devices that the description lists are counted, in their own pool, if they are there."""
    names = frozenset({"GPU-2", "GPU-3", "GPU-4", "GPU-5"})
    pools = {
        name: Pool(pool=name, site="oslo", hardware="", devices=listed)
        for name, listed in (("h100", names), ("h200", frozenset({"GPU-1"})))
    }
    factory = Factory(version=1, start_ms=0, pools=pools)
    found = power.pools(now_ms=NOW_MS, gaps_ms=GAPS_MS, factory=factory)
    assert [it.listed_count for it in found] == [2, 0, 0, 0, 0]


def test_silent__the_longest_first(power: PowerStore) -> None:
    """Silent devices of the last 6 hours; a rating is none where something is measured."""
    expected = [
        SilentDevice(pool=pool, device=device, source=source, last_sample_ms=NOW_MS - ago_ms)
        for pool, device, source, ago_ms in (
            ("h100", "GPU-3", Source.DCGM, 6 * HOUR_MS),
            ("old", "static:old", Source.STATIC, 2 * HOUR_MS),
            ("h100", "node-1", Source.REPORTED, HOUR_MS),
            ("h100", "GPU-2", Source.DCGM, MINUTE_MS + 1),
        )
    ]
    for devices_max in (9, 2):
        found = power.silent(now_ms=NOW_MS, gaps_ms=GAPS_MS, devices_max=devices_max)
        assert found == expected[:devices_max]
