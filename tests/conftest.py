"""Fixtures for every test: a scrubbed environment, a real Postgres, a real meter."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres import Cluster, running_cluster
from tests.running_meter import RunningMeter, running_meter_on

# Read before the scrubbing below: the programs of the Postgres that the whole run is to use.
_PG_BIN = os.environ.get("TOKENWORKS_TEST_PG_BIN")
# Memory that is a folder, where a system has one. A database is six hundred files, hundreds of
# tests have one of their own, and a disk takes longer for them than the tests for all else.
_MEMORY = Path("/dev/shm")  # noqa: S108 - what is in it has a name that tempfile makes
# Several times what all processes of the tests have there at once.
_MEMORY_BYTES_MIN = 4 << 30


def pytest_configure(config: pytest.Config) -> None:
    """Forget the settings of whoever runs the tests, and have temporary files in memory.

    They stay where TMPDIR says, if it is set.
    """
    for name in [name for name in os.environ if name.startswith("TOKENWORKS_")]:
        del os.environ[name]
    if "TMPDIR" in os.environ or not _takes_all(_MEMORY):
        return
    folder = tempfile.mkdtemp(prefix="tw-", dir=_MEMORY)
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    # Postgres does not run as root.
    Path(folder).chmod(0o755)
    os.environ["TMPDIR"] = tempfile.tempdir = folder


def _takes_all(folder: Path) -> bool:
    """Whether there is such a folder, with room, and what lies in it can be run."""
    if not folder.is_dir() or os.statvfs(folder).f_flag & os.ST_NOEXEC:
        return False
    return shutil.disk_usage(folder).free >= _MEMORY_BYTES_MIN


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
