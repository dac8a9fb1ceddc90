"""Callers of AccountService with different API keys."""

from collections.abc import Iterator

import pytest

from tests.clock import FakeClock
from tests.wire.account_server import NOW, AccountServer, Caller, account_server_on
from tokenworks.meter.v1 import account_service_pb2 as pb


@pytest.fixture
def account_server(database_url: str) -> Iterator[AccountServer]:
    """A server at NOW."""
    with account_server_on(database_url, clock=FakeClock(NOW)) as running:
        yield running


@pytest.fixture
def admin(account_server: AccountServer) -> Iterator[Caller]:
    """Who may do everything; there are acme, acme/team, acme/team/agent, acme/lab and other."""
    caller = Caller(account_server, account_server.api_key)
    for path in ("acme", "acme/team", "acme/team/agent", "acme/lab", "other"):
        caller.create(path)
    yield caller
    caller.close()


@pytest.fixture
def lead(account_server: AccountServer, admin: Caller) -> Iterator[Caller]:
    """Who may read and administer acme/team and what is below it."""
    key = admin.create_key("team", (pb.PERMISSION_ADMINISTER, "team"), (pb.PERMISSION_READ, "team"))
    caller = Caller(account_server, key.secret)
    yield caller
    caller.close()
