"""When to try again: the fate of a client whose call failed, and for how long it waits."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from tokenworks.client import limits


class Fate(Enum):
    """What a failure asks of the client; in each case it keeps what it holds."""

    RETRY = "retry"
    RETRY_SLOWLY = "retry_slowly"
    """Only a person can mend it, say by a new API key."""
    STOP = "stop"
    """A newer process owns the producer's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """How a call ended."""

    fate: Fate
    code: str
    """Name of the gRPC status; OK where nothing failed."""
    reason: str
    """Name of the ErrorReason without its prefix; empty where none came."""
    detail: str
    retry_seconds: float | None = None
    """How long the server asked to wait."""


ENDED: Final = Failure(fate=Fate.RETRY, code="OK", reason="", detail="the meter ended the stream")
RENEWED: Final = Failure(
    fate=Fate.RETRY, code="OK", reason="", detail="the certificates were renewed"
)
BROKEN: Final = Failure(fate=Fate.RETRY, code="UNKNOWN", reason="", detail="the call broke")
SILENT: Final = Failure(fate=Fate.RETRY, code="UNKNOWN", reason="", detail="nothing was heard")
DISAGREED: Final = Failure(
    fate=Fate.RETRY, code="UNKNOWN", reason="", detail="the meter named numbers that do not fit"
)
WITH_HOLE: Final = Failure(
    fate=Fate.RETRY, code="UNKNOWN", reason="", detail="batches were lost here; the meter is told"
)
UNWRITTEN: Final = Failure(
    fate=Fate.RETRY, code="UNKNOWN", reason="", detail="the numbers cannot be written to the spool"
)
OVERTAKEN: Final = Failure(
    fate=Fate.STOP, code="UNKNOWN", reason="", detail="somebody else has used our numbers"
)
FORKED: Final = Failure(
    fate=Fate.STOP,
    code="UNKNOWN",
    reason="",
    detail="a copy of this spool has used our numbers; delete the spool that is the copy",
)


def no_thread(detail: str) -> Failure:
    """Say that the process has no room for a thread that a connection needs."""
    return Failure(fate=Fate.RETRY, code="UNKNOWN", reason="", detail=detail)


class Backoff:
    """Waits that double from one attempt to the next, each drawn from its upper half."""

    def __init__(
        self,
        *,
        seconds_min: float = limits.RETRY_SECONDS_MIN,
        seconds_max: float = limits.RETRY_SECONDS_MAX,
        refused_seconds: float = limits.RETRY_REFUSED_SECONDS,
        draw: Callable[[float, float], float],
    ) -> None:
        """`draw` takes two bounds and returns a number between them."""
        self._seconds_min = seconds_min
        self._seconds_max = seconds_max
        self._refused_seconds = refused_seconds
        self._draw = draw
        self._seconds = seconds_min

    def succeeded(self) -> None:
        """Begin again from the shortest wait."""
        self._seconds = self._seconds_min

    def seconds_after(self, failure: Failure) -> float:
        """Return how long to wait now, in seconds."""
        if failure.fate is Fate.RETRY_SLOWLY:
            seconds = self._refused_seconds
        else:
            seconds = self._seconds
            self._seconds = min(2 * self._seconds, self._seconds_max)
        seconds = self._draw(seconds / 2, seconds)
        if failure.retry_seconds is None:
            return seconds
        # Later than asked, never earlier, and not all clients at one moment.
        return min(failure.retry_seconds, limits.RETRY_ASKED_SECONDS_MAX) + seconds / 2
