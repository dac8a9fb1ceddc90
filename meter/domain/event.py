"""Events in columns: how they travel from the wire to the journal without an object each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Int64Array = npt.NDArray[np.int64]
# Whole numbers of any width.
IntArray: TypeAlias = npt.NDArray[np.integer[Any]]
BoolArray = npt.NDArray[np.bool_]
Uint8Array = npt.NDArray[np.uint8]
# A producer, by the account of its keys and its name.
ProducerKey: TypeAlias = tuple[str, str]

# What an absent column of a report means, by name.
REPORTED: Final[Mapping[str, int]] = {
    "duration_ms": 0,
    "finish": 1,
    "quality": 1,
    "attempt": 0,
    "reported_input": -1,
    "reported_output": -1,
}
# The column of corrections: -1 takes an event back, 1 counts it. Nobody can report it.
SIGN: Final = "sign"
# What an absent column of the journal means, by name.
DEFAULTS: Final[Mapping[str, int]] = {**REPORTED, SIGN: 1}


@dataclass(frozen=True, slots=True)
class Dimensions:
    """For whom and on what a request ran; empty `served_model` means `model`."""

    account: str
    model: str
    served_model: str
    tier: str
    mode: int
    pool: str
    region: str

    def words(self) -> str:
        """Return what of them decides on the price, and who pays."""
        model = (self.model, self.served_model, self.tier, str(self.mode), self.region)
        return "\0".join((self.account, *model))


class DimensionTable:
    """Numbers distinct dimensions from 0, for this process only; grows, never changes."""

    def __init__(self) -> None:
        """Begin empty."""
        self._handles: dict[Dimensions, int] = {}
        self._rows: list[Dimensions] = []
        self._words: dict[int, str] = {}
        self._said: dict[int, bytes] = {}

    def __len__(self) -> int:
        """Return how many dimensions are known."""
        return len(self._rows)

    def __getitem__(self, handle: int) -> Dimensions:
        """Return the dimensions of a handle."""
        return self._rows[handle]

    def words(self, handle: int) -> str:
        """Return the words of a handle's dimensions, which are put together once."""
        words = self._words.get(handle)
        if words is None:
            words = self._words[handle] = self._rows[handle].words()
        return words

    def said(self, handles: Sequence[int]) -> list[bytes]:
        """Return the `repr` of each handle's dimensions in UTF-8, which is put together once."""
        known = self._said
        for handle in set(handles).difference(known):
            known[handle] = repr(self._rows[handle]).encode()
        return [known[handle] for handle in handles]

    def intern(self, dimensions: Dimensions) -> int:
        """Return the handle of `dimensions`, a new one at the first sight."""
        handle = self._handles.get(dimensions)
        if handle is None:
            handle = len(self._rows)
            self._rows.append(dimensions)
            self._handles[dimensions] = handle
        return handle


