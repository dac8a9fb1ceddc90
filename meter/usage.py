"""Usage as others read it: the question, the rows, the watermark."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from meter.domain.tokens import TokenClass


class GroupBy(IntEnum):
    """What a query's rows are split by; the wire's numbers."""

    ACCOUNT = 1
    MODEL = 2
    SERVED_MODEL = 3
    TIER = 4
    MODE = 5
    REGION = 6
    BAND = 7
    INTERVAL = 8
    DAY = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageQuery:
    """Usage in `[start_ms, end_ms)`, both on edges, of a subtree (None: the installation).

    The subtree is the one that stood in each interval.
    """

    account_id: str | None
    start_ms: int
    end_ms: int
    group_by: tuple[GroupBy, ...]
    model: str = ""
    tier: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """Sums under the keys that were asked for; `keys` maps each to its value."""

    keys: Mapping[GroupBy, str | int]
    tokens: Mapping[TokenClass, int]
    request_count: int
    unfinished_count: int
    delivered_output_count: int
    estimated_count: int


class UsageReader(Protocol):
    """Reads usage."""

    def query(self, query: UsageQuery) -> tuple[Sequence[UsageRow], int]:
        """Return rows ordered by their keys, and until when (ms) all is counted."""
        ...
