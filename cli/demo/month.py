"""The month: the clock walks through it, the servers report, the meter is killed once."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import grpc

from cli.connection import Client
from cli.demo import opening
from cli.demo.installation import Installation
from cli.demo.servers import Servers
from cli.demo.world import (
    BEGIN,
    CUSTOMERS,
    END,
    KILL,
    MONTH,
    MOVE_ORDER,
    PREVIEW,
    PRICE_IMPORT,
    to_ms,
)
from cli.process import CommandError
from tokenworks.billing.v1.billing_service_pb2 import InvoiceSummary, PreviewInvoiceRequest
from tokenworks.meter.v1.clock_service_pb2 import AdvanceClockRequest
from tokenworks.meter.v1.meter_service_pb2 import QueryUsageRequest

_ADVANCE_SECONDS_MAX: Final = 300.0
_COUNTED_SECONDS_MAX: Final = 120.0
_POLL_SECONDS: Final = 0.05
_HALF_DAY: Final = timedelta(hours=12)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """A kill of the meter: when by its clock, how long it was away, what came again.

    `requests_under_way` had been sent and not been acknowledged.
    """

    time: datetime
    seconds: float
    requests_under_way: int
    repeated_batches: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """What the month tells, as it happens."""

    on_day: Callable[[datetime], None]
    on_prices: Callable[[datetime], None]
    on_preview: Callable[[datetime, list[InvoiceSummary]], None]
    on_kill: Callable[[datetime, int], None]
    on_recovery: Callable[[Outage], None]
    on_move: Callable[[datetime], None]


class Month:
    """October in an installation, with its servers; `terms` takes the prices that come."""

    def __init__(
        self, installation: Installation, servers: Servers, *, terms: Path, listener: Listener
    ) -> None:
        """Take what lives through it, and who hears of it."""
        self._installation = installation
        self._servers = servers
        self._terms = terms
        self._listener = listener

    def live_through(self) -> None:
        """Go from the first moment to the last; returns when every request is counted."""
        for now, following in _days():
            # The day that has passed is reported while the clock goes on.
            is_kill = now.date() == KILL
            self._servers.report(until_ms=to_ms(now - _HALF_DAY if is_kill else now))
            with self._installation.connected() as client:
                way = _start_advance(client, following)
                if is_kill:
                    self._kill_and_take_up(now)
                self._servers.wait()
                self._arrive(way, following)
            self._listener.on_day(following)
            self._act(following)
        self._servers.report(until_ms=to_ms(END))
        self._servers.wait()
        with self._installation.connected() as client:
            self._wait_until_counted(client)

    def _act(self, now: datetime) -> None:
        """Do what is due on a day."""
        with self._installation.connected() as client:
            if now.date() == PRICE_IMPORT:
                opening.import_new_prices(client, folder=self._terms)
                self._listener.on_prices(now)
            if now.date() == PREVIEW:
                self._servers.report(until_ms=to_ms(now))
                self._servers.wait()
                self._wait_until_counted(client)
                self._listener.on_preview(now, _previews(client))
            if now.date() == MOVE_ORDER:
                opening.order_move(client)
                self._listener.on_move(now)

    def _kill_and_take_up(self, now: datetime) -> None:
        """Kill the meter while batches are under way, start it again, and see how all goes on.

        It is frozen first, in the middle of whatever it does, until it owes acknowledgements.
        """
        repeated_before = self._repeated_batches()
        self._servers.wait_for_batch()
        begin = time.monotonic()
        self._installation.freeze()
        is_rest_reported = not self._servers.are_reporting
        if is_rest_reported:
            self._servers.report(until_ms=to_ms(now))
        under_way = self._servers.wait_until_stuck()
        self._installation.kill()
        self._listener.on_kill(now, under_way)
        self._installation.start()
        seconds = time.monotonic() - begin
        self._servers.wait()
        if not is_rest_reported:
            self._servers.report(until_ms=to_ms(now))
            self._servers.wait()
        self._listener.on_recovery(
            Outage(
                time=now,
                seconds=seconds,
                requests_under_way=under_way,
                repeated_batches=self._repeated_batches() - repeated_before,
            )
        )

    def _repeated_batches(self) -> int:
        return sum(it.repeated_batches for it in self._servers.progress)

    def _arrive(self, way: Any, time_ahead: datetime) -> None:  # noqa: ANN401
        """Wait until the clock is there; where its way was broken off, it goes on."""
        try:
            way.result()
        except grpc.RpcError:
            with self._installation.connected() as client:
                _start_advance(client, time_ahead).result()

    def _wait_until_counted(self, client: Client) -> None:
        """Wait until usage has every request that was acknowledged."""
        sent = sum(it.acknowledged for it in self._servers.progress)
        give_up_time = time.monotonic() + _COUNTED_SECONDS_MAX
        while (counted := count_requests(client)) < sent:
            if time.monotonic() > give_up_time:
                raise CommandError(f"only {counted:,} of {sent:,} requests are counted")
            time.sleep(_POLL_SECONDS)


def count_requests(client: Client) -> int:
    """Return how many requests are counted, of everybody and at any time."""
    request = QueryUsageRequest()
    request.start_time.FromDatetime(BEGIN)
    request.end_time.FromDatetime(END)
    return sum(row.request_count for row in client.meter.QueryUsage(request).rows)


def _days() -> Iterator[tuple[datetime, datetime]]:
    """Yield each step of the clock: from one midnight in UTC to the next, at last to the end."""
    now = BEGIN
    while now < END:
        following = min(now + timedelta(days=1), END)
        yield now, following
        now = following


def _start_advance(client: Client, to: datetime) -> Any:  # noqa: ANN401 - grpc's stubs know no future
    request = AdvanceClockRequest()
    request.to.FromDatetime(to)
    advance: Any = client.clock.AdvanceClock
    return advance.future(request, timeout=_ADVANCE_SECONDS_MAX)


def _previews(client: Client) -> list[InvoiceSummary]:
    return [
        preview.invoice
        for customer in CUSTOMERS
        for preview in client.billing.PreviewInvoice(
            PreviewInvoiceRequest(account=customer.account, month=MONTH)
        ).previews
    ]
