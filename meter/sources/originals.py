"""Usage objects as they came, packed for a row of the database; pure.

The packed bytes are those of zlib. Inside is a JSON array with `[key, id, object]` for each report
that has an original: the report's key and the event's id are 16 bytes each, in hexadecimal.
"""

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

# Enough to read back what one call may bring, and a bound for what is damaged.
UNPACKED_BYTES_MAX: Final = 64 * 1024 * 1024
_LEVEL: Final = 1
_encode: Final = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode


class Original(NamedTuple):
    """The usage object of one report; `event_id` is the one in the journal."""

    report_key: bytes
    event_id: bytes
    usage: Mapping[str, object]


def pack(originals: Iterable[Original]) -> tuple[bytes, int]:
    """Return the packed bytes and how many originals are in them; none gives no bytes."""
    rows = [
        (each.report_key.hex(), each.event_id.hex(), each.usage) for each in originals if each.usage
    ]
    return (zlib.compress(_encode(rows).encode(), _LEVEL) if rows else b""), len(rows)


def unpack(body: bytes) -> Iterator[Original]:
    """Yield what was packed; raises ValueError for bytes that `pack` has not made."""
    reading = zlib.decompressobj()
    try:
        unpacked = reading.decompress(body, UNPACKED_BYTES_MAX)
    except zlib.error as error:
        raise ValueError("these are no packed originals") from error
    if not reading.eof:
        raise ValueError("these are no whole originals")
    for report_key, event_id, usage in json.loads(unpacked):
        yield Original(bytes.fromhex(report_key), bytes.fromhex(event_id), usage)
