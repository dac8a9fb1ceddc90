"""API keys: their text, what they may do, how they are rotated.

An API key reads `tw_`, 32 characters that carry 160 random bits, and 6 characters of checksum, so
that a typing error is told from an unknown key. Only the keyed hash of the text is kept.
"""

import hashlib
import hmac
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from meter.domain.account import AccountTree, invalid_argument
from meter.domain.errors import Reason, Refused, Unauthenticated
from meter.domain.limits import DESCRIPTION_CHARS_MAX

PREFIX_CHARS: Final = 10
# A key serves one gateway or one server: more scopes than this belong to several keys.
SCOPES_MAX: Final = 20
# Long enough to reach every producer of a large fleet, short enough to end.
GRACE_SECONDS_MAX: Final = 30 * 24 * 3600

# Crockford's digits: none is mistaken for another.
_DIGITS: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_RANDOM_CHARS: Final = 32
_CHECKSUM_CHARS: Final = 6
_BITS_PER_CHAR: Final = 5
_RANDOM_BYTES: Final = _RANDOM_CHARS * _BITS_PER_CHAR // 8
_ID_CHARS: Final = 16
_ID_BYTES: Final = _ID_CHARS * _BITS_PER_CHAR // 8
_API_KEY = re.compile(rf"tw_[{_DIGITS}]{{{_RANDOM_CHARS + _CHECKSUM_CHARS}}}")
_KEY_ID = re.compile(rf"key_[{_DIGITS}]{{{_ID_CHARS}}}")

RandomBytes = Callable[[int], bytes]


