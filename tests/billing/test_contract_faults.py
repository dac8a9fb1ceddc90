"""What can be wrong with a contract, each with its line and the way out."""

import pytest

from billing.limits import MODELS_LISTED_MAX, OVERRIDES_MAX
from meter.toml_file import FileFaults
from tests.billing.terms import (
    a_contract,
    cases,
    check_contract_faults,
    contract_text,
)

CONTRACT_FAULTS = r"""
surprise = 1  #! surprise: no such key; here are format, contract
---
format = 2  #! format: must be 1
---
contract = "a b"  #! contract: must match
---
contract = ""  #! contract: is empty
---
contract = "a\u0007"  #! contract: cannot be printed
---
from = 2026-10-01T00:00:00Z  #! from: has an offset
---
from = 2026-10-01T00:07:00  #! from: are 2026-10-01T00:00:00 and 2026-10-01T00:15:00
---
zone = "Europe/Berlin"
from = 2026-03-29T02:30:00  #! from: went over it, to 2026-03-29T03:00:00
---
until = 2026-10-01  #! until: must be a date with a time
---
until = 2026-10-01T00:07:00  #! until: not on a 15-minute edge
---
until = 2026-01-01T00:00:00  #! until: must be after `from`
---
from = 2026-10-01T00:07:00  #! from: not on a 15-minute edge
until = 2026-01-01T00:00:00
---
until = 2025-01-01T00:00:00  #! until: must be after `from`
---
zone = "Europe/Berlim"  #! zone: no time zone
---
currency = "XAU"  #! currency: no currency that can be paid in
---
currency = "EUR"  #! currency: must be the book's: "retail" is in USD
---
book = "wholesale"  #! book: no book "wholesale"; import it first: tokenworks prices import
---
book = 1  #! book: must be a text
---
price_by = "asked"  #! price_by: is no name of a model; there are requested, served
---
covers = []  #! covers: is empty
---
covers = "acme"  #! covers: must be a list
---
covers = [1]  #! covers[0]: must be a text
---
covers = [""]  #! covers[0]: is empty
---
covers = ["acme", "nobody"]  #! covers[1]: no account "nobody" when the contract begins
---
covers = ["acme", "acme"]  #! covers[1]: is here twice
---
covers = ["acme", "id:acme"]  #! covers[1]: "id:acme" is the account that "acme" is
---
seller = "acme"
buyer = "acme"  #! buyer: another party than the seller
[parties.acme]
name = "A"
address = ["B"]
---
seller = "nobody"  #! seller: no such party; write a table [parties.nobody]
[parties.acme]
name = "A"
address = ["B"]
---
seller = "No Body"  #! seller: must match
[parties.acme]
name = "A"
address = ["B"]
---
seller = "No Body"  #! seller: must match
buyer = "No One"  #! buyer: must match
[parties]
---
parties = 1  #! parties: must be a table
"""


PARTY_FAULTS = r"""
[parties]
nimbus = { name = "N", address = ["N"] }
acme = { name = "A", address = ["A"] }
third = { name = "T", address = ["T"] }  #! parties.third: is neither the seller nor the buyer
"The Third" = { name = "T", address = ["T"] }  #! parties."The Third": its name must match
---
[parties]
nimbus = { name = "N", address = ["N"] }
acme = 1  #! parties.acme: must be a table
---
[parties.nimbus]  #! parties.nimbus.name: is missing
address = ["N"]
phone = "1"  #! parties.nimbus.phone: no such key; here are name, address, tax_id
[parties.acme]  #! parties.acme.address: is missing
name = "A"
---
[parties.nimbus]
name = ""  #! parties.nimbus.name: is empty
address = []  #! parties.nimbus.address: is empty
tax_id = ""  #! parties.nimbus.tax_id: is empty
[parties.acme]
name = "A\u0000"  #! parties.acme.name: cannot be printed
address = "1 rue X"  #! parties.acme.address: must be a list
tax_id = 1  #! parties.acme.tax_id: must be a text
---
[parties.nimbus]
name = "N"
address = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "9", "9"]  #! parties.nimbus.address: 10
[parties.acme]
name = "A"
address = ["A", " ", "two\nlines"]  #! parties.acme.address[1]: empty #! parties.acme.address[2]: p
---
[document]
kind = "statement"  #! document.kind: must be "invoice", the only kind
---
[document]
series = "ng"  #! document.series: must match
---
[document]
series = "NG/2026"  #! document.series: must match
---
[document]
series = ""  #! document.series: is empty
---
[document]
series = "A23456789012345678901234567890123"  #! document.series: more than 32 characters
---
[document]
po = ""  #! document.po: is empty
---
[document]
po = 4500017731  #! document.po: must be a text
---
[document]
terms_days = 366  #! document.terms_days: must be 0 to 365
---
[document]
terms_days = -1  #! document.terms_days: must be 0 to 365
---
[document]
terms_days = true  #! document.terms_days: must be a whole number
---
[document]
terms_days = "30"  #! document.terms_days: must be a whole number without quotes
---
[document]
group_by = "project"  #! document.group_by: must be "account", the only way to group
---
[document]
by = "account"  #! document.by: no such key; here are kind, series, po, terms_days
---
[document]
bank = []  #! document.bank: is empty
---
[document]
bank = "IBAN DE89"  #! document.bank: must be a list
---
[document]
bank = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "9", "9"]  #! document.bank: more than 10 lines
---
[document]
minimum = 1  #! document.minimum: must be a string to be exact: "1"
---
[document]
minimum = "1.005"  #! document.minimum: has more than the 2 decimals of USD
---
[document]
minimum = "-1"  #! document.minimum: is negative
---
[document]
zero = "yes"  #! document.zero: must be true or false
---
[document]
energy = "rack"  #! document.energy: is no boundary; there are board, host, facility
---
[document]
energy = true  #! document.energy: text
---
document = "invoice"  #! document: must be a table
"""


