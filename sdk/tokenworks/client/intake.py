"""Where callers leave events and the sender takes them."""

from collections.abc import Sequence

from tokenworks.client import limits
from tokenworks.client.events import RawEvent


class Intake:
    """Events on their way from callers to the sender.

    Appending to a list, copying a part of it, deleting a part, and each step on a dict are one
    step under the interpreter's lock, and only the sender ever removes events: so nobody waits for
    anybody.
    """

    __slots__ = ("changed", "finals", "pending", "room", "running")

    def __init__(self) -> None:
        self.pending: list[RawEvent] = []
        self.room = 0
        """So many events may be pending; 0 sends the caller the long way, which decides."""
        self.running: dict[int, list[RawEvent]] = {}
        """What is known so far of each running report, by its key, in a list of one."""
        self.changed: dict[int, None] = {}
        """Keys of those that have changed since the sender looked."""
        self.finals: list[tuple[int, RawEvent]] = []
        """Running reports that have come to their end, whose progress may be on disk."""

    @property
    def event_count(self) -> int:
        """Events that wait for the sender."""
        return len(self.pending) + len(self.finals)

    def take(self, count_max: int) -> Sequence[RawEvent]:
        """Remove and return the oldest pending events; for the sender alone."""
        raws = self.pending[:count_max]
        del self.pending[: len(raws)]
        return raws

    def take_finals(self, count_max: int) -> Sequence[tuple[int, RawEvent]]:
        """Remove and return the oldest finals; for the sender alone."""
        finals = self.finals[:count_max]
        del self.finals[: len(finals)]
        return finals

    def take_changed(self) -> dict[int, RawEvent]:
        """Return what is known of reports that have changed, and are still running, in turn.

        To be asked before `take_finals`: a report that ends in between is then in both, and its
        final is the last word.
        """
        taken: dict[int, RawEvent] = {}
        for key in list(self.changed)[: limits.PROGRESS_WRITTEN_MAX]:
            # Before its content is looked at: what is said from here on is a change again.
            self.changed.pop(key, None)
            cell = self.running.get(key)
            if cell is not None:
                taken[key] = cell[0]
        return taken

    def end(self, key: int) -> bool:
        """End a running report; False where it had ended before: of several callers one wins."""
        return self.running.pop(key, None) is not None
