"""Months: the part of the billing service that closes them, and says where each stands."""

import asyncio
import re
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import grpc

from billing.closing import CloseOrder
from billing.collecting import Stage
from billing.ledger import PeriodKey
from billing.limits import REASON_CHARS_MAX
from billing.months import PeriodsWanted
from billing.wire.closing_messages import (
    DUE,
    STAGES_BY_NUMBER,
    to_close_response,
    to_closed,
    to_period,
    to_period_count,
)
from billing.wire.desk import Desk
from billing.wire.messages import from_filter, from_month, from_name, from_text
from meter.domain.account import invalid_argument
from tokenworks.billing.v1 import billing_service_pb2 as pb

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_PREVIOUS: Final = "previous"
_JOBS_MAX: Final = 64
_PAGE: Final = 100
_PAGE_MAX: Final = 1000
# Between the two parts of a page's token: no name has it.
_TOKEN_MARK: Final = "\n"
# Milliseconds since 1970, of a year that there is.
_TOKEN_START: Final = re.compile("[0-9]{1,14}")


class ClosingDesk(Desk):
    """Answers the calls about months."""

    async def CloseMonth(
        self, request: pb.CloseMonthRequest, _context: _Context
    ) -> pb.CloseMonthResponse:
        """Issue a month's invoices."""
        closing = self._parts.closing
        if request.month == DUE:
            month = None
        elif request.month == _PREVIOUS:
            month = closing.previous_month()
        else:
            month = from_month(request.month)
        if request.account:
            self._host.tree().get(request.account)
        if not 0 <= request.job_count <= _JOBS_MAX:
            raise invalid_argument("job_count", f"0 to {_JOBS_MAX}")
        order = CloseOrder(
            month=month,
            account_id=request.account or None,
            dry_run=request.dry_run,
            early=request.early,
            key_id=self._door.caller().key_id,
            job_count=request.job_count or 1,
        )
        return to_close_response(await asyncio.to_thread(closing.close, order))

    async def ListPeriods(
        self, request: pb.ListPeriodsRequest, _context: _Context
    ) -> pb.ListPeriodsResponse:
        """Say where periods stand."""
        if not 0 <= request.page_size <= _PAGE_MAX:
            raise invalid_argument("page_size", f"0 to {_PAGE_MAX}")
        if request.state and request.state not in STAGES_BY_NUMBER:
            raise invalid_argument("state", "open, collecting, due or closed")
        wanted = PeriodsWanted(
            month=from_month(request.month) if request.month else None,
            contract=from_filter(request.contract, "contract"),
            stage=STAGES_BY_NUMBER[request.state] if request.state else None,
        )
        page = await asyncio.to_thread(
            self._parts.months.list_periods,
            wanted,
            after=_from_token(request.page_token),
            limit=request.page_size or _PAGE,
        )
        counts: Mapping[Stage, int] = {}
        if not request.page_token:
            # All that there are, however many pages: said once.
            counts = await asyncio.to_thread(self._parts.months.counts, wanted)
        last = page.periods[-1].stored if page.more else None
        return pb.ListPeriodsResponse(
            periods=[to_period(it) for it in page.periods],
            next_page_token=(
                "" if last is None else f"{last.contract}{_TOKEN_MARK}{last.span.start_ms}"
            ),
            counts=[to_period_count(stage, count) for stage, count in sorted(counts.items())],
        )

    async def ApproveInvoice(
        self, request: pb.ApproveInvoiceRequest, _context: _Context
    ) -> pb.ApproveInvoiceResponse:
        """Let an invoice go that is held."""
        closed = await asyncio.to_thread(
            self._parts.months.approve,
            from_name(request.contract, "contract"),
            from_month(request.month),
            reason=from_text(request.reason, "reason", chars_max=REASON_CHARS_MAX),
            key_id=self._door.caller().key_id,
        )
        return pb.ApproveInvoiceResponse(periods=[to_closed(it) for it in closed])

    async def ReopenPeriod(
        self, request: pb.ReopenPeriodRequest, _context: _Context
    ) -> pb.ReopenPeriodResponse:
        """Open a period again."""
        told = await asyncio.to_thread(
            self._parts.months.reopen,
            from_name(request.contract, "contract"),
            from_month(request.month),
            reason=from_text(request.reason, "reason", chars_max=REASON_CHARS_MAX),
            key_id=self._door.caller().key_id,
        )
        return pb.ReopenPeriodResponse(periods=[to_period(it) for it in told])


def _from_token(token: str) -> PeriodKey | None:
    if not token:
        return None
    contract, mark, start = token.partition(_TOKEN_MARK)
    if not (mark and from_name(contract, "page_token") and _TOKEN_START.fullmatch(start)):
        raise invalid_argument("page_token", "`next_page_token` of an answer")
    return PeriodKey(contract, int(start))
