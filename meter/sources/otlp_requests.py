"""Of which request a span is, and for whom it ran: what the edge says, and what engines' ids say.

Pure.
"""

import re
from typing import Final, NamedTuple
from urllib.parse import unquote

# What engines put before the edge's id of a request, and whether each prompt's number follows it.
_PREFIXES: Final = (("chatcmpl-", False), ("cmpl-", True), ("embd-", True))
_ANY_PREFIX: Final = tuple(prefix for prefix, _ in _PREFIXES)
_NUMBER: Final = re.compile(r"-\d{1,6}$")
# A response may take several turns of the engine; its id is drawn, or chosen by who asks for it.
_TURN: Final = re.compile(r"_\d{1,6}$")


class Edge(NamedTuple):
    """What the edge says of a request; empty texts where it says nothing.

    A tuple, since it is made 30,000 times a second.
    """

    account: str = ""
    tier: str = ""
    request_id: str = ""


_NOBODY: Final = Edge()


def edge_of(trace_state: str, member: str) -> Edge:
    """Return what a member of `tracestate` says.

    It is `NAME=ACCOUNT`, `NAME=ACCOUNT:TIER` or `NAME=ACCOUNT:TIER:REQUEST`, where account and tier
    may be empty; what may not stand in a request's id there is written as in a URL, `%2C`.
    """
    for each in trace_state.split(","):
        name, equals, value = each.strip().partition("=")
        if equals and name == member:
            account, _, rest = value.strip().partition(":")
            tier, _, request_id = rest.partition(":")
            return Edge(account, tier, unquote(request_id) if "%" in request_id else request_id)
    return _NOBODY


def cut_id(request_id: str) -> tuple[str, bool]:
    """Return the edge's id of a request in the engine's, and whether a prompt's number was cut."""
    if not request_id.startswith(_ANY_PREFIX):
        return request_id, False
    for prefix, is_numbered in _PREFIXES:
        if request_id.startswith(prefix):
            cut = request_id[len(prefix) :]
            whole = _NUMBER.sub("", cut) if is_numbered else cut
            # An id that is nothing but its number names no request.
            return (whole, whole != cut) if whole else (request_id, False)
    return request_id, False


def turn_of(request_id: str) -> tuple[str, int]:
    """Return the response of which an id of vLLM's own is, and which turn of it, the first is 0."""
    response, _, turn = request_id.rpartition("_")
    return response, int(turn)


def is_own_id(request_id: str) -> bool:
    """Tell whether vLLM's id of a request has nothing of the edge's in it: that of a response.

    Whoever asks for a response may choose its id, so that it says nothing of whose request it is.
    """
    return not request_id.startswith(_ANY_PREFIX) and _TURN.search(request_id) is not None
