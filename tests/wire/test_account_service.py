"""AccountService from outside: what each call answers, and why it is refused."""

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from meter.domain.interval import INTERVAL_MS
from tests.wire.account_server import BEGIN, NOW, AccountServer, Caller
from tokenworks.meter.v1 import account_service_pb2 as pb


def edge(number: int) -> Timestamp:
    """The edge so many intervals after the one that NOW lies in."""
    time = Timestamp()
    time.FromMilliseconds(BEGIN + number * INTERVAL_MS)
    return time


def paths(answer: pb.ListAccountsResponse) -> list[str]:
    """The paths of a list."""
    return [account.path for account in answer.accounts]


def test_create_account__below_another(admin: Caller) -> None:
    """A new account has its path, and its parent since its interval began."""
    request = pb.CreateAccountRequest(handle="new", parent="team", account="mine")
    created = admin.call("CreateAccount", request).account
    assert (created.account, created.parent, created.path) == ("mine", "team", "acme/team/new")
    assert list(created.parents) == [pb.ParentEdge(parent="team", start_time=edge(0))]


def test_create_account__root_with_drawn_id(admin: Caller) -> None:
    """Without an id the server draws one; the account is found by it at once."""
    created = admin.call("CreateAccount", pb.CreateAccountRequest(handle="new.1")).account
    assert created.account.startswith("acc_")
    assert (created.handle, created.parent, created.path) == ("new.1", "", "new.1")
    assert created.create_time.ToMilliseconds() == NOW
    assert not created.HasField("close_time")
    assert list(created.parents) == [pb.ParentEdge(start_time=edge(0))]
    again = admin.call("GetAccount", pb.GetAccountRequest(account=created.account)).account
    assert again == created


@pytest.mark.parametrize(
    ("request_", "code", "reason", "field"),
    [
        ({"handle": ""}, "INVALID_ARGUMENT", "ARGUMENT_INVALID", "handle"),
        ({"handle": "A"}, "INVALID_ARGUMENT", "ARGUMENT_INVALID", "handle"),
        ({"handle": "h" * 1_000_000}, "INVALID_ARGUMENT", "ARGUMENT_INVALID", "handle"),
        ({"handle": "a\x00"}, "INVALID_ARGUMENT", "ARGUMENT_INVALID", "handle"),
        ({"handle": "a", "account": "a.b"}, "INVALID_ARGUMENT", "ARGUMENT_INVALID", "account"),
        ({"handle": "a", "parent": "nobody"}, "NOT_FOUND", "ACCOUNT_NOT_FOUND", None),
        ({"handle": "a", "account": "team"}, "ALREADY_EXISTS", "ACCOUNT_EXISTS", "account"),
        ({"handle": "team", "parent": "acme"}, "ALREADY_EXISTS", "ACCOUNT_EXISTS", "handle"),
    ],
)
def test_create_account__refused(
    still_admin: Caller, request_: dict[str, str], code: str, reason: str, field: str | None
) -> None:
    """Each fault of a new account has its reason; a wrong field is named."""
    refusal = still_admin.refusal("CreateAccount", pb.CreateAccountRequest(**request_))
    assert (refusal.code.name, refusal.reason) == (code, reason)
    assert refusal.metadata.get("field") == field


def test_create_account__below_a_closed_one(admin: Caller) -> None:
    """Nothing is created below a closed account."""
    admin.call("CloseAccount", pb.CloseAccountRequest(account="lab"))
    refusal = admin.refusal("CreateAccount", pb.CreateAccountRequest(handle="a", parent="lab"))
    assert (refusal.reason, refusal.metadata["field"]) == ("ARGUMENT_INVALID", "parent")


def test_list_accounts__by_path_in_pages(admin: Caller) -> None:
    """Pages follow one another in the order of the tree, and the last one says so."""
    admin.create("acme-x")
    expected = ["acme", "acme/lab", "acme/team", "acme/team/agent", "acme-x", "other"]
    assert paths(admin.call("ListAccounts", pb.ListAccountsRequest())) == expected
    found: list[str] = []
    token = ""
    for _ in range(3):
        request = pb.ListAccountsRequest(page_size=2, page_token=token)
        answer = admin.call("ListAccounts", request)
        found += paths(answer)
        token = answer.next_page_token
        assert bool(token) == (len(found) < len(expected))
    assert found == expected


