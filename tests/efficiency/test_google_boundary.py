"""The energy of a median prompt, as Google took it apart: boards, hosts, idling, and the site."""

from decimal import Decimal

from meter.domain.units import EnergyUnit, exactly
from tests.efficiency.noon import (
    METERED_MJ,
    PROMPT_BOARDS_MJ,
    PROMPT_HOSTS_MJ,
    PROMPTS,
    SITE_MJ,
)
from tests.efficiency.plant import BOARD, HOST, Plant
from tests.efficiency.published import GOOGLE_PERCENT, GOOGLE_PUE, GOOGLE_WATT_HOURS
from tokenworks.meter.v1 import energy_service_pb2 as pb


def test_prompt__from_board_to_site(plant: Plant) -> None:
    """A prompt's 864 J come out of counters, idle watts and PUE, and its parts as published."""
    boards, hosts = (plant.ask(pool="gemini", boundary=boundary) for boundary in (BOARD, HOST))
    (board_row,), (host_row,) = boards.rows, hosts.rows
    (site,) = (it for it in hosts.sites if it.site == "mountain-view")
    assert (Decimal(site.pue), site.basis) == (Decimal(GOOGLE_PUE), pb.PUE_BASIS_CONFIGURED)
    facility_mj = host_row.energy_mj * Decimal(site.pue)
    published = exactly(GOOGLE_WATT_HOURS, EnergyUnit.WATT_HOUR, to=EnergyUnit.MILLIJOULE)
    assert published == 864_000
    assert (facility_mj / PROMPTS).quantize(Decimal(1)) == published
    parts_mj: dict[str, Decimal | int] = {
        "accelerators": board_row.energy_mj - board_row.idle_mj,
        "hosts": host_row.energy_mj - board_row.energy_mj,
        "idle": board_row.idle_mj,
        "overhead": facility_mj - host_row.energy_mj,
    }
    assert sum(parts_mj.values()) == facility_mj
    assert {name: round(100 * part / facility_mj) for name, part in parts_mj.items()} == (
        GOOGLE_PERCENT
    )


def test_boundaries__are_not_added_up(plant: Plant) -> None:
    """What a host took holds what its boards took: an answer is of the one or of the other."""
    for boundary, energy_mj in ((BOARD, PROMPT_BOARDS_MJ), (HOST, PROMPT_HOSTS_MJ)):
        (pool,) = plant.ask(pool="gemini", boundary=boundary).pools
        assert (pool.boundary, pool.measured_mj) == (boundary, energy_mj)


def test_site__with_a_meter(plant: Plant) -> None:
    """A measured PUE is the site's meter by hosts, or boards where no host is metered."""
    (site,) = (it for it in plant.ask().sites if it.site == "metered")
    machines_mj = METERED_MJ["hosts"] + METERED_MJ["other boards"]
    assert (site.facility_mj, site.pools_mj) == (SITE_MJ, machines_mj)
    assert (Decimal(site.pue), site.basis) == (Decimal("1.25"), pb.PUE_BASIS_MEASURED)
