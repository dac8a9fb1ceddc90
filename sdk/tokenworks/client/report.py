"""What goes along with a report, and what became of reports so far."""

from dataclasses import dataclass
from datetime import datetime
from typing import TypedDict
from uuid import UUID

from tokenworks.client.vocabulary import Finish, Mode, Quality, State


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Counts since the start of this process; exact when nothing is under way.

    recorded = acknowledged + held + what was found invalid or dropped after it was recorded.
    """

    recorded: int = 0
    """Events that `record` took (returned True)."""
    acknowledged: int = 0
    """Events that are on the meter's disk for good, those set aside included."""
    held: int = 0
    """Events that are not yet."""
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
    state: State
    """Where the client stands now."""
