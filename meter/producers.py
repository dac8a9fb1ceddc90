"""Producers as others read and keep them: who reports, who is expected, what is missing."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from meter.domain.event import Origin
from meter.journal.protocol import ProducerState
from meter.journal.session import Seen


class Standing(IntEnum):
    """What is expected of a producer; the wire's numbers."""

    REGISTERED = 1
    ACTIVE = 2
    RETIRED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Numbers that never came, first and last; `found_ms` is when that was seen."""

    first_sequence: int
    last_sequence: int
    found_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Producer:
    """A producer on disk; times are ms since 1970 in UTC.

    The close of a month does not wait for one at the `edge`.
    `account_id` is "" for a key of the installation. `gaps` are the newest, newest first;
    `missing_batch_count` counts all.
    """

    account_id: str
    name: str
    standing: Standing
    is_silent: bool
    seen_ms: int | None
    recorded_sequence: int
    announced_sequence: int
    missing_batch_count: int
    gaps: Sequence[Gap]
    key_id: str
    create_ms: int
    edge: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerQuery:
    """Which producers to list: of an account and of a name (None: all), after a place in order."""

    account_id: str | None = None
    name: str | None = None
    standing: Standing | None = None
    silent_only: bool = False
    after: tuple[str, str] = ("", "")
    limit: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Hearing:
    """How many producers are silent, and until when (ms) each that is expected was heard.

    `heard_until_ms` is None when none is expected; `expected_count` is of all that are.
    """

    silent_count: int
    heard_until_ms: int | None
    expected_count: int


def add_up(hearings: Iterable[Hearing]) -> Hearing:
    """Return how all of these stand together."""
    found = list(hearings)
    times = [it.heard_until_ms for it in found if it.heard_until_ms is not None]
    return Hearing(
        silent_count=sum(it.silent_count for it in found),
        heard_until_ms=min(times, default=None),
        expected_count=sum(it.expected_count for it in found),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """All producers of the installation together.

    `hearings` are those that are expected, by the account whose keys they use ("" for the
    installation's). `backlog_count` and `missing_count` are batches. `seen` are those expected, by
    account and name, the longest silent first: when each was last heard, None for never.
    """

    counts: Mapping[Standing, int]
    hearings: Mapping[str, Hearing]
    backlog_count: int
    missing_count: int
    seen: Mapping[tuple[str, str], int | None]

    def hearing(self, owners: Collection[str] | None = None) -> Hearing:
        """Return how the producers of these accounts' keys stand together; None: all."""
        return add_up(
            it for owner, it in self.hearings.items() if owners is None or owner in owners
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """An open stream as it is written down.

    `heard_seconds` is how long ago it was heard; None when that is written already.
    """

    account_id: str
    producer: str
    instance: bytes
    announced_sequence: int
    heard_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What a stream asks for when it opens; `missing_from` 0 is none.

    `announced_sequence` is what this server has heard of the producer and may not have written yet.
    A name that is new is refused, unless it `may_be_new`.
    """

    origin: Origin
    first_sequence: int
    missing_from: int = 0
    announced_sequence: int = 0
    may_be_new: bool = True


class ProducerPort(Protocol):
    """Where producers are kept: `meter.store.producers.ProducerStore`, which blocks.

    `silence_ms` is for how long a producer may be unheard; None when nobody is called silent. All
    methods raise Unavailable when the database is away.
    """

    def open_producer(
        self,
        origin: Origin,
        *,
        first_sequence: int,
        missing_from: int = 0,
        announced_sequence: int = 0,
        may_be_new: bool = True,
    ) -> ProducerState:
        """Make an instance the newest one and return the state; it is active from then on.

        Waits for whoever holds the producer. Raises Overloaded for a name that is new, unless it
        `may_be_new`.
        """
        ...

    def open_producers(self, openings: Sequence[Opening]) -> Sequence[ProducerState | None]:
        """Open producers, each at most once, and return their states in order.

        None for one that has to be opened alone: it is held, or it is new and may not be.
        """
        ...

    def is_known(self, origin: Origin) -> bool:
        """Tell whether an instance has ever opened its producer."""
        ...

    def end_producer(self, origin: Origin) -> None:
        """Note that the newest instance has ended in good order; waits for whoever holds it."""
        ...

    def end_producers(self, origins: Sequence[Origin]) -> Sequence[bool | None]:
        """Note it of several, each at most once: True for each, None for one that is held."""
        ...

    def write_presences(
        self, presences: Sequence[Presence]
    ) -> Mapping[tuple[str, str, bytes], Seen]:
        """Write when streams were heard, and return what is on disk, by account, name, instance."""
        ...

    def summarize(self, *, silence_ms: int | None) -> Summary:
        """Add all producers up."""
        ...

    def list_producers(self, query: ProducerQuery, *, silence_ms: int | None) -> Sequence[Producer]:
        """Return producers by account and name."""
        ...

    def register(
        self, account_id: str, name: str, *, edge: bool, silence_ms: int | None, by: str
    ) -> Producer:
        """Expect a producer from now on, at the edge or not; `by` is the API key that says so."""
        ...

    def retire(self, account_id: str, name: str, *, by: str) -> Producer:
        """Expect a producer no more; raises NotFound (PRODUCER_NOT_FOUND)."""
        ...
