"""CorrectUsage and ListCorrections: find the event, check what replaces it, append both."""

import asyncio
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from meter.corrections import (
    ById,
    ByPlace,
    CorrectableEvent,
    Correction,
    Corrections,
    NewCorrection,
    Search,
    from_batch,
    to_batch,
)
from meter.domain import limits
from meter.domain.credential import Credential
from meter.domain.errors import InvalidArgument, Reason, Refused
from meter.domain.event import DimensionTable
from meter.domain.outcome import Outcome
from meter.domain.times import to_iso
from meter.journal.check import is_text
from meter.wire.correcting import append_correction
from meter.wire.event_ids import id_bytes
from meter.wire.status import invalid
from meter.wire.stream import PRODUCER_NAME, StreamParts
from meter.wire.translate import to_event
from tokenworks.meter.v1 import meter_service_pb2 as pb
from tokenworks.meter.v1 import usage_pb2

_PAGE: Final = 100
_PAGE_MAX: Final = 1000
_TOKEN: Final = re.compile("[0-9]{1,18}")
_CALENDAR_SECONDS: Final = datetime(9999, 1, 1, tzinfo=UTC).timestamp()
# What is wrong with the installation and not with the request: another day it may be right.
_OF_THE_INSTALLATION: Final = (
    Outcome.ACCOUNT_UNKNOWN,
    Outcome.ACCOUNT_CLOSED,
    Outcome.TIER_UNKNOWN,
)


class CorrectionDesk:
    """Answers those who may correct; the servicer has asked who they are."""

    def __init__(self, parts: StreamParts, *, store: Corrections) -> None:
        """Take the parts by which events are checked and recorded, and where they are found."""
        self._parts = parts
        self._store = store

    async def correct(
        self, request: pb.CorrectUsageRequest, credential: Credential
    ) -> pb.CorrectUsageResponse:
        """Void an event or replace it, once however often it is asked for.

        Raises InvalidArgument, NotFound (EVENT_NOT_FOUND) and Refused (CORRECTION_REFUSED).
        """
        search = _to_search(request, now_ms=self._parts.clock.now_ms())
        if not request.reason or not is_text(request.reason, limits.DESCRIPTION_CHARS_MAX):
            raise invalid("reason", f"1–{limits.DESCRIPTION_CHARS_MAX} printable characters")
        after, outcome = self._replacement(request, credential)
        found = await asyncio.to_thread(self._store.find_event, search)
        if after is not None:
            after = replace(after, event_id=found.event.event_id)
        wanted = NewCorrection(
            target=found.target,
            before=found.event,
            after=after,
            reported=found.reported,
            key_id=credential.key_id,
            reason=request.reason,
        )
        if found.last is not None and _is_same(found.last, wanted):
            return pb.CorrectUsageResponse(correction=_to_pb(found.last))
        if found.last is not None and found.last.after is None:
            raise _void_already(found.last)
        if outcome is not Outcome.RECORDED:
            raise _unfit(outcome)
        correction = await self._append(wanted, account_id=found.account_id)
        return pb.CorrectUsageResponse(correction=_to_pb(correction))

    async def list(self, request: pb.ListCorrectionsRequest) -> pb.ListCorrectionsResponse:
        """Return a page of corrections; raises InvalidArgument."""
        if not 0 <= request.page_size <= _PAGE_MAX:
            raise invalid("page_size", f"0–{_PAGE_MAX}")
        if request.page_token and not _TOKEN.fullmatch(request.page_token):
            raise invalid("page_token", "a token from the last answer")
        size = request.page_size or _PAGE
        found = await asyncio.to_thread(
            self._store.list_corrections, after_id=int(request.page_token or 0), limit=size + 1
        )
        more = str(found[size - 1].correction_id) if len(found) > size else ""
        return pb.ListCorrectionsResponse(
            corrections=[_to_pb(each) for each in found[:size]], next_page_token=more
        )

    async def _append(self, wanted: NewCorrection, *, account_id: str) -> Correction:
        """Write the correction, or return the same one that came first; raises Refused."""
        correction_id = await append_correction(self._parts, wanted, account_id=account_id)
        correction = await asyncio.to_thread(self._store.find_correction, wanted.target)
        assert correction is not None, "either ours is on disk or the one that was first"
        if not correction_id and not _is_same(correction, wanted):
            raise Refused(
                Reason.CORRECTION_REFUSED,
                f"Correction {correction.correction_id} of the same event came first. Look at it,"
                " and decide anew.",
            )
        return correction

    def _replacement(
        self, request: pb.CorrectUsageRequest, credential: Credential
    ) -> tuple[CorrectableEvent | None, Outcome]:
        if not request.HasField("replacement"):
            return None, Outcome.RECORDED
        event = request.replacement
        if event.event_id:
            raise invalid("replacement.event_id", "empty: the event keeps its id")
        if not event.HasField("end_time"):
            raise invalid("replacement.end_time", "set: it decides the interval and the price")
        batch, outcome = self._parts.intake.check_replacement(
            event, credential, now_ms=self._parts.clock.now_ms()
        )
        if not len(batch):
            raise _unfit(outcome)
        return from_batch(batch), outcome


