"""Energy beside tokens as others read it: the question, its answer, and the state of the power."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Protocol

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


class EfficiencyReader(Protocol):
    """Reads tokens and energy."""

    def query(self, query: EfficiencyQuery) -> Efficiency:
        """Return tokens and energy, of one snapshot."""
        ...
