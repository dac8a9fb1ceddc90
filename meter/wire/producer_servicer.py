"""ProducerService: who reports, who has fallen silent, what is missing."""

import asyncio
from typing import Any, Final, TypeAlias

import grpc

from meter.domain.credential import Credential
from meter.domain.errors import Reason, Refused
from meter.producers import Producer, ProducerQuery, Standing
from meter.registry import Registry
from meter.wire.door import RegistryDoor
from meter.wire.status import invalid
from meter.wire.stream import PRODUCER_NAME, StreamParts
from tokenworks.meter.v1 import producer_service_pb2 as pb
from tokenworks.meter.v1 import producer_service_pb2_grpc as pb_grpc

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_PAGE: Final = 100
_PAGE_MAX: Final = 1000
# Between the parts of a page token; no name of a producer has one.
_SEPARATOR: Final = "@"


class ProducerServicer(pb_grpc.ProducerServiceServicer):
    """Answers ProducerService; raises MeterError, which the server's interceptor translates.

    Calls of the store block and so run in threads.
    """

    def __init__(self, parts: StreamParts, *, door: RegistryDoor, registry: Registry) -> None:
        """Take the parts of streams, which know where producers are kept and which are there."""
        self._store = parts.producers
        self._roster = parts.roster
        self._door = door
        self._registry = registry

    async def ListProducers(
        self, request: pb.ListProducersRequest, _context: _Context
    ) -> pb.ListProducersResponse:
        """Return producers by account and name."""
        self._admit(request.account)
        if not 0 <= request.page_size <= _PAGE_MAX:
            raise invalid("page_size", f"0–{_PAGE_MAX}")
        if request.state and int(request.state) not in frozenset(Standing):
            raise invalid("state", "registered, active or retired")
        size = request.page_size or _PAGE
        query = ProducerQuery(
            account_id=request.account or None,
            standing=Standing(request.state) if request.state else None,
            silent_only=request.is_silent,
            after=_place_from_token(request.page_token),
            limit=size + 1,
        )
        found = await asyncio.to_thread(
            self._store.list_producers, query, silence_ms=self._roster.silence_ms()
        )
        more = _place_to_token(found[size - 1]) if len(found) > size else ""
        return pb.ListProducersResponse(
            producers=[_to_pb(each) for each in found[:size]], next_page_token=more
        )

    async def RegisterProducer(
        self, request: pb.RegisterProducerRequest, _context: _Context
    ) -> pb.RegisterProducerResponse:
        """Expect a producer from now on."""
        caller = self._admit(request.account)
        _check_name(request.producer)
        producer = await asyncio.to_thread(
            self._store.register,
            request.account,
            request.producer,
            edge=request.edge,
            silence_ms=self._roster.silence_ms(),
            by=caller.key_id,
        )
        return pb.RegisterProducerResponse(producer=_to_pb(producer))

    async def RetireProducer(
        self, request: pb.RetireProducerRequest, _context: _Context
    ) -> pb.RetireProducerResponse:
        """Expect a producer no more."""
        caller = self._admit(request.account)
        _check_name(request.producer)
        if self._roster.has_open(request.account, request.producer):
            raise Refused(
                Reason.RETIRE_REFUSED,
                f"Producer {request.producer} has an open stream. Stop it first.",
            )
        producer = await asyncio.to_thread(
            self._store.retire, request.account, request.producer, by=caller.key_id
        )
        return pb.RetireProducerResponse(producer=_to_pb(producer))

    def _admit(self, account: str) -> Credential:
        """Refuse who may not, then an account that is not there; return who may."""
        caller = self._door.admit(account or None)
        if account:
            self._registry.snapshot.tree.get(account)
        return caller


def _check_name(producer: str) -> None:
    if not PRODUCER_NAME.fullmatch(producer):
        raise invalid("producer", "1–64 characters of [A-Za-z0-9._-]")


def _place_to_token(last: Producer) -> str:
    return f"{last.name}{_SEPARATOR}{last.account_id}"


def _place_from_token(token: str) -> tuple[str, str]:
    if not token:
        return ("", "")
    name, separator, account_id = token.partition(_SEPARATOR)
    if not separator or not PRODUCER_NAME.fullmatch(name) or "\0" in account_id:
        raise invalid("page_token", "a token from the last answer")
    return (account_id, name)


def _to_pb(producer: Producer) -> pb.Producer:
    message = pb.Producer(
        account=producer.account_id,
        producer=producer.name,
        is_silent=producer.is_silent,
        recorded_sequence=producer.recorded_sequence,
        announced_sequence=producer.announced_sequence,
        missing_batch_count=producer.missing_batch_count,
        key_id=producer.key_id,
        edge=producer.edge,
    )
    message.state = int(producer.standing)  # type: ignore[assignment]
    message.create_time.FromMilliseconds(producer.create_ms)
    if producer.seen_ms is not None:
        message.seen_time.FromMilliseconds(producer.seen_ms)
    for gap in producer.gaps:
        item = message.gaps.add(first_sequence=gap.first_sequence, last_sequence=gap.last_sequence)
        item.found_time.FromMilliseconds(gap.found_ms)
    return message
