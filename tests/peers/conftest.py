"""One meter and one town for all complaints; each test has accounts of its own in them."""

from collections.abc import Iterator

import pytest

from tests.billing.town import Town, town_on
from tests.peers.customers import NOW_MS
from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on
from tests.wire.session import Session


@pytest.fixture(scope="package")
def shared_meter(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningMeter]:
    """A meter that runs again when a test that has killed it is done."""
    folder = tmp_path_factory.mktemp("peers")
    with cluster.database() as url, running_meter_on(url, folder=folder) as running:
        yield running


@pytest.fixture
def session(shared_meter: RunningMeter) -> Session:
    """A session with that meter."""
    return Session(shared_meter)


@pytest.fixture(scope="package")
def town(cluster: Cluster) -> Iterator[Town]:
    """A town on the fifth of November, whose October has ended."""
    with cluster.database() as url, town_on(url, now_ms=NOW_MS) as town:
        yield town
