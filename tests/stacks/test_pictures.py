"""The dashboards on a made-up factory: every question is answered, and every picture is whole."""

import shutil
from collections.abc import Iterator
from types import ModuleType

import pytest

from tests.postgres import Cluster
from tests.stacks.pictures.browser import CHROMIUM, find_faults
from tests.stacks.pictures.gallery import Hung, opened_gallery
from tests.stacks.pictures.life import SHORT
from tests.stacks.pictures.page import WIDTH
from tests.stacks.pictures.units import write
from tests.stacks.queries import DASHBOARDS, panels

pytestmark = pytest.mark.stacks
needs_prometheus = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="prometheus is not installed"
)
WRITTEN = [
    (0.0, "none", "0"),
    (2.963, "si:tok/J", "2.96 tok/J"),
    (0.0123, "joule", "12.3 mJ"),
    (27_123.0, "si:tok/s", "27.1 ktok/s"),
    (999.6, "watt", "1,000 W"),
    (12_345.0, "watt", "12.3 kW"),
    (0.5, "kwatth", "500 Wh"),
    (64_123.0, "currencyUSD", "$64.1K"),
    (-0.005, "currencyUSD", "-$0.005"),
    (0.8324, "percentunit", "83.2%"),
    (311e9, "short", "311 Bil"),
    (90.0, "s", "1.5 min"),
    (0.0042, "s", "4.2 ms"),
    (28.4, "eps", "28.4 evt/s"),
    (1.0, "none", "1"),
]


@pytest.fixture(scope="module")
def hung(
    helm: ModuleType, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Hung]]:
    """All dashboards, by name, after some days of the factory."""
    folder = tmp_path_factory.mktemp("gallery")
    with (
        cluster.database() as url,
        opened_gallery(helm, database_url=url, calendar=SHORT, folder=folder) as found,
    ):
        yield {each.name: each for each in found}


@needs_prometheus
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("name", "panel"),
    [(name, panel) for name, board in DASHBOARDS.items() for panel in panels(board)],
    ids=[f"{name}: {panel['title']}" for name, it in DASHBOARDS.items() for panel in panels(it)],
)
def test_panel__shows_something(hung: dict[str, Hung], name: str, panel: dict[str, int]) -> None:
    """Each question is answered by the real Prometheus, or the real database as its reader."""
    assert not hung[name].answers[panel["id"]].is_empty


@needs_prometheus
@pytest.mark.timeout(600)
@pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed")
@pytest.mark.parametrize("name", DASHBOARDS)
def test_picture__is_whole(
    hung: dict[str, Hung], name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Nothing sticks out of its panel, is cut, or lies on something else."""
    each = hung[name]
    folder = tmp_path_factory.mktemp("browser")
    assert find_faults(each.page, folder=folder, width=WIDTH, height=each.height) == []


@pytest.mark.parametrize(("value", "unit", "text"), WRITTEN)
def test_number__is_written_as_grafana_does(value: float, unit: str, text: str) -> None:
    """Three digits count, with the prefix or the word of the unit."""
    assert write(value, unit=unit) == text
