"""Accounts and API keys, between the wire's messages and the domain's words."""

import base64
import binascii
import json
from collections.abc import Iterable
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from meter.domain.account import Account, invalid_argument
from meter.domain.credential import SCOPES_MAX, ApiKey, Role, Scope
from meter.domain.interval import INTERVAL_MS
from tokenworks.meter.v1 import account_service_pb2 as pb

PAGE_SIZE_DEFAULT: Final = 1_000
PAGE_SIZE_MAX: Final = 10_000
# The last second that a timestamp may name: the year 9999 ends.
_SECONDS_MAX: Final = 253_402_300_799

# Where an account stands in a list: the handles of its path, and its id.
Place = tuple[tuple[str, ...], str]


def account_to_pb(account: Account, *, path: str, now_ms: int) -> pb.Account:
    """Return the account as it is at `now_ms`."""
    return pb.Account(
        account=account.account_id,
        handle=account.handle,
        parent=account.parent_at(now_ms) or "",
        path=path,
        create_time=_time_to_pb(account.create_ms),
        close_time=None if account.close_ms is None else _time_to_pb(account.close_ms),
        parents=[
            pb.ParentEdge(parent=edge.parent_id or "", start_time=_time_to_pb(edge.start_ms))
            for edge in account.parents
        ],
    )


def key_to_pb(key: ApiKey) -> pb.ApiKey:
    """Return the key without its secret."""
    credential = key.credential
    return pb.ApiKey(
        key_id=credential.key_id,
        account=credential.account_id or "",
        prefix=key.prefix,
        scopes=[
            pb.Scope(role=pb.Role.ValueType(scope.role), account=scope.account_id or "")
            for scope in credential.scopes
        ],
        create_time=_time_to_pb(key.create_ms),
        end_time=None if credential.end_ms is None else _time_to_pb(credential.end_ms),
        rotated_from=key.rotated_from or "",
        description=key.description,
        certificate_name=key.certificate_name or "",
    )


def scopes_from_pb(scopes: Iterable[pb.Scope]) -> tuple[Scope, ...]:
    """Return the scopes; raises InvalidArgument."""
    wanted = list(scopes)
    if len(wanted) > SCOPES_MAX:
        raise invalid_argument("scopes", f"1 to {SCOPES_MAX} scopes")
    known: set[int] = set(Role)
    if any(scope.role not in known for scope in wanted):
        raise invalid_argument("scopes.role", ", ".join(it.word for it in Role))
    return tuple(Scope(role=Role(scope.role), account_id=scope.account or None) for scope in wanted)


def edge_from_pb(time: Timestamp) -> int:
    """Return the edge in ms since 1970; raises InvalidArgument."""
    on_edge = time.nanos == 0 and time.seconds * 1000 % INTERVAL_MS == 0
    if not on_edge or not 0 <= time.seconds <= _SECONDS_MAX:
        raise invalid_argument("start_time", "a 15-minute edge in the years 1970 to 9999")
    return time.seconds * 1000


def page_size_from_pb(page_size: int) -> int:
    """Return how many to list; raises InvalidArgument."""
    if not 0 <= page_size <= PAGE_SIZE_MAX:
        raise invalid_argument("page_size", f"0 to {PAGE_SIZE_MAX}")
    return page_size or PAGE_SIZE_DEFAULT


def place_to_token(place: Place) -> str:
    """Return the page token of a page that begins behind this place."""
    handles, account_id = place
    text = json.dumps([*handles, account_id], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode("ascii")).decode("ascii")


def place_from_token(token: str) -> Place | None:
    """Return the place that a page begins behind, None for the first page.

    Raises InvalidArgument for what is no token of ours.
    """
    if not token:
        return None
    try:
        parts = json.loads(base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True))
    except (binascii.Error, UnicodeError, ValueError, RecursionError):
        parts = None
    if not isinstance(parts, list) or not parts or not all(isinstance(it, str) for it in parts):
        raise invalid_argument("page_token", "the next_page_token of the last answer")
    return tuple(parts[:-1]), parts[-1]


def _time_to_pb(time_ms: int) -> Timestamp:
    time = Timestamp()
    time.FromMilliseconds(time_ms)
    return time
