"""The worked example of attribution: weights, a cache, idling, and the last millijoule."""

from tests.efficiency.noon import WORKED_MJ
from tests.efficiency.plant import Plant

# Active energy by a weight of 1, 0 and 10, and the shares of 75 W of idling.
SHARES_MJ = {"acme": (155_556, 66_667), "bolt": (233_333, 100_000), "crux": (311_111, 133_333)}


def test_share__worked_vector(plant: Plant) -> None:
    """A real meter shares a kilojoule out as the example does, to the millijoule."""
    answer = plant.ask("ACCOUNT", pool="worked")
    found = {row.account: (row.energy_mj - row.idle_mj, row.idle_mj) for row in answer.rows}
    assert found == SHARES_MJ
    (pool,) = answer.pools
    assert (pool.measured_mj, pool.attributed_mj, list(pool.unattributed)) == (
        WORKED_MJ,
        WORKED_MJ,
        [],
    )
