"""The request ids of what the quarantine keeps, read from its bytes alone.

Messages of the wire are walked by field number (proto/tokenworks/meter/v1/usage.proto):
StreamUsageRequest.batch = 2; UsageEvent.request_id = 8; UsageBatch.rows = 2 and .columns = 3;
UsageRows.events = 1; UsageColumns.request_id = 10.
"""

from collections.abc import Iterator
from typing import Final

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_EVENT_REQUEST_ID: Final = 8
_REQUEST_BATCH: Final = 2
_WRAPPED: Final = b"\x12"
_BATCH_ROWS, _BATCH_COLUMNS = 2, 3
_ROWS_EVENTS: Final = 1
_COLUMNS_REQUEST_ID: Final = 10


def request_ids(payload: bytes, *, is_batch: bool) -> list[str]:
    """Return the request ids of a kept event, or of each event of a kept batch.

    Bytes that are no such message have none.
    """
    try:
        found = list(_of_batch(payload) if is_batch else _strings(payload, _EVENT_REQUEST_ID))
        return [text.decode() for text in found]
    except (IndexError, UnicodeDecodeError, ValueError):
        return []


def _of_batch(payload: bytes) -> Iterator[bytes]:
    if payload.startswith(_WRAPPED):
        # The message of a stream around the batch, which itself begins with its number.
        (payload,) = _strings(payload, _REQUEST_BATCH)
    for rows in _strings(payload, _BATCH_ROWS):
        for event in _strings(rows, _ROWS_EVENTS):
            yield from _strings(event, _EVENT_REQUEST_ID)
    for columns in _strings(payload, _BATCH_COLUMNS):
        yield from _strings(columns, _COLUMNS_REQUEST_ID)


def _strings(message: bytes, wanted: int) -> Iterator[bytes]:
    """Yield each value of a length-delimited field."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == _VARINT:
            _, at = _varint(message, at)
        elif kind == _BYTES:
            size, at = _varint(message, at)
            if at + size > len(message):
                raise ValueError("a field is cut off")
            if tag >> 3 == wanted:
                yield message[at : at + size]
            at += size
        elif kind in (_FIXED32, _FIXED64):
            at += 4 if kind == _FIXED32 else 8
        else:
            raise ValueError("no such kind of field")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