OVERRIDE_FAULTS = r"""
overrides = []  #! overrides: is empty
---
overrides = [1]  #! overrides[0]: must be a table
---
[overrides]  #! overrides: must be a list
factor = "1"
---
[[overrides]]  #! overrides[0]: must have either a `factor` or `prices`
models = ["m"]
---
[[overrides]]  #! overrides[0]: must have either a `factor` or `prices`
factor = "1"
prices = { all = "1" }
---
[[overrides]]
prices = {}  #! overrides[0].prices: is empty
---
[[overrides]]
prices = "1"  #! overrides[0].prices: must be a table
---
[[overrides]]
prices = { words = "1" }  #! overrides[0].prices.words: no such key; here are input
---
[[overrides]]
prices = { input = 3.2 }  #! overrides[0].prices.input: to be exact: "3.2"
---
[[overrides]]
prices = { input = "-1" }  #! overrides[0].prices.input: is negative
---
[[overrides]]
factor = 0.85  #! overrides[0].factor: to be exact: "0.85"
---
[[overrides]]
factor = "85%"  #! overrides[0].factor: no plain decimal
---
[[overrides]]
factor = "1"
region = "eu"  #! overrides[0].region: no such key; here are models, tiers
---
[[overrides]]
factor = "1"
tiers = ["gold"]  #! overrides[0].tiers[0]: no tier that is sold here
---
[[overrides]]
factor = "1"
modes = ["live"]  #! overrides[0].modes[0]: is no mode
---
[[overrides]]
factor = "1"
classes = ["words"]  #! overrides[0].classes[0]: is no token class
---
[[overrides]]
factor = "1"
classes = ["all"]  #! overrides[0].classes[0]: is no token class
---
[[overrides]]
factor = "1"
models = ["m", "m"]  #! overrides[0].models[1]: is here twice
---
[[overrides]]
factor = "1"
models = ["**"]  #! overrides[0].models[0]: write one `*`
---
[[overrides]]
classes = ["input"]
[overrides.prices]
input = "1"
output = "1"  #! overrides[0].prices.output: never applies: the override is for input only
"""


@pytest.mark.parametrize(
    "body",
    [*cases(CONTRACT_FAULTS), *cases(PARTY_FAULTS), *cases(OVERRIDE_FAULTS)],
)
def test_read_contract__fault(body: str) -> None:
    """What is wrong with a contract is told with its line, its place and the way out."""
    check_contract_faults(contract_text(body))


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (f'contract = "{"a" * 65}"', "contract"),
        (f'covers = ["{"a" * 1044}"]', "covers[0]"),
        (f'[document]\npo = "{"1" * 201}"', "document.po"),
        (f'[[overrides]]\nfactor = "1"\nmodels = ["{"a" * 129}"]', "overrides[0].models[0]"),
    ],
)
def test_read_contract__too_long(body: str, place: str) -> None:
    """Each text of a contract has a limit."""
    with pytest.raises(FileFaults, match="more than") as caught:
        a_contract(body)
    assert [it.place for it in caught.value.faults] == [place]