def _to_search(request: pb.CorrectUsageRequest, *, now_ms: int) -> Search:
    kind = request.WhichOneof("event")
    if kind is None:
        raise invalid("event", "an event_id or a place")
    if not is_text(request.account, limits.ACCOUNT_CHARS_MAX):
        raise invalid("account", f"at most {limits.ACCOUNT_CHARS_MAX} printable characters")
    start_ms = now_ms - limits.CLAIM_KEPT_MS
    if request.HasField("start_time"):
        start_ms = to_ms(request.start_time, "start_time")
    end_ms = to_ms(request.end_time, "end_time") if request.HasField("end_time") else None
    if end_ms is not None and end_ms <= start_ms:
        raise invalid("end_time", "after start_time")
    return Search(
        event=_by_id(request.event_id) if kind == "event_id" else _by_place(request.place),
        account_id=request.account,
        start_ms=start_ms,
        end_ms=end_ms,
    )


def _by_id(event_id: str) -> ById:
    if not event_id or len(event_id) > limits.EVENT_ID_CHARS_MAX or not event_id.isprintable():
        raise invalid("event_id", f"1–{limits.EVENT_ID_CHARS_MAX} printable characters")
    found = id_bytes(event_id)
    if not any(found):
        raise invalid("event_id", "not all zeros, which stand for no id")
    return ById(event_id=found)


def _by_place(place: pb.EventPlace) -> ByPlace:
    if not PRODUCER_NAME.fullmatch(place.producer):
        raise invalid("place.producer", "1–64 characters of [A-Za-z0-9._-]")
    if place.sequence < 1:
        raise invalid("place.sequence", "1 or more")
    if place.index < 0:
        raise invalid("place.index", "0 or more")
    return ByPlace(producer=place.producer, sequence=place.sequence, index=place.index)


def to_ms(time: Timestamp, field: str) -> int:
    """Return a time of a request in ms since 1970; raises InvalidArgument."""
    if not 0 <= time.seconds < _CALENDAR_SECONDS:
        raise invalid(field, "between 1970 and 9999")
    return time.seconds * 1000 + time.nanos // 1_000_000


def _is_same(correction: Correction, wanted: NewCorrection) -> bool:
    """Tell whether it is the same decision, made again by the same key."""
    return (correction.after, correction.reason, correction.key_id) == (
        wanted.after,
        wanted.reason,
        wanted.key_id,
    )


def _void_already(last: Correction) -> Refused:
    return Refused(
        Reason.CORRECTION_REFUSED,
        f"The event is void since {to_iso(last.correct_ms)}, by correction {last.correction_id}."
        " To count it after all, record it anew with another event id.",
    )


def _unfit(outcome: Outcome) -> InvalidArgument | Refused:
    if outcome in _OF_THE_INSTALLATION:
        return Refused(
            Reason.CORRECTION_REFUSED,
            f"The replacement would be set aside: {outcome.name}.",
            outcome=outcome.name,
        )
    return InvalidArgument(
        Reason.ARGUMENT_INVALID,
        f"The replacement would be set aside: {outcome.name}.",
        field="replacement",
        rule="an event that can be counted",
        outcome=outcome.name,
    )


def _to_pb(correction: Correction) -> pb.Correction:
    reported = correction.reported
    message = pb.Correction(
        correction_id=correction.correction_id,
        before=_event_to_pb(correction.before),
        after=None if correction.after is None else _event_to_pb(correction.after),
        place=pb.EventPlace(
            producer=reported.producer, sequence=reported.sequence, index=reported.index
        ),
        key_id=correction.key_id,
        reason=correction.reason,
    )
    message.correct_time.FromMilliseconds(correction.correct_ms)
    return message


def _event_to_pb(event: CorrectableEvent) -> usage_pb2.UsageEvent:
    return to_event(to_batch([event], table=DimensionTable()), 0)
