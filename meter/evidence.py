"""Where in the journal the events lie that a sum of usage was made of."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from meter.domain.tokens import Mode, TokenClass


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceQuery:
    """Events of one key, at or below a cut, in these intervals of these accounts.

    `places` maps an account id to the starts of its intervals (ms, on edges), at least one in all.
    An empty `model` or `served_model` stands for any. `bands` are places on the ladder; None stands
    for any, and is found with less reading. What lies at or below `after_cut_id` is left out; 0
    leaves nothing out.
    """

    places: Mapping[str, Collection[int]]
    model: str
    served_model: str
    tier: str
    mode: Mode
    token_class: TokenClass
    bands: Collection[int] | None
    cut_id: int
    after_cut_id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageQuery:
    """Usage of one key in `[start_ms, end_ms)`, above one cut (0: from the first on) up to another.

    An empty `model` or `served_model` stands for any.
    """

    account_ids: Collection[str]
    start_ms: int
    end_ms: int
    model: str
    served_model: str
    tier: str
    mode: Mode
    token_class: TokenClass
    cut_id: int
    after_cut_id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageEvidence:
    """Tokens (signed) of an account in one interval and band, by the models asked for and served.

    `served_model` is never empty.
    """

    account_id: str
    interval_start_ms: int
    model: str
    served_model: str
    band: int
    token_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentEvidence:
    """A segment of the journal that holds such events: how many, and their tokens of the class.

    A correction's tokens are signed: those of an event that it takes back are negative.
    """

    shard: int
    position: int
    event_count: int
    token_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EventEvidence:
    """Such an event: where it stands (`row` from 0 in its segment), and what it says.

    `token_count` is that of the class, negative where it takes an event back. `event_id` and
    `request_id` are empty where it has none; `key_id` is the API key that it was reported with.
    """

    shard: int
    position: int
    row: int
    account_id: str
    end_ms: int
    token_count: int
    event_id: bytes
    request_id: str
    model: str
    served_model: str
    key_id: str
    is_correction: bool


class Evidence(Protocol):
    """Finds what sums were made of: intervals of usage, and events in the journal."""

    def find_usage(self, query: UsageQuery) -> Sequence[UsageEvidence]:
        """Return the usage with tokens of the key's class, by interval, account and band."""
        ...

    def find_segments(self, query: EvidenceQuery) -> Sequence[SegmentEvidence]:
        """Return the segments with such events, by shard and position."""
        ...

    def find_events(self, query: EvidenceQuery) -> Iterator[EventEvidence]:
        """Yield the events themselves, in the order of the journal."""
        ...
