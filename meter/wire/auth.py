"""Who calls: identity comes from the API key, never from what is sent."""

from collections.abc import Iterable
from typing import Final

from meter.call_context import note_key
from meter.domain.credential import Credential, hash_api_key, parse_api_key
from meter.domain.errors import Reason, Unauthenticated
from meter.registry import Registry

AUTHORIZATION: Final = "authorization"
_SCHEME: Final = "bearer"


def authenticate(
    metadata: Iterable[tuple[str, str | bytes]] | None,
    registry: Registry,
    pepper: bytes,
    now_ms: int,
) -> Credential:
    """Return what the API key in `authorization: Bearer <API key>` stands for.

    Raises Unauthenticated: API_KEY_MISSING, _MALFORMED, _UNKNOWN or _REVOKED.
    """
    text = parse_api_key(_bearer(metadata or ()))
    credential = registry.snapshot.credentials.get(hash_api_key(text, pepper=pepper))
    if credential is None:
        raise Unauthenticated(Reason.API_KEY_UNKNOWN, "No such API key is known here.")
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
