"""How a spool behaves, as its user chooses."""

from dataclasses import dataclass
from enum import StrEnum


class Fsync(StrEnum):
    """When batches are safe from a loss of power."""

    BATCH = "batch"
    """Before a batch is sent; a loss of power costs what a flush interval brought."""
    NEVER = "never"
    """When the system gets round to it; a loss of power costs what was not written back."""
    EVENT = "event"
    """Before `record` returns."""


class WhenFull(StrEnum):
    """What goes when the spool is full."""

    DROP_NEWEST = "drop_newest"
    DROP_OLDEST = "drop_oldest"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolOptions:
    """How a spool behaves. Raises ValueError where a size is out of its range."""

    fsync: Fsync = Fsync.BATCH
    when_full: WhenFull = WhenFull.DROP_NEWEST
    bytes_max: int = 1024**3
    """At least two segments."""
    retain_bytes: int = 64 * 1024**2
    """What is kept of batches that the meter has for good, ≥ 0."""
    segment_bytes_max: int = 8 * 1024**2
    """A segment is larger only where a single append is."""
    cache_bytes_max: int = 32 * 1024**2
    """Payloads that are kept in memory, the newest ones."""

    def __post_init__(self) -> None:
        if self.bytes_max < 2 * self.segment_bytes_max:
            raise ValueError(f"spool_bytes_max: at least {2 * self.segment_bytes_max}")
        if self.retain_bytes < 0:
            raise ValueError("spool_retain_bytes: at least 0")
