"""Usage objects as they came, packed for a row of the database; pure.

First comes the number of reports, as 4 bytes; then the key of each report and the id of each event,
16 bytes each, which nothing makes smaller; then, packed by zlib, the objects. Those are JSON: for
each set of names the names and a column of values for each, since one source has always the same
names. Reports lie in the order of their sets.
"""

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

# Enough to read back what one call may bring, and a bound for what is damaged.
UNPACKED_BYTES_MAX: Final = 64 * 1024 * 1024
_LEVEL: Final = 1
_COUNT_BYTES: Final = 4
_ID_BYTES: Final = 16
_encode: Final = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode


class Original(NamedTuple):
    """The usage object of one report; `event_id` is the one in the journal."""

    report_key: bytes
    event_id: bytes
    usage: Mapping[str, object]


def pack(originals: Iterable[Original]) -> tuple[bytes, int]:
    """Return the packed bytes and how many originals are in them; none gives no bytes."""
    sets: dict[tuple[str, ...], list[Original]] = {}
    for each in originals:
        if each.usage:
            names = tuple(each.usage)
            known = sets.get(names)
            if known is None:
                known = sets[names] = []
            known.append(each)
    if not sets:
        return b"", 0
    columns = [
        (names, list(zip(*[each.usage.values() for each in some], strict=True)))
        for names, some in sets.items()
    ]
    ids = [part for some in sets.values() for each in some for part in each[:2]]
    count = len(ids) // 2
    packed = zlib.compress(_encode(columns).encode(), _LEVEL)
    return b"".join([count.to_bytes(_COUNT_BYTES), *ids, packed]), count


def unpack(body: bytes) -> Iterator[Original]:
    """Yield what was packed; raises ValueError for bytes that `pack` has not made."""
    count = int.from_bytes(body[:_COUNT_BYTES])
    end = _COUNT_BYTES + 2 * _ID_BYTES * count
    reading = zlib.decompressobj()
    try:
        unpacked = reading.decompress(body[end:], UNPACKED_BYTES_MAX)
    except zlib.error as error:
        raise ValueError("these are no packed originals") from error
    if not reading.eof:
        raise ValueError("these are no whole originals")
    usages = [
        dict(zip(names, values, strict=True))
        for names, columns in json.loads(unpacked)
        for values in zip(*columns, strict=True)
    ]
    ids = [body[at : at + _ID_BYTES] for at in range(_COUNT_BYTES, end, _ID_BYTES)]
    for report_key, event_id, usage in zip(ids[::2], ids[1::2], usages, strict=True):
        yield Original(report_key, event_id, usage)
