"""MeterService: reads, asks, answers. Whoever calls is known by the API key."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from meter.domain import limits
from meter.domain.clock import Clock
from meter.domain.credential import Credential
from meter.domain.errors import Reason, Refused
from meter.domain.event import Origin
from meter.domain.interval import is_on_edge
from meter.domain.outcome import FIRST_QUARANTINED, Outcome
from meter.domain.tokens import BAND_NAMES
from meter.journal.check import is_text
from meter.journal.commit import Release, Result
from meter.producers import Hearing
from meter.quarantine import Quarantine, QuarantineEntry, QuarantineState
from meter.registry import Registry
from meter.usage import GroupBy, UsageQuery, UsageReader, UsageRow
from meter.wire.correction_desk import CorrectionDesk
from meter.wire.door import RegistryDoor
from meter.wire.observation_desk import ObservationDesk
from meter.wire.record_desk import RecordDesk
from meter.wire.reported import SOURCES
from meter.wire.status import invalid
from meter.wire.stream import Stream, StreamParts
from tokenworks.meter.v1 import meter_service_pb2 as pb
from tokenworks.meter.v1 import meter_service_pb2_grpc, usage_pb2

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_PAGE: Final = 100
_PAGE_MAX: Final = 1000
_TOKEN: Final = re.compile("[0-9]{1,18}")
_ENTRY_BYTES: Final = 8


class MeterServicer(meter_service_pb2_grpc.MeterServiceServicer):
    """Thin: each method translates, and hands on; the door has let the caller in."""

    def __init__(
        self,
        parts: StreamParts,
        *,
        registry: Registry,
        reader: UsageReader,
        quarantine: Quarantine,
        corrections: CorrectionDesk,
        observations: ObservationDesk,
        clock: Clock,
        door: RegistryDoor,
    ) -> None:
        """Take the parts of streams and the read ports."""
        self._parts = parts
        self._desk = RecordDesk(parts)
        self._ack_seconds = parts.metrics.ack_seconds.labels("call")
        self._registry = registry
        self._reader = reader
        self._quarantine = quarantine
        self._corrections = corrections
        self._observations = observations
        self._clock = clock
        self._door = door

    async def StreamUsage(  # type: ignore[override]  # writes through the context
        self, request_iterator: AsyncIterator[Any], context: _Context
    ) -> None:
        """Serve a stream."""
        stream = Stream(self._parts, context, authenticate=lambda: self._door.again(context))
        with self._parts.metrics.streams_open.track_inprogress():
            await stream.run(request_iterator)

    async def RecordUsage(
        self,
        request: Any,  # noqa: ANN401  its events are bytes
        _context: _Context,
    ) -> pb.RecordUsageResponse:
        """Record events by their ids."""
        arrival = self._clock.monotonic_seconds()
        credential = self._door.caller()
        if not 1 <= len(request.events) <= limits.RECORD_EVENTS_MAX:
            raise invalid("events", f"1–{limits.RECORD_EVENTS_MAX} events")
        if request.source not in SOURCES:
            raise invalid("source", "a known source, or none")
        share = self._parts.bounds.of(credential.key_id)
        async with share.events(len(request.events)):
            await share.sender("").news()
            outcomes = await self._desk.record(
                list(request.events),
                credential,
                size_bytes=request.ByteSize(),
                source=request.source,
            )
        self._ack_seconds.observe(self._clock.monotonic_seconds() - arrival)
        return pb.RecordUsageResponse(outcomes=outcomes)  # type: ignore[arg-type]

    async def CorrectUsage(
        self, request: pb.CorrectUsageRequest, _context: _Context
    ) -> pb.CorrectUsageResponse:
        """Void a recorded event, or count another in its place."""
        return await self._corrections.correct(request, self._door.caller())

    async def ListCorrections(
        self, request: pb.ListCorrectionsRequest, _context: _Context
    ) -> pb.ListCorrectionsResponse:
        """List what was corrected."""
        return await self._corrections.list(request)

    async def ListObservations(
        self, request: pb.ListObservationsRequest, _context: _Context
    ) -> pb.ListObservationsResponse:
        """Show what was reported of one request."""
        return await self._observations.list(request)

    async def QueryUsage(
        self, request: pb.QueryUsageRequest, _context: _Context
    ) -> pb.QueryUsageResponse:
        """Sum usage."""
        account_id = request.account or None
        now_ms = self._clock.now_ms()
        self._door.admit(account_id)
        if account_id is not None:
            self._registry.snapshot.tree.get(account_id)
        query = _to_query(request, account_id=account_id)
        rows, until_ms = await asyncio.to_thread(self._reader.query, query)
        response = pb.QueryUsageResponse(rows=[self._to_pb(row) for row in rows])
        response.counted_until.FromMilliseconds(until_ms)
        hearing = await asyncio.to_thread(self._hearing_of, account_id, now_ms=now_ms)
        response.silent_producer_count = hearing.silent_count
        if hearing.heard_until_ms is not None:
            response.heard_until.FromMilliseconds(hearing.heard_until_ms)
        return response

    async def ListQuarantine(
        self, request: pb.ListQuarantineRequest, _context: _Context
    ) -> pb.ListQuarantineResponse:
        """List what was set aside."""
        if not 0 <= request.page_size <= _PAGE_MAX:
            raise invalid("page_size", f"0–{_PAGE_MAX}")
        if request.page_token and not _TOKEN.fullmatch(request.page_token):
            raise invalid("page_token", "a token from the last answer")
        if request.state and int(request.state) not in frozenset(QuarantineState):
            raise invalid("state", "held, released or rejected")
        size = request.page_size or _PAGE
        entries = await asyncio.to_thread(
            self._quarantine.list_entries,
            state=QuarantineState(request.state) if request.state else None,
            after_id=int(request.page_token or 0),
            limit=size + 1,
        )
        more = str(entries[size - 1].quarantine_id) if len(entries) > size else ""
        return pb.ListQuarantineResponse(
            entries=[_to_entry(entry) for entry in entries[:size]], next_page_token=more
        )

    async def ReleaseQuarantine(
        self, request: pb.ReleaseQuarantineRequest, _context: _Context
    ) -> pb.ReleaseQuarantineResponse:
        """Check an entry again and record it."""
        credential = self._door.caller()
        entry = await asyncio.to_thread(self._quarantine.get_entry, request.quarantine_id)
        if entry.state is not QuarantineState.HELD:
            raise Refused(Reason.RELEASE_REFUSED, "The entry was decided before.")
        await self._release(entry, credential)
        entry = await asyncio.to_thread(self._quarantine.get_entry, request.quarantine_id)
        return pb.ReleaseQuarantineResponse(entry=_to_entry(entry))

    async def RejectQuarantine(
        self, request: pb.RejectQuarantineRequest, _context: _Context
    ) -> pb.RejectQuarantineResponse:
        """Decide that an entry is never counted."""
        credential = self._door.caller()
        if not request.reason or not is_text(request.reason, limits.DESCRIPTION_CHARS_MAX):
            raise invalid("reason", f"1–{limits.DESCRIPTION_CHARS_MAX} printable characters")
        await asyncio.to_thread(
            self._quarantine.reject,
            request.quarantine_id,
            key_id=credential.key_id,
            reason=request.reason,
            now_ms=self._clock.now_ms(),
        )
        entry = await asyncio.to_thread(self._quarantine.get_entry, request.quarantine_id)
        return pb.RejectQuarantineResponse(entry=_to_entry(entry))

    async def _release(self, entry: QuarantineEntry, credential: Credential) -> Result:
        if entry.outcome == Outcome.CONFLICT:
            raise _still(Outcome.CONFLICT)
        # Recorded in the name of the key and the producer that brought it: ids stay in their space.
        # The entry's number stands where a stream has its instance: the event is found by it.
        origin = Origin(
            account_id=self._owner_of(entry.key_id),
            key_id=entry.key_id,
            received_ms=self._clock.now_ms(),
            producer=entry.producer,
            instance=entry.quarantine_id.to_bytes(_ENTRY_BYTES),
            sequence=entry.sequence,
        )
        release = Release(quarantine_id=entry.quarantine_id, key_id=credential.key_id)
        intake = self._parts.intake
        if not entry.producer:
            submission, outcomes = intake.from_events(
                [entry.payload],
                credential,
                origin,
                any_age=True,
                releases=release,
                source=entry.source,
                choices=[entry.is_choice],
            )
        else:
            submission, outcomes = intake.from_batch(
                intake.read_stream_message(_as_batch(entry)).batch,
                credential,
                origin,
                raw=entry.payload,
                any_age=True,
                releases=release,
                source=entry.source,
                first_index=max(entry.index, 0),
            )
        if not len(outcomes):
            raise _still(Outcome(entry.outcome))
        if entry.index >= 0 and outcomes[0] >= FIRST_QUARANTINED:
            raise _still(Outcome(outcomes[0]))
        return await self._parts.writer.submit(submission)

    def _hearing_of(self, account_id: str | None, *, now_ms: int) -> Hearing:
        """Return how those stand who may report for an account: others are none of its business."""
        summary = self._parts.roster.summary
        if account_id is None:
            return summary.hearing()
        return summary.hearing(self._registry.snapshot.reporters(account_id, at_ms=now_ms))

    def _owner_of(self, key_id: str) -> str:
        credentials = self._registry.snapshot.credentials.values()
        owners = (known.account_id for known in credentials if known.key_id == key_id)
        return next(owners, None) or ""

    def _to_pb(self, row: UsageRow) -> pb.UsageRow:
        keys = row.keys
        message = pb.UsageRow(
            account=str(keys.get(GroupBy.ACCOUNT, "")),
            model=str(keys.get(GroupBy.MODEL, "")),
            served_model=str(keys.get(GroupBy.SERVED_MODEL, "")),
            tier=str(keys.get(GroupBy.TIER, "")),
            region=str(keys.get(GroupBy.REGION, "")),
            request_count=row.request_count,
            unfinished_count=row.unfinished_count,
            delivered_output_count=row.delivered_output_count,
            estimated_count=row.estimated_count,
            energy_mj=row.energy_mj,
        )
        for token_class, count in row.tokens.items():
            item = message.tokens.add(count=count)
            item.token_class = int(token_class)  # type: ignore[assignment]
        if message.account:
            account = self._registry.snapshot.tree.find(message.account)
            message.handle = account.handle if account is not None else ""
        if GroupBy.MODE in keys:
            message.mode = int(keys[GroupBy.MODE])  # type: ignore[assignment]
        if GroupBy.BAND in keys:
            message.band = BAND_NAMES[int(keys[GroupBy.BAND])]
        for key in (GroupBy.DAY, GroupBy.INTERVAL):
            if key in keys:
                message.start_time.FromMilliseconds(int(keys[key]))
        return message


def _to_query(request: pb.QueryUsageRequest, *, account_id: str | None) -> UsageQuery:
    groups = [int(group) for group in request.group_by]
    if any(group not in frozenset(GroupBy) for group in groups) or len(set(groups)) < len(groups):
        raise invalid("group_by", "known fields, each once")
    if GroupBy.DAY in groups and GroupBy.INTERVAL in groups:
        raise invalid("group_by", "day or interval, not both")
    for field, length_max in (
        ("model", limits.MODEL_CHARS_MAX),
        ("tier", limits.TIER_CHARS_MAX),
    ):
        if not is_text(getattr(request, field), length_max):
            raise invalid(field, f"at most {length_max} printable characters")
    start_ms = _edge(request.start_time, "start_time")
    end_ms = _edge(request.end_time, "end_time")
    if end_ms <= start_ms:
        raise invalid("end_time", "after start_time")
    return UsageQuery(
        account_id=account_id,
        start_ms=start_ms,
        end_ms=end_ms,
        group_by=tuple(GroupBy(group) for group in groups),
        model=request.model,
        tier=request.tier,
    )


def _edge(time: Timestamp, field: str) -> int:
    # Timestamps reach to the year 9999; one that was built by hand may lie beyond.
    if not 0 <= time.seconds < datetime(9999, 1, 1, tzinfo=UTC).timestamp():
        raise invalid(field, "between 1970 and 9999")
    time_ms = time.seconds * 1000 + time.nanos // 1_000_000
    if time.nanos or not is_on_edge(time_ms):
        raise invalid(field, "on a 15-minute edge")
    return time_ms


def _as_batch(entry: QuarantineEntry) -> bytes:
    """Return the bytes of a stream's batch: the kept one, or one around the kept event."""
    if entry.index < 0:
        return entry.payload
    event = usage_pb2.UsageEvent.FromString(entry.payload)
    batch = usage_pb2.UsageBatch(sequence=1, rows=usage_pb2.UsageRows(events=[event]))
    return pb.StreamUsageRequest(batch=batch).SerializeToString()


def _to_entry(entry: QuarantineEntry) -> pb.QuarantineEntry:
    message = pb.QuarantineEntry(
        quarantine_id=entry.quarantine_id,
        producer=entry.producer,
        sequence=entry.sequence,
        index=entry.index,
        key_id=entry.key_id,
        size_bytes=len(entry.payload),
    )
    message.outcome = entry.outcome  # type: ignore[assignment]
    message.state = int(entry.state)  # type: ignore[assignment]
    message.source = entry.source  # type: ignore[assignment]
    message.received_time.FromMilliseconds(entry.received_ms)
    if entry.index >= 0:
        message.event.ParseFromString(entry.payload)
    return message


def _still(outcome: Outcome) -> Refused:
    return Refused(
        Reason.RELEASE_REFUSED,
        f"The entry still fails the check: {outcome.name}. Mend the cause or reject the entry.",
        outcome=outcome.name,
    )
