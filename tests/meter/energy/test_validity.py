"""Whether a pool's power is valid: each reason why it is not, alone and beside the others."""

from typing import Any

import pytest

from meter.domain.boundary import Boundary
from meter.energy.counters import Source
from meter.energy.cross_check import Agreement
from meter.energy.factory import UNDESCRIBED, Factory, Pool
from meter.energy.validity import (
    PoolDevices,
    PowerFault,
    Recently,
    Seen,
    has_counters,
    judge,
)

NOTHING = Seen()


def devices(fresh: int, of: int | None = None, **changes: Any) -> PoolDevices:  # noqa: ANN401
    """Return devices of a pool, of which so many are fresh."""
    fields: dict[str, Any] = {
        "pool": "h100",
        "boundary": Boundary.BOARD,
        "source": Source.DCGM,
        "device_count": fresh if of is None else of,
        "fresh_count": fresh,
        "listed_count": 0,
        "last_sample_ms": 1_000,
        **changes,
    }
    return PoolDevices(**fields)


def described(device_count: int | None = None, names: int = 0) -> Factory:
    """Return a description of the pool, with so many devices, or that lists so many."""
    listed = frozenset(f"GPU-{number}" for number in range(names))
    pool = Pool(
        pool="h100", site="oslo", hardware="H100", device_count=device_count, devices=listed
    )
    return Factory(version=1, start_ms=0, pools={"h100": pool})


def faults(
    *found: PoolDevices, factory: Factory = UNDESCRIBED, seen: Seen = NOTHING
) -> tuple[PowerFault, ...]:
    """Return what speaks against the power of the one pool."""
    (power,) = judge(found, factory=factory, seen=seen)
    assert power.is_valid is not bool(power.faults)
    return power.faults


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (devices(4), ()),
        (devices(3, 4), (PowerFault.STALE,)),
        (devices(0, 4), (PowerFault.NO_SAMPLE,)),
        # All of them were taken out, or are silent for longer than it matters.
        (devices(0, 0), (PowerFault.NO_SAMPLE,)),
        (devices(1, boundary=Boundary.HOST), ()),
        (devices(1, source=Source.STATIC), ()),
    ],
)
def test_judge__samples(found: PoolDevices, expected: tuple[PowerFault, ...]) -> None:
    """Each device of late has to have a fresh sample, and there has to be one."""
    assert faults(found) == expected


@pytest.mark.parametrize(
    ("found", "factory", "expected"),
    [
        ([devices(4)], described(4), ()),
        ([devices(3)], described(4), (PowerFault.DEVICES,)),
        ([devices(5)], described(4), (PowerFault.DEVICES,)),
        ([devices(3, 4)], described(4), (PowerFault.STALE,)),
        ([devices(4, listed_count=4)], described(4, names=4), ()),
        # One is another than is listed; one more; one less.
        ([devices(4, listed_count=3)], described(4, names=4), (PowerFault.DEVICES,)),
        ([devices(5, listed_count=4)], described(None, names=4), (PowerFault.DEVICES,)),
        ([devices(3, listed_count=3)], described(None, names=4), (PowerFault.DEVICES,)),
        ([devices(4)], described(), ()),
        # Read by several sources they are counted together, and hosts are no boards.
        ([devices(2), devices(2, source=Source.NVML)], described(4), ()),
        ([devices(4), devices(1, boundary=Boundary.HOST)], described(4), ()),
        ([devices(1, boundary=Boundary.HOST)], described(4), ()),
        ([devices(1, source=Source.STATIC)], described(4), ()),
    ],
)
def test_judge__devices(
    found: list[PoolDevices], factory: Factory, expected: tuple[PowerFault, ...]
) -> None:
    """Where the description counts or lists boards, they are to be these and no others."""
    assert faults(*found, factory=factory) == expected


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (Seen(agreements={"h100": Agreement(ratio=1.0, is_faulty=False)}), ()),
        (
            Seen(agreements={"h100": Agreement(ratio=1.1, is_faulty=True)}),
            (PowerFault.CROSS_CHECK,),
        ),
        (Seen(leapt={"h100"}), (PowerFault.IMPLAUSIBLE,)),
        (Seen(claimed={"h100"}), (PowerFault.CONFLICT,)),
        (Seen(leapt={"h200"}, claimed={"h200"}), ()),
        (
            Seen(
                agreements={"h100": Agreement(ratio=None, is_faulty=True)},
                leapt={"h100"},
                claimed={"h100"},
            ),
            (PowerFault.CROSS_CHECK, PowerFault.IMPLAUSIBLE, PowerFault.CONFLICT),
        ),
    ],
)
def test_judge__what_was_seen(seen: Seen, expected: tuple[PowerFault, ...]) -> None:
    """Gauges that disagree, counters that leap, devices that two claim: each is a reason."""
    assert faults(devices(4), seen=seen) == expected


def test_judge__rating_beside_what_is_measured() -> None:
    """A rating that counts no more is not missed; where nothing else is there, it is."""
    rating = devices(0, 1, source=Source.STATIC)
    (power,) = judge([devices(2), rating], factory=UNDESCRIBED, seen=NOTHING)
    assert (power.device_count, power.faults) == (2, ())
    assert faults(rating) == (PowerFault.NO_SAMPLE,)
    assert faults(devices(2, boundary=Boundary.HOST), rating) == (PowerFault.STALE,)


def test_judge__of_each_pool() -> None:
    """Pools come by name, with all of their devices, and the newest sample of each source."""
    found = [
        devices(1, pool="h200"),
        devices(2, last_sample_ms=5),
        devices(1, boundary=Boundary.HOST, last_sample_ms=7),
        devices(3, source=Source.REPORTED, last_sample_ms=6),
    ]
    seen = Seen(agreements={"h100": Agreement(ratio=0.99, is_faulty=False)})
    first, second = judge(found, factory=UNDESCRIBED, seen=seen)
    assert (first.pool, first.device_count, first.fresh_count) == ("h100", 6, 6)
    assert first.last_samples_ms == {Source.DCGM: 7, Source.REPORTED: 6}
    assert (first.last_sample_ms, first.cross_check_ratio) == (7, 0.99)
    assert (second.pool, second.cross_check_ratio) == ("h200", None)


def test_has_counters__boards_that_are_measured() -> None:
    """Neither hosts nor ratings are boards that are measured."""
    found = [
        devices(0, 1, pool="a"),
        devices(1, pool="b", source=Source.STATIC),
        devices(1, pool="c", boundary=Boundary.HOST),
    ]
    assert has_counters(found) == {"a"}


def test_look__only_of_late() -> None:
    """What was seen counts for so long, from when it was last seen."""
    seen = Recently(kept_ms=10)
    seen.note("a", now_ms=0)
    seen.note("b", now_ms=0)
    seen.note("a", now_ms=5)
    assert seen.look(now_ms=10) == {"a", "b"}
    assert seen.look(now_ms=11) == {"a"}
    assert seen.look(now_ms=16) == frozenset()


def test_judge__source_that_was_replaced() -> None:
    """A source without a device of late is not late; where no other one is there, it is."""
    replaced = devices(0, source=Source.REPORTED, last_sample_ms=5)
    (power,) = judge([devices(2, last_sample_ms=7), replaced], factory=UNDESCRIBED, seen=NOTHING)
    assert power.last_samples_ms == {Source.DCGM: 7}
    (power,) = judge([replaced], factory=UNDESCRIBED, seen=NOTHING)
    assert power.last_samples_ms == {Source.REPORTED: 5}
