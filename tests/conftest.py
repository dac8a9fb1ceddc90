"""Fixtures for every test: a scrubbed environment, a real Postgres, a real meter."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres import Cluster, running_cluster
from tests.running_meter import RunningMeter, running_meter_on

# Read before the scrubbing below: the programs of the Postgres that the whole run is to use.
_PG_BIN = os.environ.get("TOKENWORKS_TEST_PG_BIN")


def pytest_configure() -> None:
    """Forget the settings of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith("TOKENWORKS_")]:
        del os.environ[name]


@pytest.fixture(scope="session")
def pg_bin() -> Path | None:
    """The folder of the Postgres programs to test with; None for the embedded ones."""
    return Path(_PG_BIN) if _PG_BIN else None


@pytest.fixture(scope="session")
def cluster(pg_bin: Path | None) -> Iterator[Cluster]:
    """The run's Postgres, with the migrated template."""
    with running_cluster(bin_directory=pg_bin) as running:
        running.migrate_template()
        yield running


@pytest.fixture
def private_cluster(pg_bin: Path | None) -> Iterator[Cluster]:
    """A Postgres for one test alone, which may stop and start it."""
    with running_cluster(bin_directory=pg_bin) as running:
        running.migrate_template()
        yield running


@pytest.fixture
def database_url(cluster: Cluster) -> Iterator[str]:
    """A migrated, empty database for one test."""
    with cluster.database() as url:
        yield url


@pytest.fixture
def running_meter(database_url: str, tmp_path: Path) -> Iterator[RunningMeter]:
    """A meter process for one test, over a database of its own."""
    with running_meter_on(database_url, folder=tmp_path) as running:
        yield running
