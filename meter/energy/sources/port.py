"""What every energy source is: something that is read now and then, and gives samples of boards.

A source keeps no history and looks at no clock: when it was read, and what its counters gained
since, is the recorder's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class SourceFailure(StrEnum):
    """Why a read of a source gave less than it should; the values are the metric's."""

    # No connection, no whole answer in time, or one that is not HTTP.
    UNREACHABLE = "unreachable"
    # Another status than 200: a redirect is not followed.
    REFUSED = "refused"
    # Larger than a page ever is.
    TOO_LARGE = "too_large"
    # Some or all of its energy samples make no sense; the others are used.
    UNREADABLE = "unreadable"
    # Neither an energy counter nor a power gauge: no device, or none that has one.
    NO_COUNTERS = "no_counters"
    # The library that reads the accelerators of this machine, or their driver, is not there.
    NO_LIBRARY = "no_library"
    # A device has fallen off its bus, or answers no more; the others are used.
    DEVICE_LOST = "device_lost"


class SourceFailed(Exception):
    """This read gave nothing at all."""

    def __init__(self, failure: SourceFailure) -> None:
        """Take why."""
        super().__init__(failure.value)
        self.failure = failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What a device shows: its energy counter (mJ, 0 to 2^62) and what it draws (mW, ≥ 0).

    `device` is its name everywhere, NVIDIA's the UUID of the whole board. What it does not have, or
    what made no sense, is None; not both are.
    """

    device: str
    counter_mj: int | None = None
    power_mw: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one read found: each device once, and why it is less than it should be."""

    samples: Sequence[Sample]
    failure: SourceFailure | None = None


class SourceReader(Protocol):
    """Reads one source; one read at a time, each on any thread."""

    def read(self) -> Found:
        """Return what its devices show now, within seconds; raises SourceFailed."""
        ...

    def close(self) -> None:
        """Let go of what it holds; nothing is read any more."""
        ...