def test_list_accounts__page_after_a_change(admin: Caller) -> None:
    """A page goes on behind the last account, whatever was created or moved meanwhile."""
    first = admin.call("ListAccounts", pb.ListAccountsRequest(page_size=3))
    assert paths(first)[-1] == "acme/team"
    admin.create("acme/team/new")
    admin.create("acme/earlier")
    rest = admin.call("ListAccounts", pb.ListAccountsRequest(page_token=first.next_page_token))
    assert paths(rest) == ["acme/team/agent", "acme/team/new", "other"]


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (pb.ListAccountsRequest(account="team"), ["acme/team", "acme/team/agent"]),
        (pb.ListAccountsRequest(path="acme/team"), ["acme/team"]),
        (pb.ListAccountsRequest(path="team"), []),
        (pb.ListAccountsRequest(path="acme/team", account="team"), ["acme/team"]),
        (pb.ListAccountsRequest(path="acme/team", account="other"), []),
    ],
)
def test_list_accounts__chosen(
    still_admin: Caller, request_: pb.ListAccountsRequest, expected: list[str]
) -> None:
    """A list is narrowed to a subtree, to a path, or to both."""
    answer = still_admin.call("ListAccounts", request_)
    assert paths(answer) == expected


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.ListAccountsRequest(page_size=-1), "page_size"),
        (pb.ListAccountsRequest(page_size=10_001), "page_size"),
        (pb.ListAccountsRequest(page_token="x"), "page_token"),
        (pb.ListAccountsRequest(page_token="é"), "page_token"),
        (pb.ListAccountsRequest(page_token="W10="), "page_token"),
        (pb.ListAccountsRequest(page_token="WzFd"), "page_token"),
        (pb.ListAccountsRequest(page_token="W1tb" * 100_000), "page_token"),
    ],
)
def test_list_accounts__bad_page(
    still_admin: Caller, request_: pb.ListAccountsRequest, field: str
) -> None:
    """A page size out of range or a token that is not ours is refused."""
    refusal = still_admin.refusal("ListAccounts", request_)
    assert (refusal.reason, refusal.metadata["field"]) == ("ARGUMENT_INVALID", field)


def test_list_accounts__only_what_may_be_read(still_lead: Caller) -> None:
    """A key sees the accounts that it may read, and a path beyond them as if it were not."""
    expected = ["acme/team", "acme/team/agent"]
    assert paths(still_lead.call("ListAccounts", pb.ListAccountsRequest())) == expected
    for path in ("acme", "other", "nobody"):
        assert paths(still_lead.call("ListAccounts", pb.ListAccountsRequest(path=path))) == []
    assert (
        paths(still_lead.call("ListAccounts", pb.ListAccountsRequest(path=expected[1])))
        == expected[1:]
    )


def test_list_accounts__two_keys_in_turn(still_admin: Caller, still_lead: Caller) -> None:
    """What one key was shown is not shown to the next one."""
    everything = still_admin.call("ListAccounts", pb.ListAccountsRequest())
    some = still_lead.call("ListAccounts", pb.ListAccountsRequest())
    assert len(everything.accounts) == 5
    assert len(some.accounts) == 2
    assert still_admin.call("ListAccounts", pb.ListAccountsRequest()) == everything


