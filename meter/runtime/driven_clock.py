"""A sandbox's clock: it stands still until it is driven, edge by edge, and never goes back."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from meter.domain.errors import InvalidArgument, Reason, Refused, Unavailable
from meter.domain.interval import INTERVAL_MS, next_edge_ms
from meter.domain.limits import CLOCK_ADVANCE_MS_MAX, CLOCK_COUNTED_SECONDS_MAX
from meter.domain.times import to_iso

_DAY_MS: Final = 24 * 3600 * 1000
_POLL_SECONDS: Final = 0.01


class DrivenClock:
    """A clock that stands where it was put; safe to share between threads."""

    def __init__(self, time_ms: int) -> None:
        """Take where it stands, ms since 1970 in UTC."""
        self._time_ms = time_ms
        self._lock = threading.Lock()

    def now_ms(self) -> int:
        """Return where it stands, ms since 1970 in UTC."""
        return self._time_ms

    def monotonic_seconds(self) -> float:
        """Return seconds since some moment; these pass as everywhere."""
        return time.monotonic()

    def move_to(self, time_ms: int) -> None:
        """Put it further on; an earlier time changes nothing."""
        with self._lock:
            self._time_ms = max(self._time_ms, time_ms)


class DrivenTime(Protocol):
    """Where the clock is kept: `meter.store.installation.InstallationStore`."""

    def find_driven_ms(self) -> int | None:
        """Return where the driven clock stands; None on the real one."""
        ...

    def move_to(self, time_ms: int, *, is_waited_for: bool) -> None:
        """Write where it stands: before whatever is committed later, or to be there at once."""
        ...


class Counted(Protocol):
    """How far the journal goes, and its count: `meter.store.facts.FactStore`."""

    def recorded_up_to(self) -> Mapping[int, int]:
        """Return the position of the newest segment of each shard of the journal."""
        ...

    def is_counted(self, positions: Mapping[int, int]) -> bool:
        """Tell whether each shard is counted up to its position."""
        ...


class DailyCuts(Protocol):
    """What a day ends with: `meter.store.cuts.CutStore`."""

    def take_cut_if_due(self, *, now_ms: int, every_ms: int) -> object:
        """Take a cut when the last one lies in an earlier span of `every_ms`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Drive:
    """One way of the clock: from where to where (ms), through so many edges, with so many cuts."""

    start_ms: int
    end_ms: int
    edge_count: int
    cut_count: int


class ClockDriver:
    """Moves a driven clock as time would have passed; one drive at a time."""

    def __init__(
        self,
        clock: DrivenClock,
        *,
        kept: DrivenTime,
        counted: Counted,
        cuts: DailyCuts,
        wake_counting: Callable[[], None],
        on_edge: Sequence[Callable[[int], None]],
        counted_seconds_max: float = CLOCK_COUNTED_SECONDS_MAX,
    ) -> None:
        """Take the clock and where it is kept.

        `on_edge` hear each edge (ms) once the clock stands there. `counted_seconds_max` bounds the
        wait for counting at a midnight.
        """
        self._clock = clock
        self._kept = kept
        self._counted = counted
        self._cuts = cuts
        self._wake_counting = wake_counting
        self._on_edge = on_edge
        self._counted_seconds_max = counted_seconds_max
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End a drive at its next edge, and begin no other."""
        self._stopping.set()

    def follow(self) -> None:
        """Take over how far another server has driven the clock; raises Unavailable."""
        kept_ms = self._kept.find_driven_ms()
        assert kept_ms is not None, "an installation's clock never changes its kind"
        self._clock.move_to(kept_ms)

    def drive(self, to_ms: int, *, is_given_up: Callable[[], bool] = lambda: False) -> Drive:
        """Move the clock, and return when it is there; blocks.

        Raises Refused (CLOCK_REFUSED) for a time before now, InvalidArgument for one too far away,
        Unavailable when the database is away, counting does not catch up, or the server stops: the
        clock then stands at the last edge. `is_given_up` is asked all the way.
        """
        start_ms = self._clock.now_ms()
        _check(to_ms, start_ms=start_ms)
        edges = range(next_edge_ms(start_ms + 1), to_ms + 1, INTERVAL_MS)
        for edge_ms in edges:
            self._go_on(is_given_up)
            if edge_ms % _DAY_MS == 0:
                # While the clock stands before it: the follower takes a cut as soon as one is due.
                self._wait_until_counted(is_given_up)
            self._pass(edge_ms, is_last=edge_ms == to_ms)
        if to_ms > self._clock.now_ms():
            self._move_to(to_ms, is_waited_for=True)
        cut_count = sum(edge_ms % _DAY_MS == 0 for edge_ms in edges)
        return Drive(start_ms=start_ms, end_ms=to_ms, edge_count=len(edges), cut_count=cut_count)

    def _pass(self, edge_ms: int, *, is_last: bool) -> None:
        """Go to the next edge, and do what is due there."""
        is_midnight = edge_ms % _DAY_MS == 0
        self._move_to(edge_ms, is_waited_for=is_midnight or is_last)
        for act in self._on_edge:
            act(edge_ms)
        if is_midnight:
            self._cuts.take_cut_if_due(now_ms=edge_ms, every_ms=_DAY_MS)

    def _move_to(self, time_ms: int, *, is_waited_for: bool) -> None:
        # Kept first: nothing ever bears a time that a crash takes back.
        self._kept.move_to(time_ms, is_waited_for=is_waited_for)
        self._clock.move_to(time_ms)

    def _go_on(self, is_given_up: Callable[[], bool]) -> None:
        """Return unless nobody wants to go on."""
        if self._stopping.is_set() or is_given_up():
            raise self._ended(Reason.SHUTTING_DOWN, "The drive was ended")

    def _wait_until_counted(self, is_given_up: Callable[[], bool]) -> None:
        """Wait until all that was acknowledged up to now is in usage."""
        recorded = self._counted.recorded_up_to()
        give_up_time = self._clock.monotonic_seconds() + self._counted_seconds_max
        while not self._counted.is_counted(recorded):
            if self._clock.monotonic_seconds() > give_up_time:
                raise self._ended(
                    Reason.STORE_UNAVAILABLE,
                    f"What was recorded is not counted after {self._counted_seconds_max:g} s",
                )
            self._wake_counting()
            self._stopping.wait(_POLL_SECONDS)
            self._go_on(is_given_up)

    def _ended(self, reason: Reason, why: str) -> Unavailable:
        stands = to_iso(self._clock.now_ms())
        return Unavailable(reason, f"{why}; the clock stands at {stands}. Send again to go on.")


def _check(to_ms: int, *, start_ms: int) -> None:
    if to_ms < start_ms:
        raise Refused(
            Reason.CLOCK_REFUSED,
            f"The clock stands at {to_iso(start_ms)} and goes forward only.",
        )
    if to_ms - start_ms > CLOCK_ADVANCE_MS_MAX:
        rule = f"at most {CLOCK_ADVANCE_MS_MAX // _DAY_MS} days after {to_iso(start_ms)}"
        raise InvalidArgument(Reason.ARGUMENT_INVALID, f"to must be {rule}.", field="to", rule=rule)
