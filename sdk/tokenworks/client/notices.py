"""What the client says in the log: each thing once, or at most so often."""

import logging
from collections.abc import Sequence

from tokenworks.client import limits
from tokenworks.client.fallback import FallbackHold
from tokenworks.client.retry import FORKED, Failure
from tokenworks.client.tally import Tally
from tokenworks.client.vocabulary import State


class Notices:
    """Writes the log, from the sender's thread alone: a caller never waits for a log."""

    def __init__(self, log: logging.Logger, *, tally: Tally, target: str, producer: str) -> None:
        self._log = log
        self._tally = tally
        self._target = target
        self._producer = producer
        self._spool_works = self._spool_works_told = True
        self._spool_fault = ""
        self._spool_works_time = self._spool_lost_time = -limits.LOG_INTERVAL_SECONDS
        self._spool_lost = self._spool_lost_told = 0
        self._kinds_told: set[str] = set()
        self._dropped_told = 0
        self._set_aside_count = 0
        self._set_aside_told = 0
        self._outcome = ""
        self._told_time = -limits.LOG_INTERVAL_SECONDS

    def state_entered(self, state: State, failure: Failure | None) -> None:
        """Say where the client stands now, and why."""
        level = {
            State.WAITING: logging.WARNING,
            State.REFUSED: logging.ERROR,
            State.TAKEN_OVER: logging.ERROR,
        }.get(state, logging.INFO)
        if failure is FORKED:
            self._log.error("spool_forked producer=%s detail=%s", self._producer, failure.detail)
        if failure is None:
            self._log.log(
                level,
                "state_entered state=%s target=%s producer=%s",
                state,
                self._target,
                self._producer,
            )
        else:
            self._log.log(
                level,
                "state_entered state=%s target=%s producer=%s code=%s reason=%s detail=%s",
                state,
                self._target,
                self._producer,
                failure.code,
                failure.reason,
                failure.detail,
            )

    def events_set_aside(self, *, outcomes: Sequence[str], count: int) -> None:
        """Note that the meter put events into quarantine; `count` is their sum so far."""
        self._set_aside_count = count
        self._outcome = ",".join(outcomes)

    def spool_seen(self, spool: FallbackHold, *, lost_before: int) -> None:
        """Look at the spool: whether its disk works, and what it has lost."""
        self._spool_works, self._spool_fault = spool.works, spool.fault
        self._spool_lost = spool.lost_event_count - lost_before

    def certificates_broken(self, fault: str) -> None:
        """Say that renewed certificates cannot be used; those before them are in use."""
        self._log.error("certificate_broken fault=%s", fault)

    def ended(self, state: State, *, lost_count: int, left_count: int) -> None:
        """Say what became of the events that are not durable at the end."""
        if lost_count:
            self._log.error("events_lost count=%d state=%s", lost_count, state)
        if left_count:
            self._log.warning(
                "events_left_in_spool count=%d producer=%s", left_count, self._producer
            )

    def tell(self, now: float) -> None:
        """Say what is new: a kind of bad argument once, all else at most every ten seconds."""
        self._tell_of_spool(now)
        for kind, count in self._tally.invalid_by_kind.items():
            if kind not in self._kinds_told:
                self._kinds_told.add(kind)
                self._log.error("events_invalid kind=%s count=%d", kind, count)
        if now - self._told_time < limits.LOG_INTERVAL_SECONDS:
            return
        dropped = self._tally.dropped
        if dropped > self._dropped_told:
            self._log.warning(
                "events_dropped count=%d total=%d", dropped - self._dropped_told, dropped
            )
            self._dropped_told, self._told_time = dropped, now
        if self._set_aside_count > self._set_aside_told:
            self._log.warning(
                "events_set_aside count=%d total=%d outcomes=%s",
                self._set_aside_count - self._set_aside_told,
                self._set_aside_count,
                self._outcome,
            )
            self._set_aside_told, self._told_time = self._set_aside_count, now

    def _tell_of_spool(self, now: float) -> None:
        is_due = now - self._spool_works_time >= limits.LOG_INTERVAL_SECONDS
        if self._spool_works is not self._spool_works_told and is_due:
            self._spool_works_told, self._spool_works_time = self._spool_works, now
            if self._spool_works:
                self._log.warning("spool_working producer=%s", self._producer)
            else:
                self._log.error(
                    "spool_failing producer=%s detail=%s", self._producer, self._spool_fault
                )
        is_due = now - self._spool_lost_time >= limits.LOG_INTERVAL_SECONDS
        if self._spool_lost > self._spool_lost_told and is_due:
            self._log.error(
                "spool_lost producer=%s count=%d total=%d",
                self._producer,
                self._spool_lost - self._spool_lost_told,
                self._spool_lost,
            )
            self._spool_lost_told, self._spool_lost_time = self._spool_lost, now
