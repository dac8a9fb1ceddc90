"""What is known of a request that several reported: its claim, their reports, what is counted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from meter.arbiter import Claimed
from meter.corrections import CorrectableEvent, EventRow, RecordedEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A claim as it stands: what is counted, and the report that came first with its segment."""

    event_key: bytes
    claimed: Claimed
    first_report_key: bytes
    billed_hash: bytes
    claim_ms: int
    shard: int
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptReport:
    """A report as it was kept; `event` is a message of the wire."""

    observation_id: int
    event_key: bytes
    report_key: bytes
    source: int
    rank: int
    token_count: int
    is_choice: bool
    is_counted: bool
    received_ms: int
    key_id: str
    profile: str
    event: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispute:
    """A request of which a report waits: its claim, and all reports but a first one still counted.

    `claim` is None where it is forgotten, or where nobody else may report the event. Of very many
    reports the first ones are there; `seen_id` is the newest of all `seen_count`.
    """

    event_key: bytes
    claim: Claim | None
    reports: Sequence[KeptReport]
    seen_id: int
    seen_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedEvent:
    """A request's event in the journal: as it was recorded first, and as it counts now.

    `event` is None where it counts no more; `correction_id` is its last correction's.
    """

    recorded: RecordedEvent
    target: EventRow
    event: CorrectableEvent | None
    correction_id: int | None
    is_settled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginalKey:
    """Where the usage object of a report is found; `received_ms` is when it was kept."""

    report_key: bytes
    source: int
    received_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptOriginal:
    """A usage object as it came, and the table and version by which it was read."""

    profile: str
    usage: Mapping[str, object]
