"""Usage as others read it: the question, the rows, the watermark."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from meter.domain.tokens import FinishClass, Mode, TokenClass


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
    """Sums under the keys that were asked for; `keys` maps each to its value.

    `energy_mj` is the energy of boards that was attributed to these tokens; None where none is
    known, and where rows are split by band, which energy is not.
    """

    keys: Mapping[GroupBy, str | int]
    tokens: Mapping[TokenClass, int]
    request_count: int
    unfinished_count: int
    delivered_output_count: int
    estimated_count: int
    energy_mj: int | None


class UsageReader(Protocol):
    """Reads usage."""

    def query(self, query: UsageQuery) -> tuple[Sequence[UsageRow], int]:
        """Return rows ordered by their keys, and until when (ms) all is counted."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageFact:
    """Usage of one account, sku, band and way of ending in one interval, up to a cut.

    Counts are signed, so that corrections are facts too. `served_model` is never empty. `band` is a
    place on the ladder of `meter.domain.tokens`. `tokens` has no zero counts.
    """

    account_id: str
    interval_start_ms: int
    model: str
    served_model: str
    tier: str
    mode: Mode
    region: str
    band: int
    finish_class: FinishClass
    tokens: Mapping[TokenClass, int]
    request_count: int


class UsageFacts(Protocol):
    """Reads usage as it is kept: what is priced, and what explains a price."""

    def facts(
        self, *, account_ids: Collection[str], start_ms: int, end_ms: int, cut_id: int | None
    ) -> Iterator[UsageFact]:
        """Yield the facts in `[start_ms, end_ms)`, on edges, by account, interval and key.

        With a `cut_id`, only what lies at or below that cut: it never changes. Of one snapshot.
        """
        ...

    def accounts_with_usage(self, *, start_ms: int, end_ms: int) -> frozenset[str]:
        """Return the ids of the accounts that have any usage in `[start_ms, end_ms)`."""
        ...

    def counted_until_ms(self) -> int:
        """Return until when all that was acknowledged is counted."""
        ...

    def recorded_up_to(self) -> Mapping[int, int]:
        """Return the position of the newest segment of each shard of the journal."""
        ...

    def is_counted(self, positions: Mapping[int, int]) -> bool:
        """Tell whether each shard is counted up to its position."""
        ...


class UsageSums(Protocol):
    """Adds usage up over spans of time: what a close reads instead of a month of intervals."""

    def sums(
        self, *, account_ids: Collection[str], edges_ms: Sequence[int], cut_id: int | None
    ) -> Iterator[UsageFact]:
        """Yield usage added up between edges, by account, edge and key: facts of longer spans.

        `edges_ms` are at least two, rising, on edges of intervals; a fact's `interval_start_ms` is
        the edge that its span begins at, and its finish class says nothing. Equal to adding up
        `facts`, to the token; much less is read. Of one snapshot.
        """
        ...

    def latest_cuts(
        self, *, account_ids: Collection[str], start_ms: int, end_ms: int
    ) -> Mapping[str, int]:
        """Return for each account with usage in `[start_ms, end_ms)` its newest cut in there.

        May be that of usage some hours outside: never too old, and too new by that alone.
        """
        ...

    def drifted(
        self, *, account_ids: Collection[str], start_ms: int, end_ms: int
    ) -> frozenset[str]:
        """Return those accounts whose sums are not what their usage adds up to.

        Looks at all sums that `[start_ms, end_ms)` has a part in, whatever their cuts. There are
        none unless somebody has changed usage or sums by hand.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A cut that was taken: usage with a `cut_id` up to its own never changes again."""

    cut_id: int
    cut_ms: int


class Cuts(Protocol):
    """Takes cuts."""

    def take_cut(self, *, now_ms: int) -> Cut:
        """Take a cut now, whenever the last one was; what is counted later carries a later one."""
        ...
