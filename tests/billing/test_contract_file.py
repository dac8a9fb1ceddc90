"""Contracts from TOML: what is read."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from billing.charges import Charge
from billing.contract_file import read_contract
from billing.contracts import ClosingTerms, Party, PriceBy
from billing.money import Currency, find_currency
from billing.price_book import Override
from billing.tax import REVERSE_CHARGE_NOTE, Tax
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
bank = ["IBAN DE02 1203 0000 0000 2020 51", "BIC BYLADEM1001"]
group_by = "account"
minimum = "1.00"
zero = true
[tax]
category = "S"
rate = "19"
note = "VAT"
[[charges]]
id = "support"
text = "Support, 24 hours a day"
price = "1500.00"
every = "month"
[[charges]]
id = "setup"
text = "Setup"
quantity = "2.5"
unit = "days"
price = "800"
on = 2026-10-15
tax = { category = "E", note = "Exempt" }
[closing]
collect_hours = 24
hold_first = true
hold_jump = "2.5"
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


def test_read_contract__everything_beside_tokens() -> None:
    """What a contract says of documents, taxes, charges and the close becomes what it says."""
    contract = a_contract(EVERYTHING)
    assert contract.bank == ("IBAN DE02 1203 0000 0000 2020 51", "BIC BYLADEM1001")
    assert (contract.by_account, contract.minimum, contract.zero_documents) == (
        *(True, Decimal("1.00"), True),
    )
    assert contract.tax == Tax(category="S", rate=Decimal(19), note="VAT")
    assert contract.charges == (
        Charge(
            charge_id="support",
            text="Support, 24 hours a day",
            quantity=Decimal(1),
            unit="",
            unit_price=Decimal("1500.00"),
            on=None,
            tax=None,
        ),
        Charge(
            charge_id="setup",
            text="Setup",
            quantity=Decimal("2.5"),
            unit="days",
            unit_price=Decimal(800),
            on=date(2026, 10, 15),
            tax=Tax(category="E", rate=Decimal(0), note="Exempt"),
        ),
    )
    assert contract.closing == ClosingTerms(
        collect_hours=24, hold_first=True, hold_jump=Decimal("2.5")
    )


def test_read_contract__least() -> None:
    """What a contract leaves out is open, by the model that was asked for, and due in 30 days."""
    contract = a_contract()
    assert (contract.end_ms, contract.price_by) == (None, PriceBy.REQUESTED)
    assert (contract.series, contract.po, contract.terms_days) == ("NIMBUS", "", 30)
    assert contract.energy is None
    assert contract.overrides == ()
    assert (contract.tax, contract.charges, contract.bank) == (None, (), ())
    assert (contract.by_account, contract.minimum, contract.zero_documents) == (
        False,
        Decimal(0),
        False,
    )
    assert contract.closing == ClosingTerms(
        collect_hours=72, hold_first=False, hold_jump=Decimal(3)
    )
    assert a_contract("[document]\nterms_days = 365").terms_days == 365
    assert contract.covers == ("acme",)


def test_read_contract__reverse_charge() -> None:
    """Where the buyer owes the tax, an invoice says so, in the contract's words if it has any."""
    parties = """
[parties.nimbus]
name = "N"
address = ["N"]
tax_id = "DE1"
[parties.acme]
name = "A"
address = ["A"]
tax_id = "FR2"
[tax]
category = "AE"
"""
    tax = a_contract(parties).tax
    assert tax == Tax(category="AE", rate=Decimal(0), note=REVERSE_CHARGE_NOTE)
    own = a_contract(f'{parties}note = "Autoliquidation"').tax
    assert own == Tax(category="AE", rate=Decimal(0), note="Autoliquidation")


@pytest.mark.parametrize(
    ("zone", "start", "until", "billed"),
    [
        ("UTC", "2026-10-15T23:45:00", "", True),
        ("UTC", "2026-10-16T00:00:00", "", False),
        ("UTC", "2026-01-01T00:00:00", "2026-10-15T00:15:00", True),
        ("UTC", "2026-01-01T00:00:00", "2026-10-15T00:00:00", False),
        # The day is the zone's own: it begins at 11:00 of the day before in UTC.
        ("Pacific/Auckland", "2026-01-01T00:00:00", "2026-10-15T00:15:00", True),
    ],
)
def test_read_contract__charge_on_a_day(zone: str, start: str, until: str, *, billed: bool) -> None:
    """A charge of a day is refused where its version is in force at no time of it."""
    end = f"until = {until}\n" if until else ""
    never = "" if billed else "  #! charges[0].on: never billed"
    body = (
        f'zone = "{zone}"\nfrom = {start}\n{end}[[charges]]\nid = "fee"\ntext = "Fee"\n'
        f'price = "1"\non = 2026-10-15{never}'
    )
    if billed:
        assert a_contract(body).charges[0].on == date(2026, 10, 15)
    else:
        check_contract_faults(contract_text(body))


def test_read_contract__jumps_that_are_never_held() -> None:
    """A jump of 0 is one that holds nothing."""
    assert a_contract('[closing]\nhold_jump = "0"').closing.hold_jump is None


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
