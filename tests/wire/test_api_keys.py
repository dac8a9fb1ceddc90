"""API keys from outside: who is let in, what a key may do, and how it is replaced."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc
import psycopg
import pytest
from google.protobuf.message import Message
from psycopg import sql

from tests.postgres import Cluster
from tests.wire.account_server import NOW, AccountServer, Caller
from tokenworks.meter.v1 import account_service_pb2 as pb

ADMINISTER, READ, REPORT = pb.ROLE_ADMIN, pb.ROLE_READER, pb.ROLE_PRODUCER
RPCS = [method.name for method in pb.DESCRIPTOR.services_by_name["AccountService"].methods]
KEY_UNKNOWN = "tw_00000000000000000000000000000000"


@pytest.fixture
def open_caller(account_server: AccountServer) -> Iterator[Callable[[str | None], Caller]]:
    """Opens a caller with an API key, or with none."""
    with _opening(account_server) as opened:
        yield opened


@pytest.fixture
def open_still(still_server: AccountServer) -> Iterator[Callable[[str | None], Caller]]:
    """The same, of the server that nobody changes."""
    with _opening(still_server) as opened:
        yield opened


Open = Callable[[str | None], Caller]


@contextmanager
def _opening(server: AccountServer) -> Iterator[Open]:
    callers: list[Caller] = []

    def opened(api_key: str | None) -> Caller:
        callers.append(Caller(server, api_key))
        return callers[-1]

    yield opened
    for caller in callers:
        caller.close()


def request_of(rpc: str) -> Message:
    """An empty request of a call."""
    message = getattr(pb, f"{rpc}Request")()
    assert isinstance(message, Message)
    return message


@pytest.mark.parametrize("rpc", RPCS)
def test_call__without_api_key(open_still: Open, rpc: str) -> None:
    """No call is answered without an API key, whatever else is wrong with it."""
    refusal = open_still(None).refusal(rpc, request_of(rpc))
    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.UNAUTHENTICATED,
        "API_KEY_MISSING",
    )


@pytest.mark.parametrize(
    ("authorization", "reason"),
    [
        (["Bearer {key}"], None),
        (["bearer {key}"], None),
        (["{key}"], "API_KEY_MALFORMED"),
        (["Basic {key}"], "API_KEY_MALFORMED"),
        (["Bearer"], "API_KEY_MALFORMED"),
        (["Bearer {key}0"], "API_KEY_MALFORMED"),
        (["Bearer {key} {key}"], "API_KEY_MALFORMED"),
        (["Bearer {key}", "Bearer {key}"], "API_KEY_MALFORMED"),
        (["Bearer " + KEY_UNKNOWN + "000000"], "API_KEY_MALFORMED"),
        (["Bearer " + KEY_UNKNOWN + "{checksum}"], "API_KEY_UNKNOWN"),
    ],
)
def test_authenticate__forms(
    still_server: AccountServer, open_still: Open, authorization: list[str], reason: str | None
) -> None:
    """What is no API key is told from one that nobody knows."""
    caller = open_still(None)
    # CRC-32 of the unknown key's text, lowest 30 bits, in Crockford's digits.
    known = {"key": still_server.api_key, "checksum": "qvs4ab"}
    caller.metadata = [("authorization", text.format(**known)) for text in authorization]
    if reason is None:
        caller.call("ListAccounts", pb.ListAccountsRequest())
    else:
        assert caller.refusal("ListAccounts", pb.ListAccountsRequest()).reason == reason


def test_authenticate__after_the_grace(
    account_server: AccountServer, admin: Caller, open_caller: Open
) -> None:
    """A rotated key is let in until its grace is over; its successor from the start."""
    old = admin.create_key("team", (READ, "team"))
    request = pb.RotateApiKeyRequest(key_id=old.key.key_id, grace_seconds=60)
    successor = admin.call("RotateApiKey", request)
    callers = [open_caller(old.secret), open_caller(successor.secret)]
    account_server.clock.now = NOW + 59_999
    for caller in callers:
        caller.call("ListAccounts", pb.ListAccountsRequest())
    account_server.clock.now = NOW + 60_000
    callers[1].call("ListAccounts", pb.ListAccountsRequest())
    refusal = callers[0].refusal("ListAccounts", pb.ListAccountsRequest())
    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.UNAUTHENTICATED,
        "API_KEY_REVOKED",
    )


def test_revoke_api_key__at_once(admin: Caller, open_caller: Open) -> None:
    """A revoked key is refused from its next call on; revoking it again changes nothing."""
    made = admin.create_key("team", (READ, "team"))
    caller = open_caller(made.secret)
    caller.call("ListAccounts", pb.ListAccountsRequest())
    request = pb.RevokeApiKeyRequest(key_id=made.key.key_id)
    revoked = admin.call("RevokeApiKey", request).key
    assert revoked.end_time.ToMilliseconds() == NOW
    assert caller.refusal("ListAccounts", pb.ListAccountsRequest()).reason == "API_KEY_REVOKED"
    assert admin.call("RevokeApiKey", request).key == revoked


def test_create_api_key__is_shown_once(admin: Caller, open_caller: Open) -> None:
    """A new key works at once, and no later answer has more of it than its prefix."""
    request = pb.CreateApiKeyRequest(account="team", description="gateway 1")
    request.scopes.add(role=READ, account="team")
    request.scopes.add(role=REPORT, account="acme")
    made = admin.call("CreateApiKey", request)
    assert made.key.prefix == made.secret[:10]
    assert made.key.create_time.ToMilliseconds() == NOW
    assert not made.key.HasField("end_time")
    assert (made.key.account, made.key.description) == ("team", "gateway 1")
    assert list(made.key.scopes) == list(request.scopes)
    open_caller(made.secret).call("GetAccount", pb.GetAccountRequest(account="agent"))
    listed = admin.call("ListApiKeys", pb.ListApiKeysRequest(account="team"))
    assert [key.key_id for key in listed.keys] == [made.key.key_id]
    assert made.secret[10:] not in str(listed)


@pytest.mark.parametrize(
    ("account", "scopes", "description", "expected"),
    [
        ("team", [], "", ("ARGUMENT_INVALID", "scopes")),
        ("team", [(REPORT, "team")] * 2, "", ("ARGUMENT_INVALID", "scopes")),
        ("team", [(REPORT, f"a{it}") for it in range(21)], "", ("ARGUMENT_INVALID", "scopes")),
        ("team", [(0, "team")], "", ("ARGUMENT_INVALID", "scopes.role")),
        ("team", [(99, "team")], "", ("ARGUMENT_INVALID", "scopes.role")),
        ("team", [(REPORT, "team")], "x" * 201, ("ARGUMENT_INVALID", "description")),
        ("team", [(REPORT, "team")], "\x00", ("ARGUMENT_INVALID", "description")),
        ("team", [(REPORT, "nobody")], "", ("ACCOUNT_NOT_FOUND", None)),
        ("nobody", [(REPORT, "team")], "", ("ACCOUNT_NOT_FOUND", None)),
    ],
)
def test_create_api_key__refused(
    still_admin: Caller,
    account: str,
    scopes: list[tuple[int, str]],
    description: str,
    expected: tuple[str, str | None],
) -> None:
    """A key needs an owner that exists and 1 to 20 scopes on accounts that exist."""
    request = pb.CreateApiKeyRequest(account=account, description=description)
    for role, on in scopes:
        request.scopes.add(role=pb.Role.ValueType(role), account=on)
    refusal = still_admin.refusal("CreateApiKey", request)
    assert (refusal.reason, refusal.metadata.get("field")) == expected


def test_rotate_api_key__two_live(admin: Caller) -> None:
    """Neither of two live keys is rotated; once one is revoked or over, the other is."""
    first = admin.create_key("team", (REPORT, "team"), (READ, "acme"))
    request = pb.RotateApiKeyRequest(key_id=first.key.key_id, grace_seconds=2_592_000)
    second = admin.call("RotateApiKey", request)
    assert second.key.rotated_from == first.key.key_id
    assert (second.key.account, list(second.key.scopes)) == ("team", list(first.key.scopes))
    for key in (first.key, second.key):
        refusal = admin.refusal("RotateApiKey", pb.RotateApiKeyRequest(key_id=key.key_id))
        assert (refusal.code, refusal.reason) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "ROTATION_REFUSED",
        )
    admin.call("RevokeApiKey", pb.RevokeApiKeyRequest(key_id=first.key.key_id))
    admin.call("RotateApiKey", pb.RotateApiKeyRequest(key_id=second.key.key_id))
    refusal = admin.refusal("RotateApiKey", pb.RotateApiKeyRequest(key_id=second.key.key_id))
    assert refusal.reason == "ROTATION_REFUSED"
    listed = admin.call("ListApiKeys", pb.ListApiKeysRequest(account="team")).keys
    ended = [key.HasField("end_time") for key in listed]
    assert sorted(ended) == [False, True, True]


@pytest.mark.parametrize("grace_seconds", [-1, 2_592_001])
def test_rotate_api_key__grace_out_of_range(admin: Caller, grace_seconds: int) -> None:
    """A grace is at most 30 days, and a refused rotation ends nothing."""
    made = admin.create_key("team", (REPORT, "team"))
    request = pb.RotateApiKeyRequest(key_id=made.key.key_id, grace_seconds=grace_seconds)
    refusal = admin.refusal("RotateApiKey", request)
    assert (refusal.reason, refusal.metadata["field"]) == ("ARGUMENT_INVALID", "grace_seconds")
    listed = admin.call("ListApiKeys", pb.ListApiKeysRequest(account="team")).keys
    assert list(listed) == [made.key]


@pytest.mark.parametrize("key_id", ["", "key_0000000000000000", "key_\x00", "k" * 1_000_000])
@pytest.mark.parametrize("rpc", ["RotateApiKey", "RevokeApiKey"])
def test_api_key__unknown(still_admin: Caller, still_lead: Caller, rpc: str, key_id: str) -> None:
    """Only who may administer everything is told that a key does not exist."""
    request = getattr(pb, f"{rpc}Request")(key_id=key_id)
    refusal = still_admin.refusal(rpc, request)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "API_KEY_NOT_FOUND")
    assert still_lead.refusal(rpc, request).reason == "SCOPE_MISSING"


def test_list_api_keys__only_what_may_be_administered(
    account_server: AccountServer, admin: Caller, lead: Caller
) -> None:
    """A lead sees the keys of the accounts below, not those of the installation or of others."""
    for owner in ("team", "agent", "acme", "other"):
        account_server.clock.now += 1
        admin.create_key(owner, (REPORT, owner))
    seen = lead.call("ListApiKeys", pb.ListApiKeysRequest()).keys
    assert sorted(key.account for key in seen) == ["agent", "team", "team"]
    everything = admin.call("ListApiKeys", pb.ListApiKeysRequest()).keys
    assert [key.account for key in everything[-4:]] == ["team", "agent", "acme", "other"]
    assert sorted(key.account for key in everything[:-4]) == ["", "team"]


FOREIGN = [
    ("GetAccount", lambda it: pb.GetAccountRequest(account=it)),
    ("ListAccounts", lambda it: pb.ListAccountsRequest(account=it)),
    ("CreateAccount", lambda it: pb.CreateAccountRequest(handle="new", parent=it)),
    ("CloseAccount", lambda it: pb.CloseAccountRequest(account=it)),
    ("MoveAccount", lambda it: pb.MoveAccountRequest(account=it, parent="team")),
    ("MoveAccount", lambda it: pb.MoveAccountRequest(account="agent", parent=it)),
    ("ListApiKeys", lambda it: pb.ListApiKeysRequest(account=it)),
    (
        "CreateApiKey",
        lambda it: pb.CreateApiKeyRequest(
            account=it, scopes=[pb.Scope(role=REPORT, account="team")]
        ),
    ),
    (
        "CreateApiKey",
        lambda it: pb.CreateApiKeyRequest(
            account="team", scopes=[pb.Scope(role=REPORT, account=it)]
        ),
    ),
]


@pytest.mark.parametrize(("rpc", "make"), FOREIGN)
def test_call__on_what_is_not_ones_own(
    still_lead: Caller, rpc: str, make: Callable[[str], Message]
) -> None:
    """An account above, beside or nowhere is refused in the same words: nothing can be probed."""
    refusals = [still_lead.refusal(rpc, make(it)) for it in ("acme", "lab", "other", "nobody")]
    assert refusals[0].code is grpc.StatusCode.PERMISSION_DENIED
    assert refusals[0].reason == "SCOPE_MISSING"
    assert all(it == refusals[0] for it in refusals)


OWN = [
    ("CreateAccount", pb.CreateAccountRequest(handle="new")),
    ("MoveAccount", pb.MoveAccountRequest(account="agent")),
    ("MoveAccount", pb.MoveAccountRequest(account="team", parent="team")),
    (
        "CreateApiKey",
        pb.CreateApiKeyRequest(account="team", scopes=[pb.Scope(role=READ)]),
    ),
    (
        "CreateApiKey",
        pb.CreateApiKeyRequest(scopes=[pb.Scope(role=READ, account="team")]),
    ),
]


@pytest.mark.parametrize(("rpc", "request_"), OWN)
def test_call__beyond_ones_own_top(still_lead: Caller, rpc: str, request_: Message) -> None:
    """Who administers a subtree makes no root, leaves it nowhere, and has no key for everything."""
    assert still_lead.refusal(rpc, request_).reason == "SCOPE_MISSING"


def test_call__within_ones_own(lead: Caller) -> None:
    """Who administers a subtree creates, moves and closes in it, and makes keys for it."""
    lead.create("team/two")
    lead.call("MoveAccount", pb.MoveAccountRequest(account="agent", parent="two"))
    lead.call("CloseAccount", pb.CloseAccountRequest(account="agent"))
    made = lead.create_key("two", (REPORT, "two"))
    lead.call("RotateApiKey", pb.RotateApiKeyRequest(key_id=made.key.key_id))
    lead.call("RevokeApiKey", pb.RevokeApiKeyRequest(key_id=made.key.key_id))


def test_call__after_the_account_has_left(
    account_server: AccountServer, admin: Caller, lead: Caller
) -> None:
    """A scope is on a subtree as it is now: what moves out of it is out of reach from then on."""
    request = pb.GetAccountRequest(account="agent")
    admin.call("MoveAccount", pb.MoveAccountRequest(account="agent", parent="other"))
    lead.call("GetAccount", request)
    account_server.clock.now = NOW + 900_000
    assert lead.refusal("GetAccount", request).reason == "SCOPE_MISSING"


def test_move_account__into_a_place_promised_to_another(admin: Caller, lead: Caller) -> None:
    """Who moves an account must administer the parent that it would otherwise have then."""
    start = pb.MoveAccountRequest(account="agent", parent="other")
    start.start_time.FromMilliseconds(NOW // 900_000 * 900_000 + 2 * 900_000)
    admin.call("MoveAccount", start)
    later = pb.MoveAccountRequest(account="agent", parent="team")
    later.start_time.FromMilliseconds(NOW // 900_000 * 900_000 + 3 * 900_000)
    assert lead.refusal("MoveAccount", later).reason == "SCOPE_MISSING"


@pytest.mark.parametrize(
    ("role", "rpc"),
    [
        (REPORT, "ListAccounts"),
        (ADMINISTER, "ListAccounts"),
        (REPORT, "ListApiKeys"),
        (READ, "ListApiKeys"),
    ],
)
def test_call__with_another_role(
    still_admin: Caller, open_still: Open, role: int, rpc: str
) -> None:
    """One role does not stand for another, not even on everything."""
    caller = open_still(still_admin.create_key("", (role, "")).secret)
    assert caller.refusal(rpc, request_of(rpc)).reason == "SCOPE_MISSING"


def test_rotate_api_key__no_way_to_more(admin: Caller, lead: Caller) -> None:
    """Who owns a key that may do more than they may is not given its successor."""
    made = admin.create_key("team", (REPORT, "team"), (READ, ""))
    refusal = lead.refusal("RotateApiKey", pb.RotateApiKeyRequest(key_id=made.key.key_id))
    assert refusal.reason == "SCOPE_MISSING"
    lead.call("RevokeApiKey", pb.RevokeApiKeyRequest(key_id=made.key.key_id))


@pytest.mark.parametrize("rpc", ["RotateApiKey", "RevokeApiKey"])
def test_api_key__of_another(admin: Caller, lead: Caller, rpc: str) -> None:
    """The key of a foreign account is out of reach, even when its scope is on one's own."""
    made = admin.create_key("other", (REPORT, "team"))
    refusal = lead.refusal(rpc, getattr(pb, f"{rpc}Request")(key_id=made.key.key_id))
    assert refusal.reason == "SCOPE_MISSING"


def test_change__without_database(admin: Caller, cluster: Cluster, database_url: str) -> None:
    """Without the database a change is UNAVAILABLE, and what is known is still read."""
    name = sql.Identifier(database_url.rpartition("/")[2])
    with psycopg.connect(cluster.url(), autocommit=True) as connection:
        connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
            [database_url.rpartition("/")[2]],
        )
        refusal = admin.refusal("CloseAccount", pb.CloseAccountRequest(account="lab"))
        assert (refusal.code, refusal.reason) == (
            grpc.StatusCode.UNAVAILABLE,
            "STORE_UNAVAILABLE",
        )
        known = admin.call("GetAccount", pb.GetAccountRequest(account="lab")).account
        assert not known.HasField("close_time")
        connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))
    closed = admin.call("CloseAccount", pb.CloseAccountRequest(account="lab")).account
    assert closed.HasField("close_time")
