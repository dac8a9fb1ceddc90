"""Callers of AccountService with different API keys, and a meter that tests share."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.clock import FakeClock
from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on
from tests.wire.account_server import NOW, AccountServer, Caller, account_server_on
from tests.wire.apart import Apart
from tokenworks.meter.v1 import account_service_pb2 as pb

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="package")
def shared_meter(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningMeter]:
    """A meter for all who leave it as it is; what they report has names of their own."""
    folder = tmp_path_factory.mktemp("shared")
    with cluster.database() as url, running_meter_on(url, folder=folder) as running:
        yield running


@pytest.fixture
def apart(shared_meter: RunningMeter) -> Apart:
    """A session on the shared meter with an account of the test's own, acme."""
    session = Apart(shared_meter, number=next(_NUMBERS))
    session.create_account("acme")
    return session


@pytest.fixture
def account_server(database_url: str) -> Iterator[AccountServer]:
    """A server at NOW."""
    with account_server_on(database_url, clock=FakeClock(NOW)) as running:
        yield running


@pytest.fixture
def admin(account_server: AccountServer) -> Iterator[Caller]:
    """Who may do everything; there are acme, acme/team, acme/team/agent, acme/lab and other."""
    with _administering(account_server) as caller:
        yield caller


@pytest.fixture
def lead(account_server: AccountServer, admin: Caller) -> Iterator[Caller]:
    """Who may read and administer acme/team and what is below it."""
    with _leading(account_server, admin) as caller:
        yield caller


@pytest.fixture(scope="module")
def still_server(cluster: Cluster) -> Iterator[AccountServer]:
    """A server at NOW for all who only ask, or are refused: its accounts and clock stay."""
    with cluster.database() as url, account_server_on(url, clock=FakeClock(NOW)) as running:
        yield running


@pytest.fixture(scope="module")
def still_admin(still_server: AccountServer) -> Iterator[Caller]:
    """The admin of that server, with the same accounts."""
    with _administering(still_server) as caller:
        yield caller


@pytest.fixture(scope="module")
def still_lead(still_server: AccountServer, still_admin: Caller) -> Iterator[Caller]:
    """The lead of that server."""
    with _leading(still_server, still_admin) as caller:
        yield caller


@contextmanager
def _administering(server: AccountServer) -> Iterator[Caller]:
    caller = Caller(server, server.api_key)
    for path in ("acme", "acme/team", "acme/team/agent", "acme/lab", "other"):
        caller.create(path)
    yield caller
    caller.close()


@contextmanager
def _leading(server: AccountServer, admin: Caller) -> Iterator[Caller]:
    key = admin.create_key("team", (pb.ROLE_ADMIN, "team"), (pb.ROLE_READER, "team"))
    caller = Caller(server, key.secret)
    yield caller
    caller.close()
