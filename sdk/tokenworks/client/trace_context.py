"""What an engine's spans are told of a request that the engine calls by an id of its own. Pure.

vLLM draws the id of a response, or takes the one that its caller chose. Its spans hand on the
request's `tracestate`, in which the request is named here.
"""

import re
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import quote

from tokenworks.client.attribution import Attributed

MEMBER: Final = "tokenworks"
"""The member of `tracestate` in which it stands, `ACCOUNT:TIER:REQUEST`."""


def named(
    headers: Sequence[tuple[bytes, bytes]],
    attributed: Attributed,
    *,
    new_id: Callable[[], str],
) -> list[tuple[bytes, bytes]]:
    """Return the headers, whose `tracestate` names the request.

    What it says of the request itself is overwritten; the caller's own tracing goes on, and one is
    begun where there is none: without a `traceparent` no engine looks at a `tracestate`.
    """
    parents = [value for name, value in headers if name == _PARENT]
    states = [value.decode("latin-1") for name, value in headers if name == _STATE]
    others, said = _members(states)
    value = _value(attributed, said=said)
    if value is None:
        return list(headers)
    state = ",".join([f"{MEMBER}={value}", *others])
    parent = parents[0] if parents and _PARENT_FORM.fullmatch(parents[0]) else _begun(new_id)
    kept = [each for each in headers if each[0] not in (_PARENT, _STATE)]
    return [*kept, (_PARENT, parent), (_STATE, state.encode("latin-1"))]


_PARENT: Final = b"traceparent"
_STATE: Final = b"tracestate"
_PARENT_FORM: Final = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
# As the standard has them: one that is none has all of them thrown away.
_MEMBER_FORM: Final = re.compile(
    r"[a-z0-9][a-z0-9_*/@-]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
_OTHERS_MAX: Final = 31
_VALUE_CHARS_MAX: Final = 256
_PLAIN: Final = re.compile(r"[\w./@-]*", re.ASCII)


def _members(states: Sequence[str]) -> tuple[list[str], str]:
    """Return the members that are not ours, each name once, and what ours says."""
    found: dict[str, str] = {}
    said = ""
    for member in (each.strip() for state in states for each in state.split(",")):
        name, _, value = member.partition("=")
        if name == MEMBER:
            said = said or value
        elif _MEMBER_FORM.fullmatch(member):
            found.setdefault(name, member)
    return list(found.values())[:_OTHERS_MAX], said


def _value(attributed: Attributed, *, said: str) -> str | None:
    """Return what our member says; None where the id is too long for one."""
    account, _, rest = said.partition(":")
    tier, _, _ = rest.partition(":")
    account = account if attributed.account is None else attributed.account
    tier = tier if attributed.tier is None else attributed.tier
    request_id = quote(attributed.request_id, safe="-._~:/@+")
    owner = f"{account}:{tier}" if _PLAIN.fullmatch(account) and _PLAIN.fullmatch(tier) else ":"
    for value in (f"{owner}:{request_id}", f"::{request_id}"):
        if len(value) <= _VALUE_CHARS_MAX:
            return value
    return None


def _begun(new_id: Callable[[], str]) -> bytes:
    # Sampled: what is not has no span, and what it used is not told.
    return f"00-{new_id()}-{new_id()[-16:]}-01".encode("ascii")
