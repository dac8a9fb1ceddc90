"""The certificate that a client has shown in the handshake."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import grpc

from meter.certificates import Shown, read_validity

# Certificates whose dates are remembered; each call asks for them.
_KNOWN_MAX: Final = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The URIs and DNS names of a verified certificate, and its end in seconds since 1970."""

    names: tuple[str, ...]
    expiry_seconds: int


def find_peer(context: "grpc.aio.ServicerContext[Any, Any]") -> Peer | None:
    """Return what the client has shown; None where it has shown nothing.

    It was verified when its session began: without authorities to verify it by, gRPC asks for none
    and tells of none. A session can be resumed for two days, without another look at the dates.
    """
    shown = context.auth_context()
    pem = next(iter(shown.get("x509_pem_cert", ())), None)
    if pem is None:
        return None
    # A name that is no text is none that a key can be bound to.
    uris = [name.decode("ascii", "replace") for name in shown.get("peer_uri", ())]
    hosts = [name.decode("ascii", "replace").lower() for name in shown.get("peer_dns", ())]
    return Peer(names=(*uris, *hosts), expiry_seconds=_expiry_seconds(pem))


def peer_of(shown: Shown | None) -> Peer | None:
    """Return what a client of HTTP has shown; None where it has shown nothing."""
    if shown is None:
        return None
    uris = [name for kind, name in shown.names if kind == "URI"]
    hosts = [name.lower() for kind, name in shown.names if kind == "DNS"]
    return Peer(names=(*uris, *hosts), expiry_seconds=_expiry_seconds(shown.pem))


@lru_cache(maxsize=_KNOWN_MAX)
def _expiry_seconds(pem: bytes) -> int:
    try:
        return read_validity(pem)[1]
    except ValueError:
        # What cannot be read is not believed.
        return 0
