"""API keys: their text, what they may do, and when they may be rotated."""

import hashlib
import hmac
import os
import zlib
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.domain.account import Account, AccountTree, ParentEdge
from meter.domain.credential import (
    ApiKey,
    Credential,
    RegistrySnapshot,
    Role,
    Scope,
    check_key,
    check_rotation,
    draw_account_id,
    hash_api_key,
    is_key_id,
    mint_key,
    parse_api_key,
    rotation_end_ms,
)
from meter.domain.errors import InvalidArgument, Reason, Refused, Unauthenticated

PEPPER = b"p" * 32
NOW = 900_000_000
DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"


def tree() -> AccountTree:
    """A root `acme`, `team` below it, and another root `other`."""
    return AccountTree(
        Account(
            account_id=name,
            handle=name,
            create_ms=0,
            close_ms=None,
            parents=(ParentEdge(start_ms=0, parent_id=parent),),
        )
        for name, parent in [("acme", None), ("team", "acme"), ("other", None)]
    )


def key(name: str, *, end_ms: int | None = None) -> ApiKey:
    """A key of `acme` that may report for it."""
    scopes = (Scope(role=Role.PRODUCER, account_id="acme"),)
    return ApiKey(
        credential=Credential(key_id=name, account_id="acme", scopes=scopes, end_ms=end_ms),
        prefix="tw_0000000",
        create_ms=0,
        rotated_from=None,
        description="",
    )


@given(random=st.binary(min_size=30, max_size=30))
def test_mint_key__has_form_and_checksum(random: bytes) -> None:
    """A key is `tw_`, 160 random bits in 32 digits, and six digits of their CRC-32."""
    left = random
    drawn: list[bytes] = []

    def draw(count: int) -> bytes:
        nonlocal left
        drawn.append(left[:count])
        left = left[count:]
        return drawn[-1]

    minted = mint_key(draw, pepper=PEPPER)
    assert parse_api_key(minted.text) == minted.text
    assert minted.text[:3] == "tw_"
    body = "".join(f"{DIGITS.index(digit):05b}" for digit in minted.text[3:35])
    assert int(body, 2).to_bytes(20, "big") == drawn[0]
    checksum = zlib.crc32(minted.text[:35].encode()) & 0x3FFF_FFFF
    assert int("".join(f"{DIGITS.index(it):05b}" for it in minted.text[35:]), 2) == checksum
    assert minted.prefix == minted.text[:10]
    assert is_key_id(minted.key_id)
    assert minted.secret_hash == hmac.new(PEPPER, minted.text.encode(), hashlib.sha256).digest()


def test_mint_key__secret_stays_out_of_logs() -> None:
    """The text of a key is not in what Python prints of it."""
    minted = mint_key(os.urandom, pepper=PEPPER)
    assert minted.text not in repr(minted)


@given(place=st.integers(3, 40), other=st.sampled_from(DIGITS), seed=st.integers(0, 99))
def test_parse_api_key__typing_error(place: int, other: str, seed: int) -> None:
    """One wrong character is told from an unknown key, whichever it is."""
    text = mint_key(lambda count: bytes([seed]) * count, pepper=PEPPER).text
    typed = text[:place] + other + text[place + 1 :]
    if typed != text:
        with pytest.raises(Unauthenticated) as caught:
            parse_api_key(typed)
        assert caught.value.reason is Reason.API_KEY_MALFORMED


CHANGES: list[Callable[[str], str]] = [
    lambda _: "",
    lambda _: "tw_",
    lambda text: text[:-1],
    lambda text: text + "0",
    lambda text: text.upper(),
    lambda text: text.replace("tw_", "sk_"),
    lambda text: text + "\n",
    lambda text: " " + text,
    lambda text: text[:5] + "u" + text[6:],
    lambda text: text[:5] + "٣" + text[6:],
    lambda text: text * 10_000,
]


@pytest.mark.parametrize("change", CHANGES)
def test_parse_api_key__other_form(change: Callable[[str], str]) -> None:
    """What has not the form of an API key is malformed, and is never hashed."""
    with pytest.raises(Unauthenticated) as caught:
        parse_api_key(change(mint_key(os.urandom, pepper=PEPPER).text))
    assert caught.value.reason is Reason.API_KEY_MALFORMED


def test_hash_api_key__depends_on_the_pepper() -> None:
    """Who has the database but not the pepper cannot test a guess."""
    text = mint_key(os.urandom, pepper=PEPPER).text
    assert hash_api_key(text, pepper=PEPPER) != hash_api_key(text, pepper=b"q" * 32)


def test_draw_account_id__is_an_id() -> None:
    """A drawn id carries 80 random bits in the form of an account id."""
    assert draw_account_id(lambda count: b"\xff" * count) == "acc_" + "z" * 16