def test_move_account__from_the_next_edge(account_server: AccountServer, admin: Caller) -> None:
    """A move without a date holds from the next edge, and the answer shows both edges."""
    moved = admin.call("MoveAccount", pb.MoveAccountRequest(account="team", parent="other")).account
    assert (moved.parent, moved.path) == ("acme", "acme/team")
    assert list(moved.parents) == [
        pb.ParentEdge(parent="acme", start_time=edge(0)),
        pb.ParentEdge(parent="other", start_time=edge(1)),
    ]
    request = pb.ListAccountsRequest(account="other")
    assert paths(admin.call("ListAccounts", request)) == ["other"]
    account_server.clock.now = BEGIN + INTERVAL_MS
    account = admin.call("GetAccount", pb.GetAccountRequest(account="agent")).account
    assert account.path == "other/team/agent"
    assert paths(admin.call("ListAccounts", request)) == [
        "other",
        "other/team",
        "other/team/agent",
    ]


def test_move_account__to_the_top_on_a_date(account_server: AccountServer, admin: Caller) -> None:
    """An empty parent makes a root, from the date on; repeating it later changes nothing."""
    request = pb.MoveAccountRequest(account="team", start_time=edge(96))
    moved = admin.call("MoveAccount", request).account
    assert moved.parents[-1] == pb.ParentEdge(start_time=edge(96))
    account_server.clock.now = BEGIN + 97 * INTERVAL_MS
    again = admin.call("MoveAccount", request).account
    assert (again.path, list(again.parents)) == ("team", list(moved.parents))


@pytest.mark.parametrize(
    ("account", "parent", "start", "reason"),
    [
        ("team", "agent", edge(1), "MOVE_REFUSED"),
        ("team", "team", edge(1), "MOVE_REFUSED"),
        ("team", "other", edge(0), "MOVE_REFUSED"),
        ("team", "other", Timestamp(seconds=edge(1).seconds + 1), "ARGUMENT_INVALID"),
        ("team", "other", Timestamp(seconds=edge(1).seconds, nanos=1), "ARGUMENT_INVALID"),
        ("team", "other", Timestamp(seconds=-900), "ARGUMENT_INVALID"),
        ("team", "other", Timestamp(seconds=2**60 // 900 * 900), "ARGUMENT_INVALID"),
        ("", "other", edge(1), "ARGUMENT_INVALID"),
        ("nobody", "other", edge(1), "ACCOUNT_NOT_FOUND"),
        ("team", "nobody", edge(1), "ACCOUNT_NOT_FOUND"),
    ],
)
def test_move_account__refused(
    still_admin: Caller, account: str, parent: str, start: Timestamp, reason: str
) -> None:
    """A move below itself, into the past or off the grid is refused."""
    request = pb.MoveAccountRequest(account=account, parent=parent, start_time=start)
    assert still_admin.refusal("MoveAccount", request).reason == reason


def test_move_account__handle_is_taken(admin: Caller) -> None:
    """An account does not come beside another of its name."""
    request = pb.CreateAccountRequest(handle="team", account="second", parent="other")
    admin.call("CreateAccount", request)
    refusal = admin.refusal("MoveAccount", pb.MoveAccountRequest(account="team", parent="other"))
    assert refusal.reason == "ACCOUNT_EXISTS"


def test_close_account__leaf_then_parent(admin: Caller) -> None:
    """An account closes after all below it, once, and stays to be seen."""
    request = pb.CloseAccountRequest(account="team")
    refusal = admin.refusal("CloseAccount", request)
    assert (refusal.code, refusal.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "CLOSE_REFUSED",
    )
    admin.call("CloseAccount", pb.CloseAccountRequest(account="agent"))
    closed = admin.call("CloseAccount", request).account
    assert closed.close_time.ToMilliseconds() == NOW
    assert admin.call("GetAccount", pb.GetAccountRequest(account="team")).account == closed
    assert admin.refusal("CloseAccount", request).reason == "CLOSE_REFUSED"


def test_get_account__unknown(still_admin: Caller) -> None:
    """Who may read everything is told that an account does not exist."""
    refusal = still_admin.refusal("GetAccount", pb.GetAccountRequest(account="nobody"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "ACCOUNT_NOT_FOUND")
    refusal = still_admin.refusal("GetAccount", pb.GetAccountRequest())
    assert (refusal.reason, refusal.metadata["field"]) == ("ARGUMENT_INVALID", "account")