class Role(IntEnum):
    """What an API key is let do; numbered as on the wire. None of them implies another.

    Which calls each of them makes is written in `meter.access` and `billing.access`.
    """

    PRODUCER = 1
    READER = 2
    ADMIN = 3
    BILLER = 4
    PRICE_EDITOR = 5
    OPERATOR = 6

    @property
    def word(self) -> str:
        """Its name for readers and on command lines."""
        return self.name.lower().replace("_", "-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """A role on the subtree of an account; None is the whole installation."""

    role: Role
    account_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What an API key stands for; `end_ms` (ms since 1970, UTC) is None for no end.

    `account_id` is its owner, None for the installation.
    """

    key_id: str
    account_id: str | None
    scopes: tuple[Scope, ...]
    end_ms: int | None

    def may(self, role: Role, account_id: str | None, *, tree: AccountTree, at_ms: int) -> bool:
        """Tell whether a scope covers the account at that time; None: the whole installation.

        An account that does not exist is covered by the whole installation alone.
        """
        for scope in self.scopes:
            if scope.role != role:
                continue
            if scope.account_id is None:
                return True
            if account_id and tree.is_within(account_id, scope.account_id, at_ms=at_ms):
                return True
        return False

    def roots(self, role: Role) -> list[str | None]:
        """Return the tops of the subtrees that it has this role on."""
        return [scope.account_id for scope in self.scopes if scope.role == role]

    def is_ended_at(self, at_ms: int) -> bool:
        """Tell whether it was revoked, or its grace over, at that time."""
        return self.end_ms is not None and self.end_ms <= at_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """An API key without its secret; `create_ms` is since 1970, UTC.

    `rotated_from` is the id of the key that it succeeds, or None. With a `certificate_name` it has
    no secret, and its prefix is empty.
    """

    credential: Credential
    prefix: str
    create_ms: int
    rotated_from: str | None
    description: str
    certificate_name: str | None = None

    @property
    def key_id(self) -> str:
        """Its name, not secret."""
        return self.credential.key_id


@dataclass(frozen=True, slots=True, kw_only=True)
class MintedKey:
    """A key that was just drawn: `text` is shown to its owner once and kept nowhere."""

    key_id: str
    text: str = field(repr=False)
    secret_hash: bytes

    @property
    def prefix(self) -> str:
        """The first characters, by which its owner recognises it."""
        return self.text[:PREFIX_CHARS]


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrySnapshot:
    """All accounts and API keys (ended ones too, by the hash of their secret) at one version."""

    version: int
    tree: AccountTree
    credentials: Mapping[bytes, Credential]

    def reporters(self, root: str, *, at_ms: int) -> frozenset[str]:
        """Return whose keys may report for an account or below it; "" is the installation.

        Those above and below it are among them, with or without a key; raises NotFound.
        """
        above = {account.account_id for account in self.tree.ancestry(root, at_ms=at_ms)}
        kin = above | self.tree.subtree(root, at_ms=at_ms)
        reporting = {
            credential.account_id or ""
            for credential in self.credentials.values()
            for top in credential.roots(Role.PRODUCER)
            if top is None or top in kin
        }
        return frozenset({"", *kin, *reporting})


def mint_key(random_bytes: RandomBytes, *, pepper: bytes) -> MintedKey:
    """Draw an API key; `pepper` keys the hash."""
    body = "tw_" + _base32(random_bytes(_RANDOM_BYTES), chars=_RANDOM_CHARS)
    text = body + _checksum(body)
    return MintedKey(
        key_id=draw_key_id(random_bytes),
        text=text,
        secret_hash=hash_api_key(text, pepper=pepper),
    )


def draw_key_id(random_bytes: RandomBytes) -> str:
    """Draw the name of a key."""
    return "key_" + _base32(random_bytes(_ID_BYTES), chars=_ID_CHARS)


def draw_account_id(random_bytes: RandomBytes) -> str:
    """Draw an id for an account whose creator did not choose one."""
    return "acc_" + _base32(random_bytes(_ID_BYTES), chars=_ID_CHARS)


def parse_api_key(text: str) -> str:
    """Return the text when it has the form and checksum of an API key.

    Raises Unauthenticated (API_KEY_MALFORMED).
    """
    well_formed = _API_KEY.fullmatch(text) is not None
    if not well_formed or _checksum(text[:-_CHECKSUM_CHARS]) != text[-_CHECKSUM_CHARS:]:
        raise Unauthenticated(
            Reason.API_KEY_MALFORMED, "This is not an API key; was it copied whole?"
        )
    return text


def hash_api_key(text: str, *, pepper: bytes) -> bytes:
    """Return the 32 bytes that are kept of an API key: HMAC-SHA256 under the pepper."""
    return hmac.digest(pepper, text.encode("ascii"), hashlib.sha256)


def is_key_id(text: str) -> bool:
    """Tell whether this can be the name of a key."""
    return _KEY_ID.fullmatch(text) is not None


def check_key(*, scopes: tuple[Scope, ...], description: str) -> None:
    """Refuse what a new key may not be; raises InvalidArgument."""
    if not 1 <= len(scopes) <= SCOPES_MAX or len(set(scopes)) < len(scopes):
        raise invalid_argument("scopes", f"1 to {SCOPES_MAX} scopes, each once")
    if len(description) > DESCRIPTION_CHARS_MAX or not description.isprintable():
        raise invalid_argument(
            "description", f"at most {DESCRIPTION_CHARS_MAX} characters, none of them control"
        )


def check_rotation(key: ApiKey, *, kin: Iterable[ApiKey], now_ms: int) -> None:
    """Refuse a rotation that would leave three live keys, or of a key that has ended.

    `kin` are the key's predecessor and its successors: no other key of its line can be live, since
    each of them was created under this rule. Raises Refused (ROTATION_REFUSED).
    """
    if key.credential.is_ended_at(now_ms):
        raise Refused(Reason.ROTATION_REFUSED, "This API key has ended; create a new one.")
    if key.certificate_name is not None:
        raise Refused(
            Reason.ROTATION_REFUSED,
            "This API key is bound to a certificate, which is what is renewed.",
        )
    live = [other for other in kin if not other.credential.is_ended_at(now_ms)]
    if live:
        raise Refused(
            Reason.ROTATION_REFUSED,
            f"Two of these keys are live; revoke {key.key_id} or {live[0].key_id} first.",
            live_key_id=live[0].key_id,
        )


def rotation_end_ms(credential: Credential, *, grace_seconds: int, now_ms: int) -> int:
    """Return when a rotated key ends: after the grace (0–2,592,000 s), never later than before."""
    if not 0 <= grace_seconds <= GRACE_SECONDS_MAX:
        raise invalid_argument("grace_seconds", f"0 to {GRACE_SECONDS_MAX}")
    end_ms = now_ms + grace_seconds * 1000
    return end_ms if credential.end_ms is None else min(end_ms, credential.end_ms)


def _checksum(body: str) -> str:
    kept_bits = zlib.crc32(body.encode("ascii")) % 2 ** (_CHECKSUM_CHARS * _BITS_PER_CHAR)
    return _digits(kept_bits, chars=_CHECKSUM_CHARS)


def _base32(data: bytes, *, chars: int) -> str:
    assert len(data) * 8 == chars * _BITS_PER_CHAR
    return _digits(int.from_bytes(data, "big"), chars=chars)


def _digits(number: int, *, chars: int) -> str:
    places = range((chars - 1) * _BITS_PER_CHAR, -1, -_BITS_PER_CHAR)
    return "".join(_DIGITS[number >> place & 31] for place in places)
