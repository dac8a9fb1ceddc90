"""A meter that nobody reports to, for all commands that only ask it or are refused."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import migrations
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


@pytest.fixture
def with_post(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of one more migration, `post`, that commands know of, in this process and others."""
    package = tmp_path / "with_post" / "migrations"
    made = Path(migrations.__file__).parent
    shutil.copytree(made, package, ignore=shutil.ignore_patterns("__pycache__"))
    newest = migrations.newest()
    name = f"{int(newest[:4]) + 1:04}_post_later"
    text = f'revision = "{name}"\ndown_revision = "{newest}"\n\n\ndef upgrade():\n    pass\n'
    (package / "versions" / f"{name}.py").write_text(text, "utf-8")
    monkeypatch.setattr(migrations, "__file__", str(package / "__init__.py"))
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    return name
