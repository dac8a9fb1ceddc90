"""Whom a request is counted for, by its headers. Pure."""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

Headers: TypeAlias = Iterable[tuple[bytes, bytes]]
"""Names in small letters, and values, as ASGI has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Whom the requests of a caller's key are counted for; an empty tier is the default one."""

    account: str
    tier: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributed:
    """What the headers of a request say; None where they say nothing, and a default holds."""

    account: str | None
    tier: str | None
    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """Where a request's account, tier and id are found.

    Without `callers` they stand in headers that a gateway sets. With `callers`, by the SHA-256 of
    a key in hexadecimal, nobody stands before this server: the account is the key's, no header is
    believed, and an unknown key's requests wait in the meter's quarantine.
    """

    account_header: str = "x-tokenworks-account"
    tier_header: str = "x-tokenworks-tier"
    callers: Mapping[str, Caller] | None = None
    _names: Mapping[bytes, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raises ValueError where the keys of `callers` are no digests."""
        for digest in self.callers or ():
            if not _DIGEST.fullmatch(digest):
                raise ValueError("callers: each key is a SHA-256 in 64 hexadecimal digits")
        names = {
            self.account_header.lower().encode("ascii"): "account",
            self.tier_header.lower().encode("ascii"): "tier",
            REQUEST_ID: "request_id",
            b"authorization": "key",
            b"x-api-key": "key",
        }
        object.__setattr__(self, "_names", names)

    def attribute(self, headers: Headers, *, new_id: Callable[[], str]) -> Attributed:
        """Tell whom a request is for; it gets a new id where none may be believed."""
        said: dict[str, bytes] = {}
        for name, value in headers:
            wanted = self._names.get(name)
            if wanted is not None:
                said.setdefault(wanted, value)
        if self.callers is not None:
            caller = self._caller(said.get("key", b""))
            return Attributed(account=caller.account, tier=caller.tier or None, request_id=new_id())
        return Attributed(
            account=_text(said.get("account")),
            tier=_text(said.get("tier")),
            request_id=_text(said.get("request_id")) or new_id(),
        )

    def _caller(self, value: bytes) -> Caller:
        scheme, _, rest = value.partition(b" ")
        key = rest.strip() if scheme.lower() == b"bearer" else value
        assert self.callers is not None
        digest = hashlib.sha256(key).hexdigest()
        caller = self.callers.get(digest)
        # Such events wait in quarantine, under a name by which the key can be found.
        return Caller(account=f"unknown-key-{digest[:16]}") if caller is None else caller


REQUEST_ID: Final = b"x-request-id"
"""The header by which a gateway and an engine tell of the same request."""


_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


def _text(value: bytes | None) -> str | None:
    return value.decode("latin-1") if value else None
