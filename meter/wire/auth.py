"""Who calls, and whether they may: identity comes from the API key, never from what is sent."""

from collections.abc import Iterable
from typing import Any, Final

import grpc

from meter.call_context import note_account, note_key
from meter.domain.clock import Clock
from meter.domain.credential import Credential, Role, hash_api_key, parse_api_key
from meter.domain.errors import PermissionDenied, Reason, Unauthenticated
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


def require(
    credential: Credential,
    role: Role,
    account_id: str | None,
    registry: Registry,
    now_ms: int,
) -> None:
    """Refuse a call that no scope covers; an account of None is the whole installation.

    Whether an account exists makes no difference to whoever may not ask for it. Raises
    PermissionDenied (SCOPE_MISSING).
    """
    note_account(account_id)
    tree = registry.snapshot.tree
    if not credential.may(role, account_id, tree=tree, at_ms=now_ms):
        raise scope_missing(role, on_installation=account_id is None)


class RegistryDoor:
    """`authenticate` and `require` with the registry at hand, for services beside the meter's."""

    def __init__(self, registry: Registry, *, clock: Clock, key_pepper: bytes) -> None:
        """Take what calls are checked against."""
        self._registry = registry
        self._clock = clock
        self._key_pepper = key_pepper

    def caller(self, context: "grpc.aio.ServicerContext[Any, Any]") -> Credential:
        """Return what the call's API key stands for; raises Unauthenticated."""
        metadata = context.invocation_metadata()
        return authenticate(metadata, self._registry, self._key_pepper, self._clock.now_ms())

    def require(self, credential: Credential, role: Role, account_id: str | None) -> None:
        """Refuse what no scope covers; raises PermissionDenied (SCOPE_MISSING)."""
        require(credential, role, account_id, self._registry, self._clock.now_ms())


def scope_missing(role: Role, *, on_installation: bool) -> PermissionDenied:
    """Return the error for a call that lacks this role."""
    place = "the whole installation" if on_installation else "this account"
    name = role.name.lower()
    return PermissionDenied(
        Reason.SCOPE_MISSING, f"This call needs the role {name} on {place}.", role=name
    )


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
