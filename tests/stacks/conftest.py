"""What `make stacks` installs, as fixtures: who asks for one that is missing is skipped."""

from types import ModuleType

import pytest

from tests.stacks.chart import Engine


@pytest.fixture(scope="session")
def helm() -> ModuleType:
    """Helm's own engine."""
    module: ModuleType = pytest.importorskip(
        "helm_python", reason="helm-python-sdk is not installed"
    )
    return module


@pytest.fixture(scope="session")
def engine(helm: ModuleType) -> Engine:
    """The engine with the chart loaded."""
    return Engine(helm)


@pytest.fixture(scope="session")
def kubernetes() -> ModuleType:
    """The schemas of Kubernetes."""
    module: ModuleType = pytest.importorskip(
        "kubernetes_validate", reason="kubernetes-validate is not installed"
    )
    return module
