"""Who calls: identity comes from the API key or the certificate, never from what is sent."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

from meter.call_context import note_key
from meter.domain.certificate_name import hash_certificate_name
from meter.domain.credential import Credential, hash_api_key, parse_api_key
from meter.domain.errors import Reason, Unauthenticated
from meter.domain.limits import KEYS_BOUNDED_MAX
from meter.registry import Registry

AUTHORIZATION: Final = "authorization"
_SCHEME: Final = "bearer"
# What an answer tells of the names of a certificate that is not known.
_NAMES_CHARS_MAX: Final = 500


class KeyHashes:
    """The hashes of API keys that came of late: each is made once, and not for each call.

    They are known by a digest, which says nothing of a text of 160 random bits; the texts are kept
    nowhere.
    """

    def __init__(self, pepper: bytes) -> None:
        """Take what keys the hash."""
        self._pepper = pepper
        self._known: dict[bytes, bytes] = {}

    def of(self, text: str) -> bytes:
        """Return the hash of an API key; raises Unauthenticated (API_KEY_MALFORMED)."""
        digest = hashlib.blake2b(text.encode(errors="replace")).digest()
        known = self._known.get(digest)
        if known is None:
            known = hash_api_key(parse_api_key(text), pepper=self._pepper)
            if len(self._known) >= KEYS_BOUNDED_MAX:
                self._known.clear()
            self._known[digest] = known
        return known


def authenticate(
    metadata: Iterable[tuple[str, str | bytes]] | None,
    registry: Registry,
    hashes: KeyHashes,
    now_ms: int,
) -> Credential:
    """Return what the API key in `authorization: Bearer <API key>` stands for.

    Raises Unauthenticated: API_KEY_MISSING, _MALFORMED, _UNKNOWN or _REVOKED.
    """
    hashed = hashes.of(_bearer(metadata or ()))
    credential = registry.snapshot.credentials.get(hashed)
    if credential is None:
        raise Unauthenticated(Reason.API_KEY_UNKNOWN, "No such API key is known here.")
    return _live(credential, now_ms=now_ms)


def authenticate_certificate(
    names: Sequence[str], registry: Registry, pepper: bytes, now_ms: int
) -> Credential:
    """Return the API key that is bound to one of the names of a verified certificate.

    One that has ended counts as bound: what was revoked is not replaced by what is left. Raises
    Unauthenticated: CERTIFICATE_UNKNOWN, CERTIFICATE_AMBIGUOUS or API_KEY_REVOKED.
    """
    credentials = registry.snapshot.credentials
    hashes = {hash_certificate_name(name, pepper=pepper) for name in names}
    bound = [credentials[each] for each in hashes if each in credentials]
    if not bound:
        raise Unauthenticated(
            Reason.CERTIFICATE_UNKNOWN,
            "No API key is bound to a name of this certificate, and none was sent.",
            names=" ".join(names)[:_NAMES_CHARS_MAX],
        )
    if len(bound) > 1:
        raise Unauthenticated(
            Reason.CERTIFICATE_AMBIGUOUS,
            "Several API keys are bound to names of this certificate; send the one that is meant.",
            key_ids=" ".join(sorted(each.key_id for each in bound)),
        )
    return _live(bound[0], now_ms=now_ms)


def has_api_key(metadata: Iterable[tuple[str, str | bytes]] | None) -> bool:
    """Tell whether a call names an API key, which then counts and not its certificate."""
    return any(key == AUTHORIZATION for key, _ in metadata or ())


def _live(credential: Credential, *, now_ms: int) -> Credential:
    note_key(credential.key_id)
    if credential.is_ended_at(now_ms):
        raise Unauthenticated(
            Reason.API_KEY_REVOKED,
            "This API key was revoked, or was rotated and its grace is over.",
            key_id=credential.key_id,
        )
    return credential


def _bearer(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    values = [value for key, value in metadata if key == AUTHORIZATION]
    if not values:
        raise Unauthenticated(
            Reason.API_KEY_MISSING, "Send the API key as metadata: authorization: Bearer <API key>"
        )
    scheme, _, text = str(values[0]).partition(" ")
    if len(values) > 1 or scheme.lower() != _SCHEME:
        raise Unauthenticated(
            Reason.API_KEY_MALFORMED, "Write the metadata as authorization: Bearer <API key>"
        )
    return text.strip()
