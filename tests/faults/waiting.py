"""Waiting for a truth, never longer than it may take."""

import time
from collections.abc import Callable
from typing import Final

_POLL_SECONDS: Final = 0.05


class TookTooLong(RuntimeError):
    """What was waited for did not come in time."""


def wait_until(is_true: Callable[[], bool], *, seconds_max: float, what: str) -> float:
    """Wait until something holds; returns how long it took. Raises TookTooLong."""
    begin = time.monotonic()
    while not is_true():
        if time.monotonic() > begin + seconds_max:
            raise TookTooLong(f"not within {seconds_max:g} s: {what}")
        time.sleep(_POLL_SECONDS)
    return time.monotonic() - begin
