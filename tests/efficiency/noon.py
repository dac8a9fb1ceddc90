"""What happens in the real meter's factory in its one interval: published points, and bad luck."""

from decimal import Decimal
from typing import Final

from tests.efficiency.plant import FACILITY, HOST, Plant
from tests.efficiency.published import INFERENCE_X, ML_ENERGY
from tests.wire.energy_caller import EDGE_MS

# Of a thousand prompts, in mJ: within the rounding of the four parts that are published.
PROMPTS: Final = 1_000
PROMPT_HOSTS_MJ: Final = 792_660_550
PROMPT_BOARDS_MJ: Final = 580_110_000
# A kilojoule within 4 seconds.
WORKED_MJ: Final = 1_000_000
_WORKED_MS: Final = 4_000
_WORKED: Final = {
    "acme": {"input": 1_000, "output": 100},
    "bolt": {"output": 300},
    "crux": {"input": 4_000, "cache_read": 9_000},
}
# A site with a meter of its own: one pool has hosts that are metered, the other boards alone.
METERED_MJ: Final = {"boards": 300_000, "hosts": 500_000, "other boards": 300_000}
SITE_MJ: Final = 1_000_000
# What a board takes for an interval.
BOARD_MJ: Final = 630_000_000
_SECONDS: Final = EDGE_MS // 1_000


def live(plant: Plant) -> None:
    """Report all of it: each check has pools of its own."""
    _serve_published(plant)
    plant.draw(PROMPT_BOARDS_MJ, pool="gemini")
    plant.draw(PROMPT_HOSTS_MJ, pool="gemini", boundary=HOST)
    plant.serve({"output": 100 * PROMPTS}, pool="gemini")
    plant.draw(WORKED_MJ, pool="worked", time_ms=_WORKED_MS)
    for account, classes in _WORKED.items():
        plant.serve(classes, pool="worked", account=account)
    plant.draw(METERED_MJ["boards"], pool="metered-hosts")
    plant.draw(METERED_MJ["hosts"], pool="metered-hosts", boundary=HOST)
    plant.draw(METERED_MJ["other boards"], pool="metered-boards")
    plant.draw(SITE_MJ, site="metered", boundary=FACILITY)
    # Tokens without energy, energy without tokens, and a pool of which half is seen.
    plant.serve({"output": 500}, pool="dark")
    plant.draw(BOARD_MJ, pool="heater")
    plant.serve({"output": 700}, pool="half-seen")
    plant.draw(BOARD_MJ, pool="half-seen")
    # Two boards that nobody described: the meter came late, or they died.
    for pool, begin_ms, end_ms in (("late", EDGE_MS // 2, 2 * EDGE_MS), ("dead", 0, EDGE_MS // 2)):
        plant.serve({"output": 700}, pool=pool)
        for device in (f"{pool}-1", f"{pool}-2"):
            plant.draw(BOARD_MJ, pool=pool, device=device, begin_ms=begin_ms, time_ms=end_ms)


def _serve_published(plant: Plant) -> None:
    """A quarter of an hour of each row."""
    for it in ML_ENERGY:
        energy_mj = int(Decimal(it.watts) * EDGE_MS)
        for place in range(it.board_count):
            begin_mj, end_mj = (energy_mj * (place + k) // it.board_count for k in (0, 1))
            plant.draw(end_mj - begin_mj, pool=it.name, device=f"{it.name}-{place}")
        output = round(Decimal(it.tokens_per_second) * _SECONDS)
        # Prompts are not in its figures, and take nothing here.
        plant.serve({"input": 12_345, "output": output}, pool=it.name)
    for each in INFERENCE_X:
        plant.draw(int(Decimal(each.kilowatts) * 1_000 * EDGE_MS), pool=f"x-{each.hardware}")
        tokens = int(Decimal(each.tokens_per_second) * _SECONDS)
        # A thousand tokens in, eight thousand out.
        classes = {"input": tokens // 9, "output": tokens - tokens // 9}
        plant.serve(classes, pool=f"x-{each.hardware}")
