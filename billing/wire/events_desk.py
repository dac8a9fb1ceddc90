"""The events behind a line: the part of the billing service that lists them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import islice
from typing import Any, Final, TypeAlias

import grpc

from billing.wire.desk import Desk
from billing.wire.messages import to_timestamp
from meter.evidence import EventEvidence
from tokenworks.billing.v1 import billing_service_pb2 as pb

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
# Some hundred bytes each.
_EVENTS_AT_ONCE: Final = 1_000


class EventsDesk(Desk):
    """Answers the call for the events behind a line."""

    async def ListLineEvents(
        self, request: pb.ListLineEventsRequest, _context: _Context
    ) -> AsyncIterator[pb.ListLineEventsResponse]:
        """List the events of a line, some at a time."""
        await self._readable_invoice(request.number)
        events = await asyncio.to_thread(
            self._parts.explaining.line_events, request.number, request.line
        )
        while chunk := await asyncio.to_thread(_take, events):
            yield pb.ListLineEventsResponse(events=map(_to_event, chunk))


def _take(events: Iterator[EventEvidence]) -> list[EventEvidence]:
    return list(islice(events, _EVENTS_AT_ONCE))


def _to_event(event: EventEvidence) -> pb.LineEvent:
    return pb.LineEvent(
        shard=event.shard,
        position=event.position,
        row=event.row,
        account=event.account_id,
        end_time=to_timestamp(event.end_ms),
        token_count=event.token_count,
        event_id=event.event_id,
        request_id=event.request_id,
        model=event.model,
        served_model=event.served_model,
        key_id=event.key_id,
        correction=event.is_correction,
    )
