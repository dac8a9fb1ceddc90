"""Names of events, and the 16 bytes that stand for each."""

import hashlib
import re
import string
from typing import Final

import numpy as np

from meter.domain import limits
from meter.domain.event import Uint8Array
from meter.wire.texts import Texts

_UUID_HEX: Final = re.compile("[0-9a-fA-F]{32}")
_UUID_CHARS: Final = 36
_UUID_HYPHENS: Final = [8, 13, 18, 23]
_UUID_DIGITS: Final = [it for it in range(_UUID_CHARS) if it not in _UUID_HYPHENS]
_UUID_DIGIT_COUNT: Final = len(_UUID_DIGITS)
_NO_DIGIT: Final = 16
# By a character's code, which digit it is.
_DIGITS: Final = np.array(
    [int(chr(it), 16) if chr(it) in string.hexdigits else _NO_DIGIT for it in range(256)], np.uint8
)


def id_bytes(event_id: str) -> bytes:
    """Return the 16 bytes that stand for an event id: a UUID's own, a digest of other text."""
    if not event_id:
        return bytes(limits.EVENT_ID_BYTES)
    plain = event_id.replace("-", "")
    if _UUID_HEX.fullmatch(plain):
        return bytes.fromhex(plain)
    return hashlib.blake2b(
        event_id.encode(errors="replace"), digest_size=limits.EVENT_ID_BYTES
    ).digest()


def is_id(event_id: str) -> bool:
    """Tell whether an event may have this name, or none."""
    return len(event_id) <= limits.EVENT_ID_CHARS_MAX and (not event_id or event_id.isprintable())


def uuids_of(ids: Texts) -> Uint8Array | None:
    """Return the bytes of UUIDs that are all written as usual or all as plain digits, else None."""
    text = ids.of_size(_UUID_DIGIT_COUNT)
    if text is None:
        text = ids.of_size(_UUID_CHARS)
        if text is None or (text[:, _UUID_HYPHENS] != ord("-")).any():
            return None
        text = text[:, _UUID_DIGITS]
    digits = _DIGITS[text]
    if (digits == _NO_DIGIT).any():
        return None
    return (digits[:, 0::2] << 4 | digits[:, 1::2]).astype(np.uint8)