def test_read_contract__seller_of_a_long_id() -> None:
    """A seller whose id makes no series has to be given one."""
    party = '{ name = "N", address = ["N"] }'
    body = f'seller = "{"n" * 33}"\n[parties]\n{"n" * 33} = {party}\nacme = {party}\n'
    with pytest.raises(FileFaults) as caught:
        a_contract(body)
    assert [it.place for it in caught.value.faults] == ["document.series"]
    assert a_contract(body.replace("n" * 33, "n" * 32)).series == "N" * 32
    assert a_contract(f'{body}[document]\nseries = "N-1"').series == "N-1"


@pytest.mark.parametrize(
    ("earlier", "later", "never"),
    [
        ("", "", True),
        ("", 'models = ["m"]\ntiers = ["high"]\nmodes = ["batch"]\nclasses = ["input"]', True),
        ('models = ["m"]', "", False),
        ('models = ["m"]', 'models = ["m"]', True),
        ('models = ["m"]', 'models = ["m", "n"]', False),
        ('models = ["m", "n"]', 'models = ["n"]', True),
        ('models = ["l*"]', 'models = ["lora/*", "l"]', True),
        ('models = ["lora/*"]', 'models = ["l*"]', False),
        ('models = ["*"]', 'models = ["lora/*"]', True),
        # Nobody knows here whether the one is an adapter of the other.
        ('models = ["m"]', 'models = ["lora/m"]', False),
        ('tiers = ["high"]', 'tiers = ["high"]', True),
        ('tiers = ["high"]', 'tiers = ["high", "free"]', False),
        ('tiers = ["high"]', "", False),
        ('tiers = ["free", "medium", "high", "premium", "ultra"]', "", True),
        ('modes = ["batch"]', "", False),
        ('modes = ["batch", "online"]', "", True),
        ('modes = ["batch"]', 'modes = ["online"]', False),
        ('classes = ["input"]', "", False),
        ('classes = ["input", "output"]', 'classes = ["output"]', True),
        ('classes = ["input"]', 'classes = ["output"]', False),
    ],
)
def test_read_contract__override_that_never_applies(
    earlier: str, later: str, *, never: bool
) -> None:
    """An override is refused when one before it is for all that it is for, and only then."""
    expected = "  #! overrides[1]: never applies: the override of line 10 comes" if never else ""
    body = f"[[overrides]]\nfactor = '1'\n{earlier}\n[[overrides]]{expected}\nfactor = '1'\n{later}"
    if never:
        check_contract_faults(contract_text(body))
    else:
        assert len(a_contract(body).overrides) == 2


@pytest.mark.parametrize(
    ("earlier", "later", "never"),
    [
        ('prices = { input = "1" }', 'prices = { input = "2" }', True),
        ('prices = { input = "1" }', 'prices = { input = "2", output = "2" }', False),
        ('prices = { input = "1" }', 'factor = "1"', False),
        ('prices = { all = "1" }', 'factor = "1"', True),
        ('prices = { all = "1" }', 'prices = { input = "1" }', True),
        ('prices = { input = "1" }', 'prices = { all = "1" }', False),
        ('prices = { input = "1" }', 'factor = "1"\nclasses = ["input"]', True),
        ('prices = { all = "1" }\nclasses = ["input"]', 'factor = "1"', False),
    ],
)
def test_read_contract__prices_that_never_apply(earlier: str, later: str, *, never: bool) -> None:
    """Prices are for the classes that they name, and leave all others to the next override."""
    expected = "  #! overrides[1]: never applies: the override of line 10 comes" if never else ""
    body = f"[[overrides]]\n{earlier}\n[[overrides]]{expected}\n{later}"
    if never:
        check_contract_faults(contract_text(body))
    else:
        assert len(a_contract(body).overrides) == 2


def test_read_contract__limits() -> None:
    """More overrides, or models that they list, than are compared in seconds are refused."""
    override = '[[overrides]]\nmodels = ["m{0}"]\nfactor = "1"\n'
    many = "".join(override.format(it) for it in range(OVERRIDES_MAX))
    assert len(a_contract(many).overrides) == OVERRIDES_MAX
    with pytest.raises(FileFaults, match="overrides: has more than 200 overrides"):
        a_contract(many + override.format("x"))
    listed = ", ".join(f'"m{it}"' for it in range(MODELS_LISTED_MAX + 1))
    with pytest.raises(FileFaults, match="overrides: lists more than 200 models in all"):
        a_contract(f'[[overrides]]\nmodels = [{listed}]\nfactor = "1"')
