"""Energy beside tokens as others read it: the question, its answer, and the state of the power."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Protocol

from meter.energy.counters import Source

# The reason of what is measured and not attributed yet, beside those that are recorded.
PENDING: Final = "pending"


class EfficiencyGroup(IntEnum):
    """What the rows of an answer are split by; the wire's numbers."""

    POOL = 1
    TIER = 2
    MODEL = 3
    INTERVAL = 4
    HOUR = 5
    DAY = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class EfficiencyQuery:
    """Pools' tokens and energy in `[start_ms, end_ms)`, both on edges; an empty pool is all."""

    start_ms: int
    end_ms: int
    group_by: tuple[EfficiencyGroup, ...]
    pool: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EfficiencyRow:
    """Sums under the keys that were asked for.

    `energy_mj` is what was attributed, None when that is not known; `attributed_output_tokens` are
    those of the output tokens that it was attributed to, and that a ratio is made of.
    """

    keys: Mapping[EfficiencyGroup, str | int]
    output_tokens: int
    total_tokens: int
    request_count: int
    energy_mj: int | None
    attributed_output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolEnergy:
    """What a pool measured; attributed and unattributed, by reason, add up to it.

    `gap_ms` is the length of the gaps, added up over the devices.
    """

    pool: str
    measured_mj: int
    attributed_mj: int
    unattributed_mj: Mapping[str, int]
    gap_ms: int
    reset_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Efficiency:
    """An answer: rows ordered by their keys, pools by name."""

    rows: Sequence[EfficiencyRow]
    pools: Sequence[PoolEnergy]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPower:
    """How a pool's power is known: its devices of late, and how many of them have a fresh sample.

    `last_sample_ms` is when a counter of the pool last moved.
    """

    pool: str
    device_count: int
    fresh_count: int
    last_sample_ms: int

    @property
    def is_valid(self) -> bool:
        """Tell whether each device of late has a fresh sample, and there is one."""
        return 0 < self.fresh_count == self.device_count


@dataclass(frozen=True, slots=True, kw_only=True)
class SilentDevice:
    """A device of late without a fresh sample; `last_sample_ms` is when its counter last moved."""

    pool: str
    device: str
    source: Source
    last_sample_ms: int


class EfficiencyReader(Protocol):
    """Reads tokens and energy."""

    def query(self, query: EfficiencyQuery) -> Efficiency:
        """Return tokens and energy, of one snapshot."""
        ...
