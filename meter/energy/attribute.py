"""Shares energy out by weighted tokens: whole millijoules that add up to what was measured."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Generic, Protocol, Self, TypeVar

from meter.energy.factory import IdlePolicy

# A milliwatt for a millisecond is a microjoule.
_UJ_PER_MJ: Final = 1_000


class Ordered(Hashable, Protocol):
    """A key with an order of its own, by which ties are broken."""

    def __lt__(self, other: Self, /) -> bool:
        """Tell which comes first."""
        ...


Key = TypeVar("Key", bound=Ordered)


class Unattributed(StrEnum):
    """Why energy belongs to nobody's tokens; the values are those of SQL and of the metrics.

    What fell into a gap, is of devices that nobody described, is of idling, or found no tokens.
    """

    GAP = "gap"
    UNMAPPED = "unmapped"
    IDLE = "idle"
    NO_TOKENS = "no_tokens"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution(Generic[Key]):
    """Energy in mJ: by key, its share of idling apart, and by reason; shares of 0 are left out."""

    active_mj: Mapping[Key, int]
    idle_mj: Mapping[Key, int]
    unattributed_mj: Mapping[Unattributed, int]


def attribute(
    *,
    measured_mj: int,
    gap_mj: int,
    unmapped_mj: int,
    covered_ms: int,
    weights: Mapping[Key, int],
    idle_mw: int,
    idle: IdlePolicy,
) -> Attribution[Key]:
    """Share out what a pool measured within one boundary; all parts add up to `measured_mj`.

    `gap_mj` and `unmapped_mj` of it are known to be nobody's. Of the rest, what devices take that
    idle at `idle_mw` (mW) for `covered_ms` (ms, added up over the devices) is idling, and goes by
    its policy; the others are active, and go by the weights of the tokens. A negative weight, which
    a correction may leave behind, counts as 0. Where no weight is left, nobody gets anything.
    """
    assert gap_mj >= 0 <= unmapped_mj, "energy is not negative"
    assert gap_mj + unmapped_mj <= measured_mj, "both are parts of what was measured"
    known_mj = measured_mj - gap_mj - unmapped_mj
    idling_mj = min(known_mj, idle_mw * covered_ms // _UJ_PER_MJ)
    counted = {key: weight for key, weight in weights.items() if weight > 0}
    is_shared = idle is IdlePolicy.PROPORTIONAL and bool(counted)
    unattributed = {
        Unattributed.GAP: gap_mj,
        Unattributed.UNMAPPED: unmapped_mj,
        Unattributed.IDLE: 0 if is_shared else idling_mj,
        Unattributed.NO_TOKENS: 0 if counted else known_mj - idling_mj,
    }
    return Attribution(
        active_mj=_shares(known_mj - idling_mj, counted),
        idle_mj=_shares(idling_mj, counted) if is_shared else {},
        unattributed_mj={reason: share for reason, share in unattributed.items() if share},
    )


def apportion(total: int, weights: Mapping[Key, int]) -> dict[Key, int]:
    """Divide a total by weights, of which one is not 0, into whole parts that add up to it.

    By largest remainder; of equal remainders the first key goes first.
    """
    assert total >= 0, "energy is not negative"
    assert min(weights.values()) >= 0, "weights are not negative"
    whole = sum(weights.values())
    parts: dict[Key, int] = {}
    remainders: dict[Key, int] = {}
    for key, weight in weights.items():
        parts[key], remainders[key] = divmod(total * weight, whole)
    rest = total - sum(parts.values())
    # Fewer are left over than keys have a remainder: a weight of 0 gets nothing.
    by_remainder = sorted(weights, key=lambda key: (-remainders[key], key))
    for key in by_remainder[:rest]:
        parts[key] += 1
    return parts


def _shares(total_mj: int, weights: Mapping[Key, int]) -> dict[Key, int]:
    shares = apportion(total_mj, weights) if weights else {}
    return {key: share for key, share in shares.items() if share}
