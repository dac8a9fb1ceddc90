"""A meter that nobody reports to, for all commands that only ask it or are refused."""

from collections.abc import Iterator

import pytest

from tests.cli.shell import Shell, shell_of
from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on


@pytest.fixture(scope="package")
def empty_meter(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningMeter]:
    """A meter without usage; there are acme, acme/team and other."""
    folder = tmp_path_factory.mktemp("empty")
    with cluster.database() as url, running_meter_on(url, folder=folder) as running:
        shell_of(running)
        yield running


@pytest.fixture
def empty_shell(empty_meter: RunningMeter) -> Shell:
    """A shell of that meter."""
    return Shell(empty_meter.target, empty_meter.api_key)
