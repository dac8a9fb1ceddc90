"""Whether the power of a pool is known well enough to make ratios of it, and why not; pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from meter.domain.boundary import Boundary
from meter.energy.counters import Source
from meter.energy.cross_check import Agreement
from meter.energy.factory import Factory, Pool


class PowerFault(StrEnum):
    """Why power is not valid; the values are those of SQL and of the metrics."""

    # No device has a fresh sample; of an interval: there is no energy of boards.
    NO_SAMPLE = "no_sample"
    # Some device has no fresh sample; of an interval: samples cover less than 95 % of it.
    STALE = "stale"
    # There are other boards, or more or fewer, than the factory's description says.
    DEVICES = "devices"
    # Gauges and counters differ: one of them errs, or lies in its unit. Live alone.
    CROSS_CHECK = "cross_check"
    # A counter leapt further than its device can use. Live alone.
    IMPLAUSIBLE = "implausible"
    # Two sources or two pools claim one device. Live alone.
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolDevices:
    """The devices of a pool, a boundary and a source.

    `device_count` is of those with a sample in the last hours, and of them `fresh_count` have a
    fresh one and `listed_count` are named by the factory's description. `last_sample_ms` is when a
    counter last moved, in the last week.
    """

    pool: str
    boundary: Boundary
    source: Source
    device_count: int
    fresh_count: int
    listed_count: int
    last_sample_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPower:
    """How a pool's power is known: its devices of late, and how many of them have a fresh sample.

    `last_samples_ms` is when a counter of the pool last moved, by source. `cross_check_ratio` is
    what gauges add up to by what counters gained, over an hour; None where it is not known.
    """

    pool: str
    device_count: int
    fresh_count: int
    last_samples_ms: Mapping[Source, int]
    faults: tuple[PowerFault, ...] = ()
    cross_check_ratio: float | None = None

    @property
    def is_valid(self) -> bool:
        """Tell whether nothing speaks against it."""
        return not self.faults

    @property
    def last_sample_ms(self) -> int:
        """When a counter of the pool last moved."""
        return max(self.last_samples_ms.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class SilentDevice:
    """A device of late without a fresh sample; `last_sample_ms` is when its counter last moved."""

    pool: str
    device: str
    source: Source
    last_sample_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What this server has seen of late that speaks against the power of pools."""

    agreements: Mapping[str, Agreement] = field(default_factory=dict)
    leapt: Collection[str] = frozenset()
    claimed: Collection[str] = frozenset()


class PowerReader(Protocol):
    """Tells of which devices there are samples."""

    def pools(
        self, *, now_ms: int, gaps_ms: Mapping[Source, int], factory: Factory
    ) -> Sequence[PoolDevices]:
        """Return the devices by pool, boundary and source, of pools with a counter at all."""
        ...

    def silent(
        self, *, now_ms: int, gaps_ms: Mapping[Source, int], devices_max: int
    ) -> Sequence[SilentDevice]:
        """Return so many silent devices, the longest silent first."""
        ...


def judge(found: Iterable[PoolDevices], *, factory: Factory, seen: Seen) -> list[PoolPower]:
    """Return how each pool's power is known, by name."""
    by_pool: dict[str, list[PoolDevices]] = {}
    for each in found:
        by_pool.setdefault(each.pool, []).append(each)
    return [
        _power_of(pool, by_pool[pool], described=factory.pools.get(pool), seen=seen)
        for pool in sorted(by_pool)
    ]


def has_counters(found: Iterable[PoolDevices]) -> set[str]:
    """Return the pools whose boards have been measured of late: no rating counts beside them."""
    return {it.pool for it in found if _is_measured_board(it)}


@dataclass(slots=True)
class Recently:
    """What was seen when, by pool; old things are forgotten."""

    kept_ms: int
    seen_ms: dict[str, int] = field(default_factory=dict)

    def note(self, pool: str, *, now_ms: int) -> None:
        """Note that it was seen now."""
        self.seen_ms[pool] = now_ms

    def look(self, *, now_ms: int) -> frozenset[str]:
        """Return the pools for which it was seen of late."""
        for pool, seen_ms in list(self.seen_ms.items()):
            if now_ms - seen_ms > self.kept_ms:
                del self.seen_ms[pool]
        return frozenset(self.seen_ms)


def _power_of(
    pool: str, found: Sequence[PoolDevices], *, described: Pool | None, seen: Seen
) -> PoolPower:
    if any(_is_measured_board(it) for it in found):
        # A rating that counts no more is not missed.
        found = [it for it in found if it.source is not Source.STATIC]
    device_count = sum(it.device_count for it in found)
    fresh_count = sum(it.fresh_count for it in found)
    agreement = seen.agreements.get(pool)
    held = {
        PowerFault.NO_SAMPLE: not fresh_count,
        PowerFault.STALE: 0 < fresh_count < device_count,
        PowerFault.DEVICES: described is not None and not _is_as_described(found, described),
        PowerFault.CROSS_CHECK: agreement is not None and agreement.is_faulty,
        PowerFault.IMPLAUSIBLE: pool in seen.leapt,
        PowerFault.CONFLICT: pool in seen.claimed,
    }
    last_samples_ms: dict[Source, int] = {}
    # A source that others have replaced is missed no more, nor is it late.
    for it in [it for it in found if it.device_count] or found:
        last_samples_ms[it.source] = max(last_samples_ms.get(it.source, 0), it.last_sample_ms)
    return PoolPower(
        pool=pool,
        device_count=device_count,
        fresh_count=fresh_count,
        last_samples_ms=last_samples_ms,
        faults=tuple(fault for fault, holds in held.items() if holds),
        cross_check_ratio=None if agreement is None else agreement.ratio,
    )


def _is_as_described(found: Sequence[PoolDevices], described: Pool) -> bool:
    """Tell whether the boards are those that a description names, and as many as it says."""
    boards = [it for it in found if _is_measured_board(it)]
    if not boards:
        # What stands for boards, or holds them, has no names and no number here.
        return True
    count = sum(it.device_count for it in boards)
    listed_count = sum(it.listed_count for it in boards)
    if described.devices and not count == listed_count == len(described.devices):
        return False
    return described.device_count in {None, count}


def _is_measured_board(it: PoolDevices) -> bool:
    return it.boundary is Boundary.BOARD and it.source is not Source.STATIC
