"""By what observed requests and their reports are known: 16 bytes each; pure.

The key of a report begins with who made it, then names the call that it is of, then itself. So it
can be seen from two keys whether a source reports one call of a request twice or two calls of it.
"""

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from meter.sources.observation import Source

_BYTES: Final = 16
# What all keys of reports begin with: they lie among ids that others have chosen.
_MARK: Final = b"\xee"
_OBSERVER_BYTES: Final = 4
_CALL_BYTES: Final = 6
_CALL_END: Final = _OBSERVER_BYTES + _CALL_BYTES
_REST_BYTES: Final = _BYTES - _OBSERVER_BYTES
_CALL_MASK: Final = 2 ** (8 * _CALL_BYTES) - 1
# Several of these see one request, each in its own place: software that is read by tables of its
# own. Of all others, whatever they are read by is one: both logs of an Envoy name a report alike.
_SEVERAL: Final = frozenset({Source.LITELLM, Source.SPAN})
# What an id that was made distinct has more than the one that came.
DISTINCT_CHARS: Final = 1 + 2 * _CALL_BYTES


def request_event_id(request_id: str, *, attempt: int) -> bytes:
    """Return the event id that a request has in the journal, whoever reports it."""
    named = f"request\0{attempt}\0{request_id}".encode(errors="replace")
    return hashlib.blake2b(named, digest_size=_BYTES).digest()


@lru_cache(maxsize=1_024)
def observer_of(source: Source, *, profile: str, turn: int = 0) -> bytes:
    """Return the beginning of the keys of all that one source says of a turn of a request.

    `profile` is the table, with its version, by which the source is read.
    """
    table = profile.partition("/")[0] if source in _SEVERAL else ""
    named = f"{source:d}\0{table}\0{turn}".encode()
    return _MARK + hashlib.blake2b(named, digest_size=_OBSERVER_BYTES - 1).digest()


def report_key(observer: bytes, *, report_id: bytes) -> bytes:
    """Return the key of a report that is one of a kind: no other one is of the same call."""
    return observer + hashlib.blake2b(report_id, digest_size=_REST_BYTES).digest()


def choice_key(observer: bytes, *, report_id: bytes, arrival_ns: int) -> bytes:
    """Return the key of a report of one of several answers, which came to the engine together."""
    rest = hashlib.blake2b(report_id, digest_size=_REST_BYTES - _CALL_BYTES).digest()
    return observer + (arrival_ns & _CALL_MASK).to_bytes(_CALL_BYTES) + rest


def is_report_key(key: bytes) -> bool:
    """Tell whether 16 bytes may be a report's key; one of 256 other ids looks like one."""
    return key.startswith(_MARK)


def is_same_observer(key: bytes, other: bytes) -> bool:
    """Tell whether two reports of a request are of one source, and of one turn."""
    return key[:_OBSERVER_BYTES] == other[:_OBSERVER_BYTES]


def call_of(key: bytes) -> bytes:
    """Return which of a source's calls of a request a report is of, as 16 bytes."""
    return key[_OBSERVER_BYTES:_CALL_END].rjust(_BYTES, b"\0")


def call_key(event: bytes, *, report: bytes) -> bytes:
    """Return the key by which the source of a report claims a request, once for all of a call."""
    named = b"call\0" + event + report[:_OBSERVER_BYTES]
    return hashlib.blake2b(named, digest_size=_BYTES).digest()


def reused_key(event: bytes, *, report: bytes) -> bytes:
    """Return the key that is claimed for a report of a further call, which is kept once."""
    return hashlib.blake2b(b"reused\0" + event + report, digest_size=_BYTES).digest()


def distinct_id(request_id: str, *, report: bytes, chars_max: int) -> str:
    """Return the id under which a further call of a request is released: its own, by its key."""
    call = report[_OBSERVER_BYTES:_CALL_END].hex()
    return f"{request_id[: chars_max - DISTINCT_CHARS]}~{call}"


def event_key(account_id: str, *, event_id: bytes) -> bytes:
    """Return the key that is claimed for an event: ids are one name space for all keys of an owner.

    `account_id` is that of the API key's owner, "" for the installation.
    """
    return event_keys(account_id, event_ids=[event_id])[0]


def event_keys(account_id: str, *, event_ids: Iterable[bytes]) -> list[bytes]:
    """Return `event_key` of each."""
    owner = account_id.encode() + b"\0"
    return [hashlib.blake2b(owner + it, digest_size=_BYTES).digest() for it in event_ids]
