"""Energy from the database onto an invoice: that of what it bills, as known when it was issued."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

import psycopg
import pytest

from billing.documents.canonical import to_json
from billing.energy import InvoiceEnergy
from billing.invoicing import Invoice
from billing.periods import Month
from meter.domain.boundary import Boundary
from meter.store.factories import FactoryStore
from tests.billing.town import Town, TownEvent, book_toml, contract_toml, town_on

OCTOBER: Final = Month(2026, 10)
START_MS: Final = int(datetime(2026, 10, 10, tzinfo=UTC).timestamp() * 1000)
FACTORY: Final = """
format = 1
from = 2026-10-20T00:00:00Z
[sites.oslo]
contracted_watts = 1_000_000
pue = "1.25"
[pools.h100]
site = "oslo"
hardware = "H100"
"""


@pytest.fixture
def town(database_url: str) -> Iterator[Town]:
    """A town whose acme, its team and other used a pool, and have energy for some of it."""
    with town_on(database_url, now_ms=START_MS + 30 * 86_400_000) as town:
        town.add_account("acme")
        town.add_account("team", moves=((0, "acme"),))
        town.add_account("other")
        town.import_book(book_toml())
        for account in ("acme", "team", "other"):
            town.record(used(account, 1_000))
        town.record(used("acme", 500, pool=""))
        share(database_url, "acme", 2_000_000, estimated_share=10)
        share(database_url, "team", 1_000_000, estimated_share=10)
        share(database_url, "other", 50_000_000, estimated_share=10)
        yield town


def used(account: str, output: int, *, pool: str = "h100") -> TownEvent:
    """Return an event that a pool served."""
    return TownEvent(
        account=account,
        end_ms=START_MS + 1,
        pool=pool,
        classes={"output": output, "input": 3 * output},
    )


def share(
    database_url: str,
    account: str,
    energy_mj: int,
    *,
    boundary: str = "board",
    estimated_share: int = 0,
    revision: int = 1,
) -> None:
    """Keep energy that was attributed to an account; of the pool's, a percentage is estimated."""
    values = {
        "at": START_MS // 1000,
        "account": account,
        "mj": energy_mj,
        "boundary": boundary,
        "estimated": energy_mj * estimated_share // 100,
        "revision": revision,
    }
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO pool_intervals (pool, interval_start)"
            " VALUES ('h100', to_timestamp(%(at)s)) ON CONFLICT DO NOTHING",
            values,
        )
        connection.execute(
            "INSERT INTO energy_intervals AS e (boundary, name, interval_start, measured_mj,"
            " estimated_mj) VALUES (%(boundary)s, 'h100', to_timestamp(%(at)s), %(mj)s,"
            " %(estimated)s) ON CONFLICT (boundary, name, interval_start) DO UPDATE"
            " SET measured_mj = e.measured_mj + EXCLUDED.measured_mj,"
            " estimated_mj = e.estimated_mj + EXCLUDED.estimated_mj",
            values,
        )
        connection.execute(
            "INSERT INTO energy_shares (pool, interval_start, boundary, account_id, sku_id, reason,"
            " revision, energy_mj, factory_version) SELECT 'h100', to_timestamp(%(at)s),"
            " %(boundary)s, %(account)s, sku_id, '', %(revision)s, %(mj)s, 4 FROM skus",
            values,
        )


def contract(boundary: str) -> str:
    """Return acme's contract, whose invoices tell of energy."""
    return contract_toml(zone="UTC", extra=f'energy = "{boundary}"\n')


def preview(town: Town) -> Invoice:
    """Return acme's preview of October."""
    (found,) = town.billing.closing.preview("acme", OCTOBER)
    return found


def issue(town: Town) -> Invoice:
    """Close October and return acme's invoice as it is kept."""
    result = town.billing.closing.close_month(OCTOBER, account_id="acme", dry_run=False)
    (closed,) = result.closed
    assert closed.invoice is not None
    assert closed.invoice.issue is not None
    return town.billing.explaining.get_invoice(closed.invoice.issue.number)


def test_preview__energy_of_boards(town: Town) -> None:
    """The subtree's energy is told and nobody else's; tokens of no pool are not covered."""
    town.set_contract(contract("board"))
    assert preview(town).energy == InvoiceEnergy(
        boundary=Boundary.BOARD,
        pools_mj=3_000_000,
        estimated_mj=300_000,
        output_tokens=2_500,
        known_output_tokens=2_000,
        sites=(),
        factory_versions=(4,),
    )


def test_issue__energy_stays_as_it_was(town: Town, database_url: str) -> None:
    """The invoice has what the preview had, and what is attributed later does not change it."""
    town.set_contract(contract("board"))
    before = preview(town).energy
    issued = issue(town)
    assert issued.energy == before
    share(database_url, "acme", 7_000_000, revision=2)
    assert preview(town).energy != before
    assert issued.issue is not None
    kept = town.billing.explaining.get_invoice(issued.issue.number)
    assert to_json(kept) == to_json(issued)


def test_preview__energy_of_a_facility(town: Town, database_url: str) -> None:
    """A site's energy is its hosts', where they are measured, times the PUE that is configured."""
    town.set_contract(contract("facility"))
    assert preview(town).energy is None
    FactoryStore(town.engine).set(FACTORY, key_id="key_1", now_ms=town.clock.now)
    share(database_url, "acme", 3_000_000, boundary="host")
    share(database_url, "team", 1_600_002, boundary="host")
    energy = preview(town).energy
    assert energy is not None
    (site,) = energy.sites
    assert (site.site, site.pue, site.is_measured) == ("oslo", Decimal("1.25"), False)
    assert (energy.pools_mj, energy.energy_mj, energy.estimated_mj) == (4_600_002, 5_750_003, 0)


@pytest.mark.parametrize("terms", [contract_toml(zone="UTC"), contract("host")])
def test_preview__no_energy(town: Town, terms: str) -> None:
    """Without the term, and where nothing of the kind is known, an invoice has no energy."""
    town.set_contract(terms)
    assert preview(town).energy is None
    assert b'"energy":{' not in to_json(issue(town))


def test_preview__energy_of_a_contract_below(town: Town) -> None:
    """An account with a contract of its own takes its energy along."""
    town.set_contract(contract("board"))
    town.set_contract(contract_toml("of-team", covers="team", zone="UTC", series="TM"))
    energy = preview(town).energy
    assert energy is not None
    assert (energy.pools_mj, energy.output_tokens, energy.known_output_tokens) == (
        *(2_000_000, 1_500, 1_000),
    )


def test_invoice__money_is_the_same(town: Town) -> None:
    """Lines and total are what they would be without any energy."""
    town.set_contract(contract_toml(zone="UTC"))
    without = preview(town)
    town.set_contract(contract("board"))
    with_energy = preview(town)
    assert (with_energy.lines, with_energy.total) == (without.lines, without.total)
