"""A sandbox's hours in which a real engine serves, and what `tokenworks usage drift` says of them.

Usage carries the real time, at which it ends; the meter's own clock is driven. It stands near the
end of the quarter of an hour that runs just now while engines serve, and is moved on to have their
pages read.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias

from meter.domain.interval import INTERVAL_MS, interval_start_ms
from meter.domain.times import to_ms, to_time
from tests.acceptance.counted import wait_until
from tests.cli.shell import Shell
from tests.running_meter import RunningMeter

# What engines counted and what was metered, in tokens, by kind.
Drifts: TypeAlias = Mapping[str, tuple[int, int]]
_MINUTE_MS: Final = 60_000
_SECONDS_MAX: Final = 60


def settings_before(url: str, *, pool: str) -> dict[str, str]:
    """Return the settings of a meter that begins two hours ago, and reads a replica's page."""
    begin = datetime.now(UTC) - timedelta(hours=2)
    return {"sandbox_clock": begin.isoformat(timespec="seconds"), "engines": f"{pool}={url}"}


class Quarters:
    """The quarters of an hour from the one that runs on; an engine has to serve its page by then.

    What it made before is compared with nothing.
    """

    def __init__(self, meter: RunningMeter) -> None:
        self._shell = Shell(meter.target, meter.api_key)
        self._begin_ms = interval_start_ms(to_ms(datetime.now(UTC)))
        self._end_ms = self._begin_ms
        self._move(self._begin_ms)
        # A quarter may end while the engine serves: reports are taken from a little ahead.
        self._move(self._begin_ms + INTERVAL_MS - _MINUTE_MS)

    def pass_on(self) -> None:
        """Have the page read at the next two edges."""
        self._end_ms += 2 * INTERVAL_MS
        self._move(self._end_ms)

    def drifts(self) -> Drifts:
        """Return all since the begin until the last edge, added up; reports may be on their way."""
        span = ("--since", _text(self._begin_ms), "--until", _text(self._end_ms))
        told: Mapping[str, Any] = self._shell.run_json("usage", "drift", *span)
        assert all(it["reset_count"] == 0 for it in told["drifts"]), told
        return {it["kind"]: (it["engine_tokens"], it["metered_tokens"]) for it in told["drifts"]}

    def wait_for(self, engines: Mapping[str, int], *, metered: Mapping[str, int]) -> None:
        """Wait until each kind's tokens are these; raises AssertionError with what they are."""
        right = {kind: (count, metered[kind]) for kind, count in engines.items()}
        try:
            wait_until(
                lambda: self.drifts() == right, seconds_max=_SECONDS_MAX, what="usage is counted"
            )
        except AssertionError as error:
            raise AssertionError(f"{self.drifts()} instead of {right}") from error

    def _move(self, time_ms: int) -> None:
        self._shell.run("billing", "clock", "--to", _text(time_ms))


def _text(time_ms: int) -> str:
    return to_time(time_ms).strftime("%Y-%m-%dT%H:%M:%SZ")
