"""What processes of this producer have left that are gone: it is seen to the meter from here."""

import logging
from collections.abc import Callable
from threading import Event, Thread
from typing import Final

from tokenworks.client.sender import Sender
from tokenworks.client.spooling import Place, SpoolPlan


class Adopter:
    """Drains left spools, one after the other, each under its own name, on a thread of its own.

    What has been left is looked for once, at the start: later a process that comes back, or the
    next one that takes the slot, sees to its own.
    """

    def __init__(self, plan: SpoolPlan, *, make_sender: Callable[[Place], Sender]) -> None:
        """`make_sender` makes a sender that stops by itself when nothing is held."""
        self._plan = plan
        self._make_sender = make_sender
        self._sender: Sender | None = None
        self._place: Place | None = None
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="tokenworks-adopter", daemon=True)

    def start(self) -> None:
        """Start the thread. Raises RuntimeError where the process has no room for another."""
        self._thread.start()

    def stop(self, *, timeout_seconds: float) -> None:
        """End the thread; what is not durable yet stays where it is."""
        self._stopping.set()
        sender = self._sender
        if sender is not None:
            sender.stop(timeout_seconds=0)
        self._thread.join(timeout_seconds)

    def leave_to_parent(self) -> None:
        """Let go of the folder at hand: this is a child of the process that drains it."""
        if self._place is not None and self._place.folder is not None:
            self._place.folder.abandon()

    def _run(self) -> None:
        for place in self._plan.leftovers():
            self._place = place
            if self._stopping.is_set():
                place.hold.close()
                return
            _LOG.info(
                "spool_adopted producer=%s events=%d", place.producer, place.hold.held_event_count
            )
            self._sender = self._make_sender(place)
            if self._stopping.is_set():
                self._sender.stop(timeout_seconds=0)
            self._sender.run()


_LOG: Final = logging.getLogger("tokenworks.client")
