"""The accounts that a fleet reports for when it is not told any: two companies of three teams."""

from typing import Final

from tokenworks.meter.v1.account_service_pb2 import (
    Account,
    CreateAccountRequest,
    ListAccountsRequest,
)
from tokenworks.meter.v1.account_service_pb2_grpc import AccountServiceStub

COMPANIES: Final = ("sim-north", "sim-south")
TEAMS: Final = ("chat", "code", "agents")


def find_or_create_accounts(service: AccountServiceStub) -> tuple[str, ...]:
    """Return the ids of the six teams; those of an earlier run are used again.

    Needs an API key that is admin of the installation; lets grpc.RpcError through.
    """
    teams = []
    for company in COMPANIES:
        root = _find_or_create(service, handle=company, parent=None)
        teams += [_find_or_create(service, handle=team, parent=root) for team in TEAMS]
    return tuple(team.account for team in teams)


def _find_or_create(service: AccountServiceStub, *, handle: str, parent: Account | None) -> Account:
    path = f"{parent.path}/{handle}" if parent else handle
    found = service.ListAccounts(ListAccountsRequest(path=path)).accounts
    if found:
        return found[0]
    request = CreateAccountRequest(handle=handle, parent=parent.account if parent else "")
    return service.CreateAccount(request).account
