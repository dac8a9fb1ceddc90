"""Shares energy out by output tokens: whole millijoules that add up to what was measured."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, Protocol, Self, TypeVar


class Ordered(Hashable, Protocol):
    """A key with an order of its own, by which ties are broken."""

    def __lt__(self, other: Self, /) -> bool:
        """Tell which comes first."""
        ...


Key = TypeVar("Key", bound=Ordered)


class Unattributed(StrEnum):
    """Why energy belongs to nobody's tokens; the values are those of SQL and of the metrics."""

    GAP = "gap"
    NO_TOKENS = "no_tokens"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution(Generic[Key]):
    """Energy in mJ by key and, where it has none, by reason; shares of 0 are left out."""

    attributed_mj: Mapping[Key, int]
    unattributed_mj: Mapping[Unattributed, int]


def attribute(
    *, measured_mj: int, gap_mj: int, output_tokens: Mapping[Key, int]
) -> Attribution[Key]:
    """Share out what was measured; `gap_mj` of it came between samples too far apart.

    The shares are in proportion to the output tokens. What fell into a gap, and all of it where
    there are no output tokens, stays unattributed. Attributed and unattributed add up to
    `measured_mj`.
    """
    assert 0 <= gap_mj <= measured_mj, "what fell into a gap is part of what was measured"
    known_mj = measured_mj - gap_mj
    has_tokens = any(output_tokens.values())
    unattributed = {
        Unattributed.GAP: gap_mj,
        Unattributed.NO_TOKENS: 0 if has_tokens else known_mj,
    }
    shares = apportion(known_mj, output_tokens) if has_tokens else {}
    return Attribution(
        attributed_mj={key: share for key, share in shares.items() if share},
        unattributed_mj={reason: share for reason, share in unattributed.items() if share},
    )


def apportion(total: int, weights: Mapping[Key, int]) -> dict[Key, int]:
    """Divide a total by weights, of which one is not 0, into whole parts that add up to it.

    By largest remainder; of equal remainders the first key goes first.
    """
    assert total >= 0, "energy is not negative"
    assert min(weights.values()) >= 0, "weights are not negative"
    whole = sum(weights.values())
    parts = {key: total * weight // whole for key, weight in weights.items()}
    rest = total - sum(parts.values())
    # Fewer are left over than keys have a remainder: a weight of 0 gets nothing.
    by_remainder = sorted(weights, key=lambda key: (-(total * weights[key] % whole), key))
    for key in by_remainder[:rest]:
        parts[key] += 1
    return parts
