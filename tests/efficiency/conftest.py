"""A real meter that the checks share, and that they only ask."""

from collections.abc import Iterator

import pytest

from meter.domain.times import to_iso
from tests.efficiency.noon import live
from tests.efficiency.plant import NOON_MS, Plant
from tests.efficiency.published import GOOGLE_PUE
from tests.postgres import Cluster
from tests.running_meter import running_meter_on

# Before anything of that noon is measured.
_FACTORY = f"""
format = 1
from = {to_iso(NOON_MS)}

[sites.mountain-view]
contracted_watts = 1_000_000
pue = "{GOOGLE_PUE}"

[sites.lab]
contracted_watts = 1_000

[sites.metered]
contracted_watts = 1_000_000
pue = "1.5"

[pools.metered-hosts]
site = "metered"
hardware = "H100"

[pools.metered-boards]
site = "metered"
hardware = "H100"

[pools.gemini]
site = "mountain-view"
hardware = "TPU"
idle_watts = "91.6"
idle = "proportional"

[pools.worked]
site = "lab"
hardware = "made up"
idle_watts = "75"
idle = "proportional"

[pools.half-seen]
site = "lab"
hardware = "H100"
device_count = 2

[[weights]]
hardware = "made up"
input = "1"
cached_input = "0"
output = "10"
"""


@pytest.fixture(scope="package")
def plant(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """The factory: described, and lived through."""
    folder = tmp_path_factory.mktemp("plant")
    with cluster.database() as url, running_meter_on(url, folder=folder) as meter:
        plant = Plant(meter)
        assert plant.describe(_FACTORY) == 1
        live(plant)
        plant.settle()
        yield plant