@pytest.mark.parametrize(
    ("scope", "role", "account_id", "expected"),
    [
        (Scope(role=Role.READER, account_id="acme"), Role.READER, "acme", True),
        (Scope(role=Role.READER, account_id="acme"), Role.READER, "team", True),
        (Scope(role=Role.READER, account_id="acme"), Role.READER, "other", False),
        (Scope(role=Role.READER, account_id="acme"), Role.READER, None, False),
        (Scope(role=Role.READER, account_id="acme"), Role.READER, "nobody", False),
        (Scope(role=Role.READER, account_id="team"), Role.READER, "acme", False),
        (Scope(role=Role.READER, account_id=None), Role.READER, "other", True),
        (Scope(role=Role.READER, account_id=None), Role.READER, None, True),
        (Scope(role=Role.READER, account_id=None), Role.READER, "nobody", True),
        (Scope(role=Role.ADMIN, account_id=None), Role.READER, "acme", False),
        (Scope(role=Role.READER, account_id=None), Role.PRODUCER, "acme", False),
    ],
)
def test_may__table(scope: Scope, role: Role, account_id: str | None, *, expected: bool) -> None:
    """A scope gives its role, and no other, on its subtree."""
    credential = Credential(key_id="k", account_id=None, scopes=(scope,), end_ms=None)
    assert credential.may(role, account_id, tree=tree(), at_ms=NOW) is expected


def test_may__any_scope_suffices() -> None:
    """The scopes of a key add up."""
    scopes = tuple(Scope(role=Role.READER, account_id=it) for it in ("other", "team"))
    credential = Credential(key_id="k", account_id=None, scopes=scopes, end_ms=None)
    allowed = {
        it.account_id
        for it in tree()
        if credential.may(Role.READER, it.account_id, tree=tree(), at_ms=NOW)
    }
    assert allowed == {"other", "team"}


@pytest.mark.parametrize(
    ("end_ms", "ended"), [(None, False), (NOW + 1, False), (NOW, True), (NOW - 1, True)]
)
def test_is_ended_at__table(end_ms: int | None, *, ended: bool) -> None:
    """A key ends at its end, not after it."""
    assert key("k", end_ms=end_ms).credential.is_ended_at(NOW) is ended


ONE = (Scope(role=Role.PRODUCER, account_id="acme"),)
MANY = tuple(Scope(role=Role.PRODUCER, account_id=f"a{it}") for it in range(21))


@pytest.mark.parametrize(
    ("scopes", "description", "field"),
    [
        ((), "", "scopes"),
        (MANY, "", "scopes"),
        (ONE * 2, "", "scopes"),
        (ONE, "x" * 201, "description"),
        (ONE, "two\nlines", "description"),
        (ONE, "\x00", "description"),
    ],
)
def test_check_key__refused(scopes: tuple[Scope, ...], description: str, field: str) -> None:
    """A key has 1 to 20 different scopes and a short description without control characters."""
    with pytest.raises(InvalidArgument) as caught:
        check_key(scopes=scopes, description=description)
    assert caught.value.metadata["field"] == field


def test_check_key__at_the_limits() -> None:
    """Twenty scopes and 200 characters are allowed."""
    check_key(scopes=MANY[:20], description="é" * 200)


@pytest.mark.parametrize(
    ("old", "kin", "allowed"),
    [
        (key("k"), [], True),
        (key("k", end_ms=NOW + 1), [], True),
        (key("k", end_ms=NOW), [], False),
        (key("k"), [key("before", end_ms=NOW)], True),
        (key("k"), [key("before", end_ms=NOW + 1)], False),
        (key("k", end_ms=NOW + 1), [key("after")], False),
        (key("k", end_ms=NOW + 1), [key("after", end_ms=NOW)], True),
    ],
)
def test_check_rotation__table(old: ApiKey, kin: list[ApiKey], *, allowed: bool) -> None:
    """At most two keys of a line are live, and one that has ended has no successor."""
    if allowed:
        check_rotation(old, kin=kin, now_ms=NOW)
        return
    with pytest.raises(Refused) as caught:
        check_rotation(old, kin=kin, now_ms=NOW)
    assert caught.value.reason is Reason.ROTATION_REFUSED


@pytest.mark.parametrize(
    ("end_ms", "grace_seconds", "expected"),
    [
        (None, 0, NOW),
        (None, 60, NOW + 60_000),
        (None, 2_592_000, NOW + 2_592_000_000),
        (NOW + 1_000, 60, NOW + 1_000),
    ],
)
def test_rotation_end_ms__table(end_ms: int | None, grace_seconds: int, expected: int) -> None:
    """The old key ends after the grace, and never later than it would have."""
    credential = replace(key("k").credential, end_ms=end_ms)
    assert rotation_end_ms(credential, grace_seconds=grace_seconds, now_ms=NOW) == expected


@pytest.mark.parametrize("grace_seconds", [-1, 2_592_001])
def test_rotation_end_ms__out_of_range(grace_seconds: int) -> None:
    """A grace is at most 30 days."""
    with pytest.raises(InvalidArgument):
        rotation_end_ms(key("k").credential, grace_seconds=grace_seconds, now_ms=NOW)


def test_reporters__are_those_above_below_and_with_a_key() -> None:
    """Of an account report its own kin, the installation, and whoever has a key for it."""
    scope = Scope(role=Role.PRODUCER, account_id="team")
    reader = replace(scope, role=Role.READER)
    credentials = {
        owner.encode(): Credential(key_id=owner, account_id=owner, scopes=(it,), end_ms=None)
        for owner, it in (("gateway", scope), ("auditor", reader))
    }
    snapshot = RegistrySnapshot(version=1, tree=tree(), credentials=credentials)
    assert snapshot.reporters("team", at_ms=0) == {"", "acme", "team", "gateway"}
    assert snapshot.reporters("acme", at_ms=0) == {"", "acme", "team", "gateway"}
    assert snapshot.reporters("other", at_ms=0) == {"", "other"}
