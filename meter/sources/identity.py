"""By what observed requests and their reports are known: digests of 16 bytes; pure."""

import hashlib
from typing import Final

_BYTES: Final = 16


def request_event_id(request_id: str, *, attempt: int) -> bytes:
    """Return the event id that a request has in the journal, whoever reports it."""
    named = f"request\0{attempt}\0{request_id}".encode(errors="replace")
    return hashlib.blake2b(named, digest_size=_BYTES).digest()


def report_key(source: int, *, report_id: bytes) -> bytes:
    """Return the key of one report among those of all sources."""
    return hashlib.blake2b(b"%d\0" % source + report_id, digest_size=_BYTES).digest()


def event_key(account_id: str, *, event_id: bytes) -> bytes:
    """Return the key that is claimed for an event: ids are one name space for all keys of an owner.

    `account_id` is that of the API key's owner, "" for the installation.
    """
    named = account_id.encode() + b"\0" + event_id
    return hashlib.blake2b(named, digest_size=_BYTES).digest()
