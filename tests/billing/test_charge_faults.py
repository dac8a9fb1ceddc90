"""What can be wrong with taxes, charges and the close in a contract, each with the way out."""

import pytest

from billing.limits import CHARGES_MAX
from meter.toml_file import FileFaults
from tests.billing.terms import a_contract, cases, check_contract_faults, contract_text

TAX_FAULTS = r"""
[tax]  #! tax.category: is missing
rate = "19"
---
[tax]  #! tax.rate: is missing
category = "S"
[parties.nimbus]
name = "N"
address = ["N"]
tax_id = "DE1"
[parties.acme]
name = "A"
address = ["A"]
---
[tax]
category = "S"
rate = 19  #! tax.rate: must be a string to be exact: "19"
[parties]
nimbus = { name = "N", address = ["N"], tax_id = "DE1" }
acme = { name = "A", address = ["A"] }
---
[tax]
category = "S"
rate = "0"  #! tax.rate: must be more than 0
[parties]
nimbus = { name = "N", address = ["N"], tax_id = "DE1" }
acme = { name = "A", address = ["A"] }
---
[tax]
category = "S"
rate = "100.5"  #! tax.rate: at most 100 percent
[parties]
nimbus = { name = "N", address = ["N"], tax_id = "DE1" }
acme = { name = "A", address = ["A"] }
---
[tax]
category = "O"
rate = "0"  #! tax.rate: category O has no rate; leave it out
---
[tax]
category = "X"  #! tax.category: is no category of tax; there are S, Z, E, AE, K, G, O
---
tax = "19"  #! tax: must be a table
---
[tax]
category = "Z"
country = "DE"  #! tax.country: no such key; here are category, rate, note
[parties]
nimbus = { name = "N", address = ["N"], tax_id = "DE1" }
acme = { name = "A", address = ["A"] }
---
[tax]
category = "Z"
[parties]
nimbus = { name = "N", address = ["N"] }  #! parties.nimbus.tax_id: is missing; who charges tax
acme = { name = "A", address = ["A"] }
---
[tax]
category = "Z"
[parties]
nimbus = { name = "N", tax_id = "DE1" }  #! parties.nimbus.address: is missing
acme = { name = "A" }  #! parties.acme.address: is missing
---
[tax]
category = "AE"
[parties]
nimbus = { name = "N", address = ["N"], tax_id = "DE1" }
acme = { name = "A", address = ["A"] }  #! parties.acme.tax_id: is missing; category AE leaves
---
[[charges]]
id = "fee"
text = "Fee"
price = "1"
every = "month"
tax = { category = "K" }
[parties]
nimbus = { name = "N", address = ["N"], tax_id = "DE1" }
acme = { name = "A", address = ["A"] }  #! parties.acme.tax_id: is missing; category K leaves
"""


CHARGE_FAULTS = r"""
charges = []  #! charges: is empty
---
[[charges]]  #! charges[0].id: missing #! charges[0].text: missing #! charges[0].price: missing
every = "month"
---
[[charges]]  #! charges[0]: must have either `every = "month"` or `on`, a date
id = "fee"
text = "Fee"
price = "1"
---
[[charges]]  #! charges[0]: must have either `every = "month"` or `on`, a date
id = "fee"
text = "Fee"
price = "1"
every = "month"
on = 2026-10-15
---
[[charges]]
id = "fee"
text = "Fee"
price = "1"
every = "week"  #! charges[0].every: must be "month", the only rhythm
---
[[charges]]
id = "fee"
text = "Fee"
price = "1"
on = "2026-10-15"  #! charges[0].on: is a text, and must be a date
---
[[charges]]
id = "fee"
text = "Fee"
price = "1"
on = 2026-10-15T00:00:00  #! charges[0].on: is a date or a time, and must be a date, without quotes
---
from = 2026-10-16T00:00:00
[[charges]]
id = "fee"
text = "Fee"
price = "1"
on = 2026-10-15  #! charges[0].on: never billed
---
until = 2026-10-15T00:00:00
[[charges]]
id = "fee"
text = "Fee"
price = "1"
on = 2026-10-15  #! charges[0].on: never billed
---
[[charges]]
id = "fee"
text = "Fee"
price = 1500.00  #! charges[0].price: to be exact: "1500.00"
every = "month"
---
[[charges]]
id = "fee"
text = "Fee"
quantity = "0"  #! charges[0].quantity: is 0; leave the charge out
price = "1"
every = "month"
---
[[charges]]
id = "Fee"  #! charges[0].id: must match
text = ""  #! charges[0].text: is empty
unit = ""  #! charges[0].unit: is empty
price = "1"
every = "month"
---
[[charges]]
id = "fee"
text = "Fee"
price = "1"
every = "month"
[[charges]]  #! charges[1]: has the id of the charge of line 10
id = "fee"
text = "Another"
price = "1"
every = "month"
"""


CLOSING_FAULTS = r"""
closing = 72  #! closing: must be a table
---
[closing]
collect_hours = 121  #! closing.collect_hours: must be 0 to 120
---
[closing]
collect_hours = "72"  #! closing.collect_hours: must be a whole number
---
[closing]
hold_first = 1  #! closing.hold_first: must be true or false
---
[closing]
hold_jump = 3  #! closing.hold_jump: must be a string to be exact: "3"
---
[closing]
hold_jump = "0.5"  #! closing.hold_jump: must be at least "1", or "0": never
---
[closing]
wait = true  #! closing.wait: no such key; here are collect_hours, hold_first, hold_jump
"""


@pytest.mark.parametrize(
    "body", [*cases(TAX_FAULTS), *cases(CHARGE_FAULTS), *cases(CLOSING_FAULTS)]
)
def test_read_contract__contradicts_itself(body: str) -> None:
    """A tax, a charge or a close that contradicts itself is told with its line and the way out."""
    check_contract_faults(contract_text(body))


def test_read_contract__charges_have_a_limit() -> None:
    """More charges than a person writes are refused."""
    charge = '[[charges]]\nid = "c{0}"\ntext = "Fee"\nprice = "1"\nevery = "month"\n'
    many = "".join(charge.format(it) for it in range(CHARGES_MAX))
    assert len(a_contract(many).charges) == CHARGES_MAX
    with pytest.raises(FileFaults, match="charges: has more than 100 charges"):
        a_contract(many + charge.format("x"))
