"""What was issued never changes: not for any role of the product, and the owner is found out."""

import hashlib
from collections.abc import Iterator
from decimal import Decimal
from typing import Final

import psycopg
import pytest

from billing.crediting import Wanted
from tests.billing.issued_town import NOVEMBER_MS, Client, doing, new_client
from tests.billing.town import Town, town_on
from tests.postgres import Cluster

TABLES: Final = (
    *("issued_invoices", "issued_lines", "invoice_voids", "invoice_credits", "invoice_papers"),
    *("payments", "audit_entries", "price_books", "contracts"),
)


@pytest.fixture(scope="module")
def town(cluster: Cluster) -> Iterator[Town]:
    """A town in November with an invoice that is paid and credited, and another that is void."""
    with cluster.database() as url, town_on(url, now_ms=NOVEMBER_MS) as town:
        town.add_account("acme")
        client = new_client(town)
        client.credit(Wanted(amount=Decimal("0.10")))
        town.billing.payments.record(
            client.invoice,
            payment_id="p-1",
            amount=Decimal(1),
            currency="USD",
            receive_date=None,
            note="",
            doing=doing(town),
        )
        new_client(town).void()
        yield town


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("role", ["tokenworks_billing", "tokenworks_ingest", "tokenworks_reader"])
def test_issued__no_role_changes_it(town: Town, role: str, table: str) -> None:
    """No role of the product can change a column of what was issued, delete a row, or empty it."""
    columns = town.ask(
        "SELECT column_name FROM information_schema.columns"
        f" WHERE table_name = '{table}' AND is_identity = 'NO'"
    )
    assert columns, table
    tried = [f"UPDATE {table} SET {name} = {name}" for (name,) in columns]
    with psycopg.connect(town.database_url, autocommit=True) as connection:
        connection.execute(f"SET ROLE {role}".encode())
        for statement in (*tried, f"DELETE FROM {table}", f"TRUNCATE {table}"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())


@pytest.mark.parametrize("view", ["invoices", "invoice_lines", "invoice_payments"])
@pytest.mark.parametrize("role", ["tokenworks_billing", "tokenworks_ingest", "tokenworks_reader"])
def test_issued__no_view_lets_it_through(town: Town, role: str, view: str) -> None:
    """Nor through the views that show it."""
    with psycopg.connect(town.database_url, autocommit=True) as connection:
        connection.execute(f"SET ROLE {role}".encode())
        for statement in (f"UPDATE {view} SET number = 'x'", f"DELETE FROM {view}"):
            with pytest.raises(
                (
                    psycopg.errors.InsufficientPrivilege,
                    psycopg.errors.WrongObjectType,
                    psycopg.errors.ObjectNotInPrerequisiteState,
                )
            ):
                connection.execute(statement.encode())


def test_issued__reader_sees_no_rows_but_the_views(town: Town) -> None:
    """The readers' role reads views alone."""
    with psycopg.connect(town.database_url, autocommit=True) as connection:
        connection.execute(b"SET ROLE tokenworks_reader")
        for table in TABLES:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"SELECT * FROM {table}".encode())


def test_document__other_bytes_have_another_hash(town: Town) -> None:
    """Even its owner cannot put other bytes in a document's place under the hash that it has."""
    with (
        psycopg.connect(town.database_url, autocommit=True) as connection,
        pytest.raises(psycopg.errors.CheckViolation),
    ):
        connection.execute(b"UPDATE issued_invoices SET document = document || ' '::bytea")


def test_document__is_the_bytes_that_were_hashed(town: Town) -> None:
    """What is kept as a document's hash is the SHA-256 of the bytes that are given out."""
    for number, sha256 in town.ask("SELECT number, sha256 FROM invoices"):
        ((document,),) = town.ask(f"SELECT document FROM issued_invoices WHERE number = '{number}'")
        assert isinstance(document, bytes)
        assert hashlib.sha256(document).hexdigest() == sha256


def test_change__leaves_the_invoice_as_it_was(town: Town) -> None:
    """Credits, payments and a void change no byte of the invoice, and no row of its lines."""
    client = new_client(town)
    before = _rows(client)
    client.credit(Wanted(amount=Decimal("0.10")))
    client.void()
    assert _rows(client) == before


def _rows(client: Client) -> list[list[tuple[object, ...]]]:
    return [
        client.town.ask(
            f"SELECT t::text FROM {table} t WHERE number = '{client.invoice}' ORDER BY 1"
        )
        for table in ("issued_invoices", "issued_lines")
    ]
