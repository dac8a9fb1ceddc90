"""The door: every call is let in by its row of the access table, or not at all.

The interceptor asks before a servicer hears of a call: without a row, without an API key, or
without one of the row's roles there is no call. A servicer asks for the accounts that its request
turns out to be about, and what it asks for is the row's: no servicer names a role.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

import grpc

from meter.access import Access, Place, Rule
from meter.call_context import note_account
from meter.certificates import KeptCertificates, Shown
from meter.domain.clock import Clock
from meter.domain.credential import Credential, RegistrySnapshot
from meter.domain.errors import PermissionDenied, Reason, Unauthenticated
from meter.registry import Registry
from meter.wire.auth import (
    AUTHORIZATION,
    KeyHashes,
    authenticate,
    authenticate_certificate,
    has_api_key,
)
from meter.wire.handlers import wrap_handler
from meter.wire.peer import Peer, find_peer, peer_of

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


@dataclass(slots=True)
class _Call:
    """A call that was let in; `is_admitted` once its accounts were asked for.

    `snapshot` is what its key was last looked up in, None where it was not looked up again.
    """

    rule: Rule
    credential: Credential
    is_admitted: bool
    snapshot: RegistrySnapshot | None = None


# Each call has a task of its own, and what it starts has a copy of its context.
_CALL: Final[ContextVar[_Call]] = ContextVar("call at the door")
# The rule of a call that has no row.
_NOBODY: Final = Rule(roles=(), place=Place.INSTALLATION)


class RegistryDoor:
    """Judges the call at hand by the accounts and keys as this process knows them."""

    def __init__(
        self,
        registry: Registry,
        *,
        clock: Clock,
        key_pepper: bytes,
        certificates: KeptCertificates | None = None,
    ) -> None:
        """Take what calls are checked against; the certificates, where clients have to show one."""
        asks = certificates is not None and certificates.files.client_ca is not None
        self._certificates = certificates if asks else None
        self._registry = registry
        self._clock = clock
        self._key_pepper = key_pepper
        self._hashes = KeyHashes(key_pepper)

    def caller(self) -> Credential:
        """Return what the API key of the call at hand stands for."""
        return _CALL.get().credential

    def again(self, context: _Context) -> Credential:
        """Return who calls, looked up anew: of an open stream, whose key may have ended since.

        Raises Unauthenticated, PermissionDenied.
        """
        call = _CALL.get()
        snapshot = self._registry.snapshot
        # A stream asks at each message. Of one registry the answer is the same until the key ends;
        # certificates expire beside it.
        is_same = call.snapshot is snapshot and self._certificates is None
        if not is_same or call.credential.is_ended_at(self._clock.now_ms()):
            call.credential = self._look_up(context, call.rule)
            call.snapshot = snapshot
        return call.credential

    def admit(self, account_id: str | None) -> Credential:
        """Refuse the call when no scope covers the account; None: the whole installation.

        Whether an account exists makes no difference to whoever may not ask for it. Raises
        PermissionDenied (SCOPE_MISSING).
        """
        return self.admit_to_all([account_id])

    def admit_to_all(self, account_ids: Iterable[str | None]) -> Credential:
        """Do as `admit` for each of these accounts, in their order."""
        call = _CALL.get()
        for account_id in account_ids:
            note_account(account_id)
            self._require(call.credential, call.rule, account_id)
            call.is_admitted = True
        return call.credential

    def covers(self, account_id: str | None) -> bool:
        """Tell whether the call may be about the account, without refusing it."""
        call = _CALL.get()
        return self._is_covered(call.credential, call.rule, account_id)

    def roots(self) -> list[str | None]:
        """Return the tops of what the call may be about; None is the whole installation."""
        call = _CALL.get()
        return list({top for role in call.rule.roles for top in call.credential.roots(role)})

    def identify(self, context: _Context) -> str:
        """Return the number of the API key that calls; raises Unauthenticated, Unavailable."""
        return self._authenticate(context).key_id

    def identify_http(self, authorization: str | None, shown: Shown | None) -> str:
        """Return the number of the API key of a request by HTTP; raises Unauthenticated."""
        return self._authenticate_http(authorization, shown).key_id

    def let_in_http(
        self, authorization: str | None, shown: Shown | None, *, rule: Rule
    ) -> Credential:
        """Return who calls by HTTP with this `Authorization` and certificate, or refuse it.

        Raises Unauthenticated, PermissionDenied (SCOPE_MISSING).
        """
        return self._require_rule(self._authenticate_http(authorization, shown), rule)

    def let_in(self, context: _Context, rule: Rule, request: object) -> None:
        """Begin a call, or refuse it as far as the request's accounts play no part.

        `request` is None for a stream. Raises Unauthenticated, PermissionDenied (SCOPE_MISSING).
        """
        credential = self._look_up(context, rule)
        for name, role in rule.also.items():
            if getattr(request, name):
                more = Rule(roles=(role,), place=rule.place)
                self._require(credential, more, None)
        _CALL.set(_Call(rule, credential, is_admitted=rule.place is not Place.ACCOUNT))

    def _look_up(self, context: _Context, rule: Rule) -> Credential:
        return self._require_rule(self._authenticate(context), rule)

    def _require_rule(self, credential: Credential, rule: Rule) -> Credential:
        if rule.place is Place.INSTALLATION:
            self._require(credential, rule, None)
        elif not any(credential.roots(role) for role in rule.roles):
            raise _scope_missing(rule, on_installation=False)
        return credential

    def _authenticate_http(self, authorization: str | None, shown: Shown | None) -> Credential:
        metadata = () if authorization is None else ((AUTHORIZATION, authorization),)
        if self._certificates is not None and shown is None:
            # gRPC ends the handshake of who shows none. HTTP has pages for everybody.
            raise Unauthenticated(
                Reason.CERTIFICATE_UNKNOWN, "Reports are taken from clients with a certificate."
            )
        return self._authenticate_with(metadata, peer_of(shown))

    def _authenticate(self, context: _Context) -> Credential:
        peer = None if self._certificates is None else find_peer(context)
        return self._authenticate_with(context.invocation_metadata(), peer)

    def _authenticate_with(
        self, metadata: Iterable[tuple[str, str | bytes]] | None, peer: Peer | None
    ) -> Credential:
        now_ms = self._clock.now_ms()
        if peer is not None and self._certificates is not None:
            if peer.expiry_seconds <= self._certificates.now_seconds():
                raise Unauthenticated(
                    Reason.CERTIFICATE_EXPIRED, "The certificate that was shown has expired."
                )
            if not has_api_key(metadata):
                return authenticate_certificate(
                    peer.names, self._registry, self._key_pepper, now_ms
                )
        return authenticate(metadata, self._registry, self._hashes, now_ms)

    def _require(self, credential: Credential, rule: Rule, account_id: str | None) -> None:
        if not self._is_covered(credential, rule, account_id):
            raise _scope_missing(rule, on_installation=account_id is None)

    def _is_covered(self, credential: Credential, rule: Rule, account_id: str | None) -> bool:
        tree, now_ms = self._registry.snapshot.tree, self._clock.now_ms()
        return any(credential.may(role, account_id, tree=tree, at_ms=now_ms) for role in rule.roles)


class DoorInterceptor(grpc.aio.ServerInterceptor):
    """Lets calls in by their rows; inside the interceptor that turns errors into status."""

    def __init__(self, door: RegistryDoor, *, access: Access) -> None:
        """Take the door and the whole table: the meter's, and that of each service beside it."""
        self._door = door
        self._access = access

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:  # noqa: ANN401
        """Return the handler behind the door."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        rule = self._access.get(str(handler_call_details.method).removeprefix("/"), _NOBODY)
        if rule.place is Place.ANYBODY:
            return handler
        return wrap_handler(
            handler,
            unary=partial(self._unary, rule),
            listing=partial(self._listing, rule),
            streaming=partial(self._streaming, rule),
        )

    def _unary(self, rule: Rule, call: Callable[[Any, Any], Awaitable[Any]]) -> Any:  # noqa: ANN401
        async def wrapped(request: Any, context: _Context) -> Any:  # noqa: ANN401
            self._door.let_in(context, rule, request)
            answer = await call(request, context)
            assert _CALL.get().is_admitted, "who answers about accounts asks the door for them"
            return answer

        return wrapped

    def _listing(self, rule: Rule, call: Callable[[Any, Any], AsyncIterator[Any]]) -> Any:  # noqa: ANN401
        async def wrapped(request: Any, context: _Context) -> AsyncIterator[Any]:  # noqa: ANN401
            self._door.let_in(context, rule, request)
            async for answer in call(request, context):
                assert _CALL.get().is_admitted, "who lists of accounts asks the door for them"
                yield answer

        return wrapped

    def _streaming(self, rule: Rule, call: Callable[[Any, Any], Awaitable[None]]) -> Any:  # noqa: ANN401
        async def wrapped(requests: AsyncIterator[Any], context: _Context) -> None:
            self._door.let_in(context, rule, None)
            await call(requests, context)

        return wrapped


def _scope_missing(rule: Rule, *, on_installation: bool) -> PermissionDenied:
    if not rule.roles:
        return PermissionDenied(Reason.SCOPE_MISSING, "Nobody may make this call.")
    place = "the whole installation" if on_installation else "this account"
    names = " or ".join(role.word for role in rule.roles)
    return PermissionDenied(
        Reason.SCOPE_MISSING, f"This call needs the role {names} on {place}.", role=names
    )
