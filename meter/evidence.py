"""Where in the journal the events lie that a sum of usage was made of."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from meter.domain.tokens import Mode, TokenClass


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceQuery:
    """Events of one key, at or below a cut, in these intervals of these accounts.

    `places` maps an account id to the starts of its intervals (ms, on edges), at least one in all.
    An empty `model` or `served_model` stands for any. `bands` are places on the ladder.
    """

    places: Mapping[str, Collection[int]]
    model: str
    served_model: str
    tier: str
    mode: Mode
    token_class: TokenClass
    bands: Collection[int]
    cut_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentEvidence:
    """A segment of the journal that holds such events: how many, and their tokens of the class.

    A correction's tokens are signed: those of an event that it takes back are negative.
    """

    shard: int
    position: int
    event_count: int
    token_count: int


class Evidence(Protocol):
    """Finds events in the journal."""

    def find_segments(self, query: EvidenceQuery) -> Sequence[SegmentEvidence]:
        """Return the segments with such events, by shard and position."""
        ...
