"""What the client says in the log: each thing once, or at most so often."""

import logging
from collections.abc import Sequence

from tokenworks.client import limits
from tokenworks.client.retry import Failure
from tokenworks.client.tally import Tally
from tokenworks.client.vocabulary import State
from tokenworks.meter.v1.outcome_pb2 import Outcome


class Notices:
    """Writes the log, from the sender's thread alone: a caller never waits for a log."""

    def __init__(self, log: logging.Logger, *, tally: Tally) -> None:
        self._log = log
        self._tally = tally
        self._kinds_told: set[str] = set()
        self._dropped_told = 0
        self._set_aside_count = 0
        self._set_aside_told = 0
        self._outcome = ""
        self._told_time = -limits.LOG_INTERVAL_SECONDS

    def state_entered(
        self, state: State, failure: Failure | None, *, target: str, producer: str
    ) -> None:
        """Say where the client stands now, and why."""
        level = {
            State.WAITING: logging.WARNING,
            State.REFUSED: logging.ERROR,
            State.TAKEN_OVER: logging.ERROR,
        }.get(state, logging.INFO)
        if failure is None:
            self._log.log(
                level, "state_entered state=%s target=%s producer=%s", state, target, producer
            )
        else:
            self._log.log(
                level,
                "state_entered state=%s target=%s producer=%s code=%s reason=%s detail=%s",
                state,
                target,
                producer,
                failure.code,
                failure.reason,
                failure.detail,
            )

    def events_set_aside(self, *, outcomes: Sequence[int], count: int) -> None:
        """Note that the meter put events into quarantine; `count` is their sum so far."""
        self._set_aside_count = count
        known = Outcome.DESCRIPTOR.values_by_number
        names = sorted({known[number].name for number in outcomes if number in known})
        self._outcome = ",".join(names)

    def tell(self, now: float) -> None:
        """Say what is new: a kind of bad argument once, counts at most every ten seconds."""
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
