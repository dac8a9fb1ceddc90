"""What of a client belongs to one process: a child made by `fork` gets its own."""

import atexit
import logging
import math
from dataclasses import dataclass
from threading import RLock
from typing import Final

from tokenworks.client import limits
from tokenworks.client.adopting import Adopter
from tokenworks.client.clock import monotonic, new_instance, time_ns, uniform
from tokenworks.client.connection import Address
from tokenworks.client.events import DimensionKey, RawEvent
from tokenworks.client.intake import Intake
from tokenworks.client.report import Statistics
from tokenworks.client.retry import Backoff
from tokenworks.client.running import RunningReports
from tokenworks.client.sender import Sender
from tokenworks.client.session import Pace
from tokenworks.client.spool import Folder, Fsync
from tokenworks.client.spooling import OpenPlace, Place, SpoolPlan, in_memory
from tokenworks.client.tally import Tally
from tokenworks.client.vocabulary import Source, State


@dataclass(frozen=True, slots=True, kw_only=True)
class SetUp:
    """What was chosen when the client was made; a child process keeps it."""

    producer: str
    address: Address
    defaults: DimensionKey
    """Dimensions of events that leave them open; none of them is None."""
    buffer_events_max: int
    pace: Pace
    source: Source | None = None
    """Who reports, where others may report the same requests."""
    plan: SpoolPlan | None = None
    """None holds events in memory alone."""

    @property
    def waits_for_disk(self) -> bool:
        """Whether a caller waits until its event is on disk."""
        return self.plan is not None and self.plan.options.fsync is Fsync.EVENT


