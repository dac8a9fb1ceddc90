"""Running reports: requests that last, whose latest counts stand in when the last ones never come.

The counts of a report are cumulative, so a newer one simply takes the place of an older one.
"""

from asyncio import CancelledError
from collections.abc import Callable
from itertools import count
from types import TracebackType
from typing import Final, Never, Self, TypeAlias, Unpack

from tokenworks.client import limits
from tokenworks.client.events import TEXT_CLASSES, RawEvent
from tokenworks.client.foreign import items_of
from tokenworks.client.intake import Intake
from tokenworks.client.report import Report
from tokenworks.client.usage_objects import find_usage
from tokenworks.client.vocabulary import Finish, Quality

Said: TypeAlias = dict[str, object]
"""Arguments of `Meter.record` by their names; `tokens` as pairs."""


class RunningReport:
    """One request that is under way; see `Meter.begin`.

    It counts once: by `finish`, else with what was known last, as partial and failed: when it is
    left or let go, when the meter is closed, and, with a spool, after the process died.
    """

    __slots__ = ("__weakref__", "_key", "_said", "_shelf")

    def __init__(self, shelf: "RunningReports", *, key: int, said: Said) -> None:
        self._shelf = shelf
        self._key = key
        self._said = said

    def update(self, /, *unexpected: Never, **said: Unpack[Report]) -> bool:
        """Take down what is known now; False where the report has ended.

        Arguments are those of `Meter.record`. Counts are those since the begin of the request;
        what is not mentioned stays as it was. Never blocks and never raises.
        """
        known = self._shelf.merged(self._said, said, is_clean=not unexpected)
        if known is None:
            return False
        self._said = known
        return self._shelf.update(self._key, known)

    def finish(self, /, *unexpected: Never, **said: Unpack[Report]) -> bool:
        """End the report, with what is known now; False where it is lost or had ended before.

        Arguments are those of `Meter.record`; the finish is COMPLETED unless it is said. With one
        that does not exist the report goes on.
        """
        known = self._shelf.merged(self._said, said, is_clean=not unexpected)
        if known is None or not self._shelf.finish(self._key, known):
            return False
        return self._shelf.wait()

    def give_up(self, finish: Finish = Finish.FAILED) -> bool:
        """End the report with what was known last, as partial; False where it had ended before."""
        partial: Said = {"finish": finish, "quality": Quality.PARTIAL}
        return self._shelf.finish(self._key, self._said | partial)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        cancelled = isinstance(error, GeneratorExit | CancelledError)
        self.give_up(Finish.CANCELLED if cancelled else Finish.FAILED)

    def __del__(self) -> None:
        if self._shelf.is_running(self._key):
            self.give_up()


class RunningReports:
    """The running reports of one process.

    At most `RUNNING_REPORTS_MAX` are followed at a time. One beyond counts when it ends; its
    progress is not written down, and closing the meter does not end it.
    """

    def __init__(
        self,
        intake: Intake,
        *,
        is_spooled: bool,
        put: Callable[[RawEvent], bool],
        has_room: Callable[[], bool],
        refuse: Callable[[str], bool],
        wait: Callable[[], bool],
        clock: Callable[[], int],
    ) -> None:
        """`put` takes an event as `Meter.record` does, `refuse` counts one that is unfit.

        `has_room` says whether an event may be taken, and counts it as dropped if not; `wait`
        returns when what was put is as safe as the user asked for, and whether it is; `clock`
        tells nanoseconds since 1970.
        """
        self.wait = wait
        self._intake = intake
        self._is_spooled = is_spooled
        self._put = put
        self._has_room = has_room
        self._refuse = refuse
        self._clock = clock
        # Above the keys of earlier starts, which the spool may still know.
        self._keys = count(clock())
        self._unfollowed: dict[int, None] = {}
        self._is_over = False

    def begin(self, said: Report, *, is_clean: bool) -> RunningReport:
        """Begin a report; of arguments that do not exist none is heeded."""
        known = self.merged({}, said, is_clean=is_clean) or {}
        key = next(self._keys)
        if self._is_over or len(self._intake.running) >= limits.RUNNING_REPORTS_MAX:
            self._unfollowed[key] = None
        else:
            self._intake.running[key] = [self._partial(known)]
            self._intake.changed[key] = None
        return RunningReport(self, key=key, said=known)

    def is_running(self, key: int) -> bool:
        """Whether a report has not ended yet."""
        return key in self._intake.running or key in self._unfollowed

    def merged(self, known: Said, said: Report, *, is_clean: bool) -> Said | None:
        """Return what is known now; None, and counted, where an argument does not exist."""
        if not is_clean or not said.keys() <= Report.__optional_keys__:
            self._refuse("unknown_argument")
            return None
        new: Said = dict(said)
        if said.get("tokens") is not None:
            new["tokens"] = items_of(said["tokens"])
        if said.get("usage") is not None:
            profile = str((known | new).get("profile"))
            new["usage"] = find_usage(said["usage"], profile=profile)
        return known | new

    def update(self, key: int, said: Said) -> bool:
        """Note what is known of a report."""
        cell = self._intake.running.get(key)
        if cell is None:
            return key in self._unfollowed
        # In place: a report that ends at this moment must not come back.
        cell[0] = self._partial(said)
        self._intake.changed[key] = None
        return True

    def finish(self, key: int, said: Said) -> bool:
        """End a report; the first of several calls counts. It may run in a destructor: no lock."""
        is_followed = self._intake.end(key)
        if not is_followed and self._unfollowed.pop(key, _ABSENT) is _ABSENT:
            return False
        raw = raw_event(said, recorded_ns=self._clock())
        if not is_followed or not self._is_spooled:
            return self._put(raw)
        self._intake.changed.pop(key, None)
        if not self._has_room():
            # What is on disk of it counts, as partial, at the next start.
            return False
        self._intake.finals.append((key, raw))
        return True

    def end_all(self) -> None:
        """End each report that is followed, as partial and failed: the meter is closed."""
        self._is_over = True
        # Keys alone are listed in one step: making pairs may set off the collector, which ends
        # reports too.
        for key in list(self._intake.running):
            cell = self._intake.running.get(key)
            if cell is not None and self._intake.end(key):
                self._intake.finals.append((key, cell[0]))

    def leave_to_parent(self) -> None:
        """Forget all reports: this is a child of the process that ends them."""
        self._unfollowed.clear()
        self._intake.running.clear()

    def _partial(self, said: Said) -> RawEvent:
        partial: Said = {"finish": Finish.FAILED, "quality": Quality.PARTIAL}
        return raw_event(said | partial, recorded_ns=self._clock())


def raw_event(said: Said, *, recorded_ns: int) -> RawEvent:
    """Lay arguments out in the order of `events.Raw`."""
    return (
        recorded_ns,
        tuple(map(said.get, _DIMENSIONS)),
        *(said.get(name, 0) for name in _COUNTS),
        said.get("tokens"),
        *(said.get(name, default) for name, default in _REST.items()),
    )


_ABSENT: Final = object()
_DIMENSIONS: Final = ("account", "model", "served_model", "tier", "mode", "pool", "region")
_COUNTS: Final = tuple(token_class.name.lower() for token_class in TEXT_CLASSES)
_REST: Final[Said] = {
    "end_time": None,
    "duration_ms": 0,
    "finish": Finish.COMPLETED,
    "quality": Quality.FINAL,
    "request_id": "",
    "attempt": 0,
    "event_id": None,
    "reported_input_count": None,
    "reported_output_count": None,
    "usage": None,
}
