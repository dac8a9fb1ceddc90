"""Names in clients' certificates, and the API keys that are bound to them.

Such a key has no secret: the handshake has shown that its caller holds the certificate. It is kept
under a hash of the name, which no secret can have.
"""

import hashlib
import hmac
import re
from typing import Final

from meter.domain.account import invalid_argument
from meter.domain.credential import MintedKey, RandomBytes, draw_key_id

# What SPIFFE allows of an id.
_CHARS_MAX: Final = 2_048
_DNS_CHARS_MAX: Final = 253
_LABEL: Final = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_DNS_NAME: Final = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_URI: Final = re.compile(r"[a-z][a-z0-9+.-]*://[!-~]+")


def check_certificate_name(name: str) -> None:
    """Refuse what no certificate has as a name, or what stands for many; raises InvalidArgument."""
    is_uri = _URI.fullmatch(name) is not None and len(name) <= _CHARS_MAX
    is_dns = _DNS_NAME.fullmatch(name) is not None and len(name) <= _DNS_CHARS_MAX
    if not is_uri and not is_dns:
        raise invalid_argument(
            "certificate_name",
            "a URI like spiffe://factory/ns/gateway, or a DNS name in small letters",
        )


def hash_certificate_name(name: str, *, pepper: bytes) -> bytes:
    """Return what a key that is bound to this name is found by: HMAC-SHA256 under the pepper."""
    # No API key's text begins so.
    return hmac.digest(pepper, b"certificate:" + name.encode(), hashlib.sha256)


def bind_key(random_bytes: RandomBytes, *, name: str, pepper: bytes) -> MintedKey:
    """Draw an API key without a text, which is bound to this name; raises InvalidArgument."""
    check_certificate_name(name)
    return MintedKey(
        key_id=draw_key_id(random_bytes),
        text="",
        secret_hash=hash_certificate_name(name, pepper=pepper),
    )


def unbound_hash(key_id: str) -> bytes:
    """Return what an ended key is kept under once another is bound to its name."""
    return hashlib.sha256(b"unbound:" + key_id.encode("ascii")).digest()
