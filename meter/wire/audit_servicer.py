"""AuditService: who changed what."""

import asyncio
import re
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from meter.audit_log import AuditEntry, AuditQuery, AuditReader
from meter.journal.check import is_text
from meter.wire.status import invalid
from tokenworks.meter.v1 import audit_service_pb2 as pb
from tokenworks.meter.v1 import audit_service_pb2_grpc as pb_grpc

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_PAGE: Final = 100
_PAGE_MAX: Final = 1000
_TEXT_CHARS_MAX: Final = 256
_TOKEN: Final = re.compile("[0-9]{1,18}")
# The last second that a timestamp may name: the year 9999 ends.
_SECONDS_MAX: Final = 253_402_300_799


class AuditServicer(pb_grpc.AuditServiceServicer):
    """Answers AuditService; the store blocks and so runs in a thread."""

    def __init__(self, log: AuditReader) -> None:
        """Take where entries are read."""
        self._log = log

    async def ListAuditEntries(
        self, request: pb.ListAuditEntriesRequest, _context: _Context
    ) -> pb.ListAuditEntriesResponse:
        """Return entries, newest first."""
        size = request.page_size or _PAGE
        found = await asyncio.to_thread(self._log.entries, _to_query(request, limit=size + 1))
        more = str(found[size - 1].entry_id) if len(found) > size else ""
        return pb.ListAuditEntriesResponse(entries=map(_to_pb, found[:size]), next_page_token=more)


def _to_query(request: pb.ListAuditEntriesRequest, *, limit: int) -> AuditQuery:
    for field in ("action", "subject", "key_id"):
        if not is_text(getattr(request, field), _TEXT_CHARS_MAX):
            raise invalid(field, f"at most {_TEXT_CHARS_MAX} printable characters")
    if not 0 <= request.page_size <= _PAGE_MAX:
        raise invalid("page_size", f"0–{_PAGE_MAX}")
    if request.page_token and not _TOKEN.fullmatch(request.page_token):
        raise invalid("page_token", "a token from the last answer")
    return AuditQuery(
        start_ms=_instant(request.start_time, "start_time")
        if request.HasField("start_time")
        else None,
        end_ms=_instant(request.end_time, "end_time") if request.HasField("end_time") else None,
        action=request.action,
        subject=request.subject,
        key_id=request.key_id,
        before_id=int(request.page_token) if request.page_token else None,
        limit=limit,
    )


def _instant(time: Timestamp, field: str) -> int:
    if not 0 <= time.seconds <= _SECONDS_MAX:
        raise invalid(field, "an instant in the years 1970 to 9999")
    return time.seconds * 1000 + time.nanos // 1_000_000


def _to_pb(entry: AuditEntry) -> pb.AuditEntry:
    change = entry.change
    message = pb.AuditEntry(
        entry_id=entry.entry_id,
        key_id=change.key_id,
        action=change.action,
        subject=change.subject,
    )
    message.time.FromMilliseconds(change.at_ms)
    json_format.ParseDict(dict(change.detail), message.detail)
    return message
