"""The worked example of attribution: weights, a cache, idling, and the last millijoule."""

from tests.efficiency.plant import Plant

MEASURED_MJ = 1_000_000
SECONDS = 4
# Active energy by a weight of 1, 0 and 10, and the shares of 75 W of idling.
SHARES_MJ = {"acme": (155_556, 66_667), "bolt": (233_333, 100_000), "crux": (311_111, 133_333)}
SERVED = {
    "acme": {"input": 1_000, "output": 100},
    "bolt": {"output": 300},
    "crux": {"input": 4_000, "cache_read": 9_000},
}


def test_share__worked_vector(plant: Plant) -> None:
    """A real meter shares a kilojoule out as the example does, to the millijoule."""
    plant.draw(MEASURED_MJ, pool="worked", time_ms=SECONDS * 1_000)
    for account, classes in SERVED.items():
        plant.serve(classes, pool="worked", account=account)
    answer = plant.ask("ACCOUNT", pool="worked")
    found = {row.account: (row.energy_mj - row.idle_mj, row.idle_mj) for row in answer.rows}
    assert found == SHARES_MJ
    (pool,) = answer.pools
    assert (pool.measured_mj, pool.attributed_mj, list(pool.unattributed)) == (
        MEASURED_MJ,
        MEASURED_MJ,
        [],
    )
