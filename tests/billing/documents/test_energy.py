"""The words about energy on an invoice: no share is called more than it is, no number is cut."""

from dataclasses import replace
from decimal import Decimal

import pytest

from billing.documents.energy import ENERGY_TITLE, energy_facts
from billing.documents.html import to_html
from billing.documents.table import to_csv
from billing.documents.text import to_text
from billing.energy import InvoiceEnergy, SiteEnergy
from meter.domain.boundary import Boundary
from tests.billing.documents.gallery import SAMPLES

BOARDS = InvoiceEnergy(
    boundary=Boundary.BOARD,
    pools_mj=1_000,
    estimated_mj=0,
    output_tokens=1_000,
    known_output_tokens=1_000,
    sites=(),
    factory_versions=(3,),
)


def words(energy: InvoiceEnergy) -> dict[str, str]:
    """Return what is said, by label."""
    return dict(energy_facts(energy))


def test_energy_facts__all_measured_and_covered() -> None:
    """Where all is known no rest is spoken of."""
    assert words(BOARDS) == {
        "Energy": "0.0000002778 kWh of the accelerators’ boards",
        "Measured": "100 % by counters",
        "Covers": "100 % of the output tokens",
        "Shared by": "weights of the factory’s description, version 3",
    }


@pytest.mark.parametrize(
    ("energy_mj", "said"),
    [
        (1, "0.0000000003 kWh"),
        (1_500_000, "0.0004166667 kWh"),
        (3_599_999_999, "0.9999999997 kWh"),
        (3_600_000_000, "1.000 kWh"),
        (4_444_444_444_444_444, "1,234,567.901 kWh"),
    ],
)
def test_energy_facts__kilowatt_hours(energy_mj: int, said: str) -> None:
    """From one on there are three decimals, below all that tell a millijoule from the next."""
    assert words(replace(BOARDS, pools_mj=energy_mj))["Energy"].startswith(f"{said} of")


@pytest.mark.parametrize(
    ("part", "said"),
    [(0, "0.0 %"), (1, "0.1 %"), (999, "99.9 %"), (1_000, "100 %")],
)
def test_energy_facts__shares_are_rounded_down(part: int, said: str) -> None:
    """Only what is whole is called so, of tokens and of energy, down to the last of a million."""
    energy = replace(BOARDS, known_output_tokens=part, estimated_mj=1_000 - part)
    assert words(energy)["Covers"].startswith(f"{said} of")
    assert words(energy)["Measured"].startswith(f"{said} by")
    almost = replace(BOARDS, output_tokens=10**6, known_output_tokens=10**6 - 1)
    assert words(almost)["Covers"] == (
        "99.9 % of the output tokens; of the others no energy is known"
    )


def test_energy_facts__nothing_generated() -> None:
    """Where nothing was generated no share of it is named."""
    assert "Covers" not in words(replace(BOARDS, output_tokens=0, known_output_tokens=0))


def test_energy_facts__of_a_site() -> None:
    """A site has its PUE with its basis, and its name cannot move the pen."""
    site = SiteEnergy(
        site="os\u202elo", pools_mj=3_600_000_000, pue=Decimal("1.2000"), is_measured=True
    )
    said = words(replace(BOARDS, boundary=Boundary.FACILITY, sites=(site,)))
    assert said["Energy"] == "1.200 kWh of the site, with cooling and losses"
    assert said["PUE"] == "1.2 at os\N{REPLACEMENT CHARACTER}lo, measured"


@pytest.mark.parametrize("name", ["with_energy", "energy_of_little"])
def test_documents__have_the_energy(name: str) -> None:
    """Text and HTML have each word of it, the CSV none, and without it neither has any."""
    invoice = SAMPLES[name]()
    assert invoice.energy is not None
    text = " ".join(to_text(invoice).decode().split())
    page = to_html(invoice).decode()
    for label, said in energy_facts(invoice.energy):
        assert f"{label} {said}" in text
        assert f"<dt>{label}</dt>" in page
        assert f"<dd>{said}</dd>" in page
    without = replace(invoice, energy=None)
    assert to_csv(invoice) == to_csv(without)
    assert ENERGY_TITLE not in to_text(without).decode()
    assert "energy" not in to_html(without).decode()
