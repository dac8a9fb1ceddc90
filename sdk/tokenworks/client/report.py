"""What goes along with a report, and what became of reports so far."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypedDict
from uuid import UUID

from tokenworks.client.vocabulary import Finish, Mode, Quality, State, TokenClass


class Details(TypedDict, total=False):
    """What is said of a request beside its tokens; see `Meter.record`."""

    account: str | None
    model: str | None
    tier: str | None
    served_model: str | None
    mode: Mode | int | None
    pool: str | None
    region: str | None
    end_time: float | datetime | None
    duration_ms: float
    finish: Finish | int
    quality: Quality | int
    request_id: str
    attempt: int
    event_id: UUID | bytes | None


class Counts(TypedDict, total=False):
    """The tokens of a request, and the engine's own totals; see `Meter.record`."""

    input: int
    cache_read: int
    cache_write_5m: int
    cache_write_30m: int
    cache_write_1h: int
    cache_write_12h: int
    output: int
    reasoning: int
    tokens: Mapping[TokenClass, int]
    reported_input_count: int | None
    reported_output_count: int | None
    usage: object
    profile: str


class Report(Details, Counts, total=False):
    """All that may be said of a request; see `Meter.record`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Counts since the start of this process; exact when nothing is under way.

    recorded + restored = acknowledged + held + what was found invalid, dropped or lost later.
    """

    recorded: int = 0
    """Events that were taken: `record` returned True, or a running report has ended."""
    restored: int = 0
    """Events that an earlier start had left in the spool."""
    acknowledged: int = 0
    """Events that are on the meter's disk for good, those set aside included."""
    held: int = 0
    """Events that are not yet, in memory and in the spool."""
    set_aside: int = 0
    """Events that the meter keeps in quarantine, as far as its acks arrived."""
    dropped: int = 0
    """Events that were lost here: the buffer was full, or nobody could send them any more."""
    invalid: int = 0
    """Events that the wire cannot carry."""
    resent: int = 0
    """Batches that were sent again."""
    gaps: int = 0
    """Batches that the meter acknowledged and later no longer had."""
    spool_bytes: int = 0
    """What the spool takes up on this disk, with what it retains of what is durable."""
    spool_lost: int = 0
    """Events that the spool has lost: to damage, or as the oldest when it was full."""
    is_spooling: bool = False
    """Whether events are on this disk before they are sent; False while that disk fails."""
    state: State
    """Where the client stands now."""
