"""The way of a sandbox's clock with its closes: it stops wherever a period may be closed."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from cli.connection import Client
from tokenworks.billing.v1 import billing_service_pb2 as billing_pb
from tokenworks.meter.v1 import clock_service_pb2 as pb

# A month with a hundred energy sources to read at each of its edges, and a close of it.
_STEP_SECONDS_MAX: Final = 3_600.0
_PAGE_SIZE: Final = 1_000
# All that may be closed, whichever month it is of.
_DUE: Final = "due"
# When the month has begun in every zone there is.
_EVERYWHERE: Final = timedelta(hours=15)
# Whoever is waited for may be heard meanwhile: a period that waits is looked at so often.
_WAITING: Final = timedelta(days=1)
_STILL: Final = frozenset(
    {
        billing_pb.CLOSE_OUTCOME_NOT_ENDED,
        billing_pb.CLOSE_OUTCOME_COLLECTING,
        billing_pb.CLOSE_OUTCOME_ALREADY_ISSUED,
        billing_pb.CLOSE_OUTCOME_HELD_EARLIER,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """What came of a period at a stop of the clock."""

    time: datetime
    period: billing_pb.ClosedPeriod


@dataclass(slots=True)
class Driver:
    """Moves the clock from stop to stop; `edge_count` and `cut_count` add up what was passed."""

    client: Client
    edge_count: int = 0
    cut_count: int = 0
    _told: set[tuple[str, int, int]] = field(default_factory=set)

    def drive(self, to: datetime) -> Iterator[Closed]:
        """Move the clock there, and yield what comes of each period on the way, once.

        `to` is aware. Raises grpc.RpcError when a call fails; the clock then stands at its last
        stop or after it, and another drive goes on from there.
        """
        # Clocks stand on milliseconds: what lies between two is never reached.
        to = to.replace(microsecond=to.microsecond // 1000 * 1000)
        now = self._now()
        while True:
            yield from self._close_at(now)
            if now >= to:
                return
            now = self._move(min(to, self._next_stop(now)))

    def _now(self) -> datetime:
        told = self.client.clock.GetClock(pb.GetClockRequest())
        return told.now.ToDatetime(UTC)

    def _move(self, to: datetime) -> datetime:
        request = pb.AdvanceClockRequest()
        request.to.FromDatetime(to)
        answer = self.client.clock.AdvanceClock(request, timeout=_STEP_SECONDS_MAX)
        self.edge_count += answer.edge_count
        self.cut_count += answer.cut_count
        return answer.now.ToDatetime(UTC)

    def _next_stop(self, now: datetime) -> datetime:
        """Return when something may be closed next, or opened that nobody has seen yet."""
        stops = [_next_month(now - _EVERYWHERE) + _EVERYWHERE]
        for period in self._open_periods():
            collected = period.collected_time.ToDatetime(UTC)
            due = period.due_time.ToDatetime(UTC)
            stops += [it for it in (collected, due) if it > now]
            if collected <= now < due:
                stops.append(now + _WAITING)
        return min(stops)

    def _close_at(self, now: datetime) -> Iterator[Closed]:
        """Close what may be closed; periods that have begun open by that."""
        request = billing_pb.CloseMonthRequest(month=_DUE)
        answer = self.client.billing.CloseMonth(request, timeout=_STEP_SECONDS_MAX)
        for period in answer.periods:
            start = period.invoice.start_time.ToMilliseconds()
            key = (period.invoice.contract, start, period.outcome)
            if period.outcome not in _STILL and key not in self._told:
                self._told.add(key)
                yield Closed(time=now, period=period)

    def _open_periods(self) -> Iterator[billing_pb.Period]:
        request = billing_pb.ListPeriodsRequest(page_size=_PAGE_SIZE)
        while True:
            answer = self.client.billing.ListPeriods(request)
            yield from (it for it in answer.periods if it.state != billing_pb.PERIOD_STATE_CLOSED)
            if not answer.next_page_token:
                return
            request.page_token = answer.next_page_token


def _next_month(time: datetime) -> datetime:
    """Return when the next month begins in UTC."""
    first = time.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first + timedelta(days=32)).replace(day=1)