class Reporter:
    """Takes events in one process, from its first event to the end."""

    def __init__(
        self, set_up: SetUp, *, place: Place | None = None, is_child: bool = False
    ) -> None:
        """`place`: where batches lie, if it is open already."""
        self._set_up = set_up
        self._place = place
        self._lock = RLock()
        self._instance = new_instance()
        self._name = set_up.producer
        if is_child:
            # A name of our own: two instances under one name would stop each other.
            self._name = f"{set_up.producer[:55]}.{self._instance.hex()[:8]}"
        self._sender: Sender | None = None
        self._adopter: Adopter | None = None
        self._is_closed = False
        self._start_time = -math.inf
        """The sender is not started before."""
        self.intake = Intake()
        self.tally = Tally()
        self.reports = RunningReports(
            self.intake,
            is_spooled=set_up.plan is not None,
            put=self.put,
            has_room=self.has_room,
            refuse=self.refuse,
            wait=self.wait_for_disk if set_up.waits_for_disk else lambda: True,
            clock=time_ns,
        )
        if place is not None and place.hold.held_event_count + len(place.hold.recovered):
            # Something was left, perhaps long ago: it does not wait for the next event.
            self.start_once()

    @property
    def statistics(self) -> Statistics:
        """Counts so far, and where the client stands."""
        sender = self._sender
        if sender is None:
            return Statistics(
                dropped=self.tally.dropped,
                invalid=self.tally.invalid,
                is_spooling=self._place is not None and not self._is_closed,
                state=State.CLOSED if self._is_closed else State.IDLE,
            )
        figures = sender.figures
        return Statistics(
            recorded=figures.recorded,
            restored=figures.restored,
            acknowledged=figures.acknowledged,
            held=figures.held,
            set_aside=figures.set_aside,
            dropped=self.tally.dropped,
            invalid=self.tally.invalid,
            resent=figures.resent_batches,
            gaps=figures.gaps,
            spool_bytes=figures.spool_bytes,
            spool_lost=figures.spool_lost,
            is_spooling=figures.is_spooling,
            state=sender.state,
        )

    def put(self, raw: RawEvent) -> bool:
        """Take an event down; False where it is lost. Never waits."""
        if len(self.intake.pending) >= self.intake.room and not self.make_room():
            return False
        self.intake.pending.append(raw)
        return True

    def has_room(self) -> bool:
        """Whether an event may be taken; one that may not is counted as dropped."""
        return self.intake.event_count < self.intake.room or self.make_room()

    def make_room(self) -> bool:
        """Decide for a caller that found no room: the first one starts the sender."""
        self.start_once()
        if self.intake.room > self.intake.event_count:
            return True
        self.tally.drop()
        return False

    def refuse(self, kind: str) -> bool:
        """Count an event that cannot be taken; False."""
        self.tally.refuse(kind)
        # It is the sender that writes the log.
        self.start_once()
        return False

    def wait_for_disk(self) -> bool:
        """Wait until all recorded before is on disk; False where it was dropped.

        While the disk fails nobody waits: events go on from memory then.
        """
        sender = self._sender
        if sender is None or sender.is_current:
            return True
        flush = sender.flush(is_for_disk=True, is_patient=False)
        while not flush.done.wait(limits.DISK_WAIT_SECONDS) and sender.is_running:
            pass
        return flush.reached or not sender.figures.is_spooling

    def flush(self, timeout_seconds: float, *, is_for_disk: bool = False) -> bool:
        """Wait until all recorded before is durable at the meter, or is on this disk."""
        sender = self._sender
        if sender is None:
            return not self.intake.event_count
        flush = sender.flush(is_for_disk=is_for_disk)
        flush.done.wait(timeout_seconds)
        return flush.reached

    def start_once(self) -> None:
        """Start the sender, if there is none and the client is open."""
        if self._sender is None:
            self._start_under_lock()

    def close(self, timeout_seconds: float) -> bool:
        """Flush and stop for good; False where something was lost."""
        deadline = monotonic() + timeout_seconds
        with self._lock:
            self._is_closed = True
            sender, adopter = self._sender, self._adopter
        # First: a report that ends while there is no room any more would be dropped.
        self.reports.end_all()
        self.intake.room = 0
        if adopter is not None:
            adopter.stop(timeout_seconds=0)
        if sender is None:
            if self._place is not None:
                self._place.hold.close()
            return True
        if sender.is_running:
            self.flush(timeout_seconds)
            sender.stop(timeout_seconds=max(deadline - monotonic(), limits.EXIT_SECONDS_MAX))
        if adopter is not None:
            adopter.stop(timeout_seconds=limits.EXIT_SECONDS_MAX)
        atexit.unregister(self._exit)
        return sender.lost_count == 0 and not sender.is_running

    def in_child(self) -> "Reporter":
        """Return what a child of this process has instead, which this one's life does not touch.

        The parent goes on under its name and sends what it holds. Its threads do not exist in the
        child, and its connection must not be touched, not even to close it. With a spool the child
        takes a slot of its own when it has something to report.
        """
        self.reports.leave_to_parent()
        if self._adopter is not None:
            self._adopter.leave_to_parent()
        folder = self._folder
        if folder is not None:
            folder.abandon()
        return Reporter(self._set_up, is_child=True)

    @property
    def _folder(self) -> Folder | None:
        place = self._place
        sender = self._sender
        if place is None and sender is not None:
            place = sender.place
        return None if place is None else place.folder

    def _open_place(self) -> OpenPlace:
        place, plan, name = self._place, self._set_up.plan, self._name
        if place is not None:
            return lambda: place
        return in_memory(name) if plan is None else lambda: plan.open_or_memory(name)

    def _start_under_lock(self) -> None:
        with self._lock:
            is_due = monotonic() >= self._start_time
            if self._sender is None and not self._is_closed and is_due:
                # Set first: the collector may come by here again, with a report that is let go.
                self._start_time = monotonic() + limits.RETRY_SECONDS_MAX
                self._start()

    def _start(self) -> None:
        sender = self._sender_for(self._open_place(), intake=self.intake, instance=self._instance)
        try:
            sender.start()
            if self._set_up.plan is not None:
                self._adopter = Adopter(self._set_up.plan, make_sender=self._drain)
                self._adopter.start()
        except RuntimeError as error:
            # No thread to be had: the process is at its limit, or about to end.
            _LOG.error("sender_not_started detail=%s", error)
            self._adopter = None
        if not sender.is_running:
            self.intake.room = 0
            return
        self._sender = sender
        atexit.register(self._exit)

    def _drain(self, place: Place) -> Sender:
        return self._sender_for(
            lambda: place, intake=Intake(), instance=new_instance(), is_drain=True
        )

    def _sender_for(
        self, open_place: OpenPlace, *, intake: Intake, instance: bytes, is_drain: bool = False
    ) -> Sender:
        return Sender(
            intake,
            # What is drained is not of this process; neither are its counts.
            tally=Tally() if is_drain else self.tally,
            address=self._set_up.address,
            instance=instance,
            defaults=self._set_up.defaults,
            source=self._set_up.source,
            open_place=open_place,
            buffer_events_max=self._set_up.buffer_events_max,
            pace=self._set_up.pace,
            backoff=Backoff(draw=uniform),
            is_drain=is_drain,
        )

    def _exit(self) -> None:
        """Give what is held a last chance when the process ends."""
        self.close(limits.EXIT_SECONDS_MAX)


_LOG: Final = logging.getLogger("tokenworks.client")
