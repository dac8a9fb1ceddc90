"""Contracts from TOML: what is read."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from billing.contract_file import read_contract
from billing.contracts import Party, PriceBy
from billing.money import Currency, find_currency
from billing.price_book import Override
from meter.domain.boundary import Boundary
from meter.domain.times import to_ms
from meter.domain.tokens import Mode, TokenClass
from meter.toml_file import FileFaults
from tests.billing.terms import (
    TIERS,
    a_contract,
    check_contract_faults,
    contract_text,
    currency_of_book,
    read_for_acme,
)

EVERYTHING = """
from = 2026-10-01T00:00:00
until = 2027-10-01T00:00:00
zone = "Europe/Berlin"
price_by = "served"
covers = ["acme/team", "/acme"]
seller = "nimbus_gmbh"
[parties.nimbus_gmbh]
name = "Nimbus GmbH"
address = ["Torstr. 1", "10119 Berlin", "Germany"]
tax_id = "DE123456789"
[parties.acme]
name = "ACME SA"
address = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"]
[document]
kind = "invoice"
po = "4500017731"
terms_days = 0
energy = "facility"
[[overrides]]
models = ["glm-5.1", "lora/*"]
tiers = ["high"]
modes = ["batch"]
classes = ["input", "output"]
factor = "0.85"
[[overrides]]
prices = { output = "3.20", all = "0" }
"""


def test_read_contract__everything() -> None:
    """A contract that uses each key becomes what it says."""
    contract = a_contract(EVERYTHING)
    assert (contract.contract, contract.book, contract.currency) == (
        *("acme-2026", "retail", Currency("USD", 2)),
    )
    assert contract.start_ms == to_ms(datetime(2026, 9, 30, 22, tzinfo=UTC))
    assert contract.end_ms == to_ms(datetime(2027, 9, 30, 22, tzinfo=UTC))
    assert (contract.zone.key, contract.price_by) == ("Europe/Berlin", PriceBy.SERVED)
    assert contract.covers == ("team", "acme")
    assert contract.seller == Party(
        party_id="nimbus_gmbh",
        name="Nimbus GmbH",
        address=("Torstr. 1", "10119 Berlin", "Germany"),
        tax_id="DE123456789",
    )
    assert contract.buyer == Party(
        party_id="acme", name="ACME SA", address=tuple(map(str, range(1, 11))), tax_id=""
    )
    assert (contract.series, contract.po, contract.terms_days) == ("NIMBUS-GMBH", "4500017731", 0)
    assert contract.energy is Boundary.FACILITY
    assert contract.overrides == (
        Override(
            index=0,
            models=("glm-5.1", "lora/*"),
            tiers=("high",),
            modes=(Mode.BATCH,),
            classes=(TokenClass.INPUT, TokenClass.OUTPUT),
            factor=Decimal("0.85"),
            prices={},
            all=None,
        ),
        Override(
            index=1,
            models=(),
            tiers=(),
            modes=(),
            classes=(),
            factor=None,
            prices={TokenClass.OUTPUT: Decimal("3.20")},
            all=Decimal(0),
        ),
    )


def test_read_contract__least() -> None:
    """What a contract leaves out is open, by the model that was asked for, and due in 30 days."""
    contract = a_contract()
    assert (contract.end_ms, contract.price_by) == (None, PriceBy.REQUESTED)
    assert (contract.series, contract.po, contract.terms_days) == ("NIMBUS", "", 30)
    assert contract.energy is None
    assert contract.overrides == ()
    assert a_contract("[document]\nterms_days = 365").terms_days == 365
    assert contract.covers == ("acme",)


@pytest.mark.parametrize(
    "key",
    [
        *("format", "contract", "from", "zone", "currency", "book", "covers", "seller", "buyer"),
        "parties",
    ],
)
def test_read_contract__key_is_missing(key: str) -> None:
    """Each key that a contract cannot be without is asked for."""
    with pytest.raises(FileFaults) as caught:
        read_for_acme(contract_text(without=[key]))
    found = [tuple(it) for it in caught.value.faults]
    assert (1, key, "is missing") in found
    others = [place for _, place, _ in found if place != key]
    assert others == {"seller": ["parties.nimbus"], "buyer": ["parties.acme"]}.get(key, [])


def test_read_contract__all_faults_at_once() -> None:
    """One reading tells all that is wrong, wherever it is, in the order of the lines."""
    check_contract_faults(
        contract_text(
            """
contract = "Acme"  #! contract: must match
zone = "Mars"  #! zone: no time zone
currency = "EUR"  #! currency: "retail" is in USD
price_by = "asked"  #! price_by: no name of a model
covers = ["nobody"]
seller = "acme"
buyer = "acme"  #! buyer: must be another party than the seller
[document]
series = "ng"  #! document.series: must match
[[overrides]]  #! overrides[0]: either a `factor` or `prices`
models = []  #! overrides[0].models: is empty
""",
            without=["parties"],
        ).replace("format = 1", "format = 1  #! parties: is missing")
    )


def test_read_contract__finds_accounts_as_it_begins() -> None:
    """What a contract covers is looked up as it is called when the contract begins."""
    asked = []

    def find_account(written: str, at_ms: int) -> str:
        asked.append((written, at_ms))
        return "acme"

    read_contract(
        contract_text("from = 2026-10-01T00:00:00\nzone = 'Europe/Berlin'"),
        tiers=TIERS,
        find_account=find_account,
        find_currency_of_book=currency_of_book,
    )
    assert asked == [("acme", to_ms(datetime(2026, 9, 30, 22, tzinfo=UTC)))]


def test_read_contract__currency_with_other_decimals() -> None:
    """A contract in yen is one when its book is."""
    contract = read_contract(
        contract_text('currency = "JPY"'),
        tiers=TIERS,
        find_account=lambda written, _: written,
        find_currency_of_book=lambda _: find_currency("JPY"),
    )
    assert contract.currency == Currency("JPY", 0)


def test_read_contract__again_when_other_tiers_are_sold() -> None:
    """A contract that was taken in is read again whatever tiers are sold by then."""
    text = contract_text('[[overrides]]\ntiers = ["gold"]\nfactor = "1"')
    assert read_for_acme(text, tiers=None).overrides[0].tiers == ("gold",)
    with pytest.raises(FileFaults):
        read_for_acme(text)
    # High was no longer all that was sold when the second one was written.
    later = contract_text(
        '[[overrides]]\ntiers = ["high"]\nfactor = "1"\n[[overrides]]\nfactor = "2"'
    )
    assert read_for_acme(later, tiers=None) == read_for_acme(later)
