"""Months: the part of the billing service that closes them."""

import asyncio
from typing import Any, Final, TypeAlias

import grpc

from billing.wire.desk import Desk
from billing.wire.messages import (
    from_month,
    to_close_response,
)
from tokenworks.billing.v1 import billing_service_pb2 as pb

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_PREVIOUS: Final = "previous"


class ClosingDesk(Desk):
    """Answers the calls about months."""

    async def CloseMonth(
        self, request: pb.CloseMonthRequest, context: _Context
    ) -> pb.CloseMonthResponse:
        """Issue a month's invoices."""
        self._administrator(context)
        closing = self._parts.closing
        is_previous = request.month == _PREVIOUS
        month = closing.previous_month() if is_previous else from_month(request.month)
        if request.account:
            self._host.tree().get(request.account)
        result = await asyncio.to_thread(
            closing.close_month,
            month,
            account_id=request.account or None,
            dry_run=request.dry_run,
        )
        return to_close_response(result)
