"""What is issued is kept as it is: rows are the lines of their documents, whatever names say."""

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Final

import pytest
from sqlalchemy import text

from billing.documents.canonical import from_json
from billing.invoicing import ChargeLine
from billing.store.issuing import line_rows
from tests.billing.invoices import VERSION
from tests.billing.issued_town import NOVEMBER_MS, SOLD, an_invoice, issue
from tests.billing.town import Town, town_on
from tests.postgres import Cluster

# What would end a field or a row of COPY, or say that there is none.
_NAMES: Final = ("back\\slash", "\\N", "\\.", "a\tb", "a\nb", "a\r\nb", "漢字 🙂", 'say "no"')


@pytest.fixture(scope="module")
def town(cluster: Cluster) -> Iterator[Town]:
    """A town in November."""
    with cluster.database() as url, town_on(url, now_ms=NOVEMBER_MS) as town:
        town.add_account("acme")
        yield town


@pytest.mark.parametrize("name", _NAMES)
def test_issue_all__keeps_lines_as_they_are(town: Town, name: str) -> None:
    """Every line is kept with its own numbers and all its names, and so is what is no usage."""
    place = _NAMES.index(name)
    version = replace(VERSION, contract=f"odd-{place}", series=f"ODD{place}")
    draft = an_invoice([*SOLD, *SOLD], version=version)
    lines = [
        replace(it, line=number, group=group, model=model)
        for number, (it, group, model) in enumerate(
            zip(draft.lines, ("", name, "", ""), ("m", "m", "m", name), strict=True), start=1
        )
    ]
    charge = ChargeLine(
        line=5,
        charge_id="c",
        text=name,
        quantity=Decimal(2),
        unit=name,
        unit_price=Decimal("1E+1"),
        exact=Decimal(20),
        billed=Decimal(20),
        residue=Decimal(0),
        tax=None,
    )
    number = issue(town, replace(draft, lines=tuple(lines), charges=(charge,)))
    with town.lent.connect() as connection:
        values = {"number": number}
        found = connection.execute(
            text("SELECT document FROM issued_invoices WHERE number = :number"), values
        ).scalar_one()
        rows = connection.execute(
            text("SELECT * FROM issued_lines WHERE number = :number ORDER BY line"), values
        ).mappings()
        kept = [dict(it) for it in rows]
    assert kept == list(line_rows(from_json(bytes(found))))
    assert [it["model"] for it in kept] == ["m", "m", "m", name, ""]
    assert [it["group_account"] for it in kept] == ["", name, "", "", ""]
