"""Invoices as a customer's login sees them."""

from collections.abc import Iterator

import psycopg
import pytest

from meter.examination import grant_reader
from tests.billing.test_closing import close, ms, use
from tests.billing.town import Town, book_toml, contract_toml, town_on


@pytest.fixture
def town(database_url: str) -> Iterator[Town]:
    """A town in early November: acme with a team, and other; each has a contract."""
    with town_on(database_url, now_ms=ms("2026-11-05")) as town:
        town.add_account("acme")
        town.add_account("team", moves=((0, "acme"),))
        town.add_account("other")
        town.import_book(book_toml())
        town.set_contract(contract_toml())
        town.set_contract(contract_toml("of-other", covers="other", series="OT"))
        yield town


def test_invoices__of_the_subtree_alone(town: Town) -> None:
    """A customer's login sees the invoices that bill its accounts alone, with lines, no others."""
    use(town)
    use(town, account="other")
    close(town)
    seen = {}
    with psycopg.connect(town.database_url, autocommit=True) as connection:
        for account in ("acme", "team", "other"):
            login = f"reads_{account}"
            connection.execute(f"CREATE ROLE {login} LOGIN PASSWORD 'x'".encode())
            try:
                grant_reader(town.database_url, login, account_id=account)
                connection.execute(f"SET SESSION AUTHORIZATION {login}".encode())
                seen[account] = [
                    connection.execute(
                        f"SELECT DISTINCT left(number, 2) FROM tenant.{view}".encode()
                    ).fetchall()
                    for view in ("invoices", "invoice_lines")
                ]
            finally:
                connection.execute("RESET SESSION AUTHORIZATION")
                connection.execute(f"DROP OWNED BY {login}; DROP ROLE {login}".encode())
    assert seen == {"acme": [[("NG",)]] * 2, "team": [[]] * 2, "other": [[("OT",)]] * 2}
