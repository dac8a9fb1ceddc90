"""The log's lines of calls that ended in an error: each, but never more than a bound a second."""

import logging
from collections.abc import Callable

from meter.domain.errors import MeterError
from meter.domain.limits import REFUSALS_LOGGED_MAX

_log = logging.getLogger(__name__)


class RefusalLog:
    """Writes a line for each refusal; those above the bound are counted, and told with the next."""

    def __init__(self, monotonic_seconds: Callable[[], float]) -> None:
        """Take a clock that never goes back."""
        self._monotonic_seconds = monotonic_seconds
        self._second = 0
        self._count = 0

    def note(self, error: MeterError, *, code: str) -> None:
        """Log a call's end, by its gRPC code; the call's context is added by the log."""
        second = int(self._monotonic_seconds())
        if second != self._second:
            more = self._count - REFUSALS_LOGGED_MAX
            self._second, self._count = second, 0
            if more > 0:
                _log.warning("calls_refused_more", extra={"count": more})
        self._count += 1
        if self._count <= REFUSALS_LOGGED_MAX:
            told = {
                "reason": str(error.reason),
                "code": code,
                "says": error.message,
                "cause": error.cause,
            }
            _log.warning("call_refused", extra=told)
