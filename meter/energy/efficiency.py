"""Energy beside tokens as others read it: the question and its answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Protocol

from meter.domain.boundary import Boundary
from meter.energy.sites import SiteEnergy

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
    ACCOUNT = 7


TIME_GROUPS: Final = (EfficiencyGroup.INTERVAL, EfficiencyGroup.HOUR, EfficiencyGroup.DAY)


@dataclass(frozen=True, slots=True, kw_only=True)
class EfficiencyQuery:
    """Pools' tokens and energy in `[start_ms, end_ms)`, both on edges; an empty pool is all.

    The energy is that of boards or of hosts, never of both.
    """

    start_ms: int
    end_ms: int
    group_by: tuple[EfficiencyGroup, ...]
    pool: str = ""
    boundary: Boundary = Boundary.BOARD

    @property
    def time_group(self) -> EfficiencyGroup | None:
        """What its pools are split by, beside their names."""
        return next((it for it in self.group_by if it in TIME_GROUPS), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class EfficiencyRow:
    """Sums under the keys that were asked for.

    `energy_mj` is what was attributed, None when that is not known, and `idle_mj` of it is a share
    of idling; `attributed_output_tokens` are those of the output tokens that it was attributed to.
    The valid ones are of intervals whose power is valid: ratios are made of them alone.
    """

    keys: Mapping[EfficiencyGroup, str | int]
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    total_tokens: int
    request_count: int
    energy_mj: int | None
    idle_mj: int
    attributed_output_tokens: int
    valid_energy_mj: int | None
    valid_output_tokens: int
    valid_total_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolEnergy:
    """What a pool measured; attributed and unattributed, by reason, add up to it.

    `start_ms` is the begin of the interval, hour or day, None where they are not asked for. Of
    `measured_mj`, `estimated_mj` is no counter's. `gap_ms` and `covered_ms` are the lengths of the
    gaps and of what samples cover, added up over the devices. `interval_count` is of intervals with
    energy, `valid_interval_count` of those of them whose power is valid.
    """

    pool: str
    start_ms: int | None
    measured_mj: int
    attributed_mj: int
    unattributed_mj: Mapping[str, int]
    estimated_mj: int
    covered_ms: int
    gap_ms: int
    reset_count: int
    interval_count: int
    valid_interval_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Efficiency:
    """An answer: rows ordered by their keys, pools by name and time, sites by name."""

    rows: Sequence[EfficiencyRow]
    pools: Sequence[PoolEnergy]
    sites: Sequence[SiteEnergy]


class EfficiencyReader(Protocol):
    """Reads tokens and energy."""

    def query(self, query: EfficiencyQuery) -> Efficiency:
        """Return tokens and energy, of one snapshot."""
        ...