@dataclass(frozen=True, slots=True, kw_only=True)
class EventBatch:
    """n events, a column each; all arrays are of length n.

    `dimension` holds handles of `table`; `end_ms` is ms since 1970 in UTC. `tokens` maps a class
    number to its counts; `extra` maps a name of `DEFAULTS` to its column, and an absent one is all
    default. Both are whole numbers of any width: they are made wide before anything is added to
    them or taken away, and are not written to. `event_ids` is n × 16 bytes (zeros: none) or None.
    `request_ids` is n strings or None. `spans` has, by the column's name or class number, a lowest
    and a highest number between which all of the column's lie, where the reader knew them without
    looking.
    """

    table: DimensionTable
    dimension: Int64Array
    end_ms: Int64Array
    tokens: Mapping[int, IntArray]
    extra: Mapping[str, IntArray] = field(default_factory=dict)
    event_ids: Uint8Array | None = None
    request_ids: Sequence[str] | None = None
    spans: Mapping[str | int, tuple[int, int]] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.dimension)

    def column(self, name: str) -> IntArray:
        """Return an extra column, made of its default where it is absent."""
        present = self.extra.get(name)
        if present is not None:
            return present
        return np.full(len(self), DEFAULTS[name], np.int64)

    def span(self, name: str | int) -> tuple[int, int]:
        """Return between which numbers a column lies that is there and not empty."""
        known = self.spans.get(name)
        if known is not None:
            return known
        values: IntArray = (
            self.end_ms
            if name == "end_ms"
            else self.extra[name]
            if isinstance(name, str)
            else self.tokens[name]
        )
        return int(values.min()), int(values.max())

    def take(self, keep: BoolArray) -> "EventBatch":
        """Return the events where `keep` is true, in order."""
        ids = self.request_ids
        return EventBatch(
            table=self.table,
            dimension=self.dimension[keep],
            end_ms=self.end_ms[keep],
            tokens={number: counts[keep] for number, counts in self.tokens.items()},
            extra={name: values[keep] for name, values in self.extra.items()},
            event_ids=None if self.event_ids is None else self.event_ids[keep],
            request_ids=None
            if ids is None
            else [ids[place] for place in np.flatnonzero(keep).tolist()],
            spans=self.spans,
        )


class Origin(NamedTuple):
    """Whence a batch came. `account_id` owns the API key ("" for the installation).

    A stream's batch has a producer, an instance of 16 bytes, a sequence from 1 and the digest of
    its bytes; a call's has the empty producer and sequence 0. `left_out` are the places, in a
    stream's batch, of events that were not counted since another report of their requests is.
    """

    account_id: str
    key_id: str
    received_ms: int
    producer: str = ""
    instance: bytes = b""
    sequence: int = 0
    digest: bytes = b""
    left_out: tuple[int, ...] = ()

    @property
    def producer_key(self) -> ProducerKey:
        """By what its producer is known."""
        return (self.account_id, self.producer)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """An event (index from 0) or a whole batch (-1) that goes to quarantine, with its bytes.

    `source` is who reported the event, 0 where nobody else does; `is_choice` as in `Reports`.
    """

    index: int
    outcome: int
    payload: bytes
    source: int = 0
    is_choice: bool = False


class Claim(NamedTuple):
    """By which report a request is counted: its 16-byte key, who it is from, and how good it is.

    `billed_hash` is of all that is billed by it, 16 bytes; `token_count` is the sum of its tokens.
    `is_choice` tells whether it is of one of several answers to one prompt.
    """

    report_key: bytes
    source: int
    rank: int
    billed_hash: bytes
    token_count: int
    is_choice: bool


class Evidence(NamedTuple):
    """A report of a request that another one is counted by, as it is kept.

    `is_settled` tells that it cannot take the other's place: nothing is to be decided about it.
    """

    event_key: bytes
    claim: Claim
    is_settled: bool
    key_id: str
    profile: str
    event: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Reports:
    """Who reported a batch's events, where others may report the same requests.

    `claims` has one for each event; `choices` tells, for each, whether it is of one of several
    answers to one prompt. `apart` returns the bytes of an event that is of a further call of its
    request, as they are kept. `originals` are the usage objects as they came, packed;
    `original_count` is of how many events.
    """

    source: int
    profile: str
    claims: Sequence[Claim]
    choices: Sequence[bool]
    apart: Callable[[int], bytes]
    originals: bytes = b""
    original_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What a batch counted by event id claims: per event a 16-byte key and content hash.

    `indexes` are the events' places in the call; `payload` returns the bytes of one of them. Where
    several calls are taken together, these are places among all of their events, and `places` has
    for each of all events its place in its own call. With `reports` what is claimed is a request,
    once for all who report it, and `hashes` is empty; an event whose key is empty claims nothing
    and is counted.
    """

    keys: Sequence[bytes]
    hashes: Sequence[bytes]
    indexes: Sequence[int]
    payload: Callable[[int], bytes]
    places: Sequence[int] | None = None
    reports: Reports | None = None
