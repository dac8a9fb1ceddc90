"""The month's bills: issued by the command, listed, one shown, a line of it explained, all kept."""

import json
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from cli.connection import Client
from cli.demo.world import MONTH
from tokenworks.billing.v1 import billing_service_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """An invoice in short; `lines` are those of its JSON. `account` is the first it covers."""

    number: str
    account: str
    currency: str
    total: str
    lines: list[dict[str, Any]]

    @property
    def amount(self) -> Decimal:
        """The total as a number."""
        return Decimal(self.total)

    def find_line(self, **fields: str) -> int | None:
        """Return the number of the first line with these fields, None without one."""
        return next(
            (
                int(line["line"])
                for line in self.lines
                if all(line[name] == value for name, value in fields.items())
            ),
            None,
        )


def read_bills(client: Client) -> list[Bill]:
    """Return the month's invoices by number."""
    listed = client.billing.ListInvoices(pb.ListInvoicesRequest(month=MONTH)).invoices
    return [_read(client, summary) for summary in listed]


def keep_pages(client: Client, bills: list[Bill], *, folder: Path) -> None:
    """Write each invoice as a page of HTML into the folder."""
    folder.mkdir()
    for bill in bills:
        request = pb.GetInvoiceRequest(number=bill.number, format=pb.DOCUMENT_FORMAT_HTML)
        page = client.billing.GetInvoice(request).document
        (folder / f"{bill.number}.html").write_bytes(page)


def _read(client: Client, summary: pb.InvoiceSummary) -> Bill:
    request = pb.GetInvoiceRequest(number=summary.number, format=pb.DOCUMENT_FORMAT_JSON)
    document = json.loads(client.billing.GetInvoice(request).document)
    return Bill(
        number=summary.number,
        account=summary.account,
        currency=summary.currency,
        total=summary.total,
        lines=document["lines"],
    )
