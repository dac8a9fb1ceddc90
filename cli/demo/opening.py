"""What is agreed before the month and changes within it: accounts, factory, books, contracts."""

from pathlib import Path
from typing import Final

from cli.connection import Client
from cli.demo.teams import Team
from cli.demo.world import BOOKS, CUSTOMERS, FACTORY, MOVE, NEW_BOOK, read_terms
from tokenworks.billing.v1.billing_service_pb2 import ImportPriceBookRequest, SetContractRequest
from tokenworks.meter.v1.account_service_pb2 import (
    ROLE_PRODUCER,
    CreateAccountRequest,
    CreateApiKeyRequest,
    MoveAccountRequest,
    Scope,
)
from tokenworks.meter.v1.energy_service_pb2 import SetFactoryRequest

BOOKS_FOLDER: Final = "books"
CONTRACTS_FOLDER: Final = "contracts"


def open_accounts(client: Client) -> None:
    """Create the customers and their teams."""
    for customer in CUSTOMERS:
        client.accounts.CreateAccount(
            CreateAccountRequest(handle=customer.account, account=customer.account)
        )
        for team in customer.teams:
            if team.parent:
                client.accounts.CreateAccount(_creation(team))


def describe_factory(client: Client, *, folder: Path) -> None:
    """Say where the pools stand and what their boards take for idling; kept in the folder too."""
    toml = read_terms(FACTORY)
    (folder / f"{FACTORY}.toml").write_text(toml, "utf-8")
    client.energy.SetFactory(SetFactoryRequest(toml=toml))


def agree_on_terms(client: Client, *, folder: Path) -> None:
    """Import the books and set the contracts; what is taken in is kept in the folder too."""
    for name in BOOKS:
        import_book(client, name, folder=folder)
    (folder / CONTRACTS_FOLDER).mkdir()
    for customer in CUSTOMERS:
        toml = read_terms(customer.account)
        (folder / CONTRACTS_FOLDER / f"{customer.account}.toml").write_text(toml, "utf-8")
        client.billing.SetContract(SetContractRequest(toml=toml))


def import_new_prices(client: Client, *, folder: Path) -> None:
    """Import the book's next version, ahead of the day from which it is in force."""
    import_book(client, NEW_BOOK, folder=folder)


def import_book(client: Client, name: str, *, folder: Path) -> None:
    """Import a version of a book, and keep it in the folder too."""
    (folder / BOOKS_FOLDER).mkdir(exist_ok=True)
    toml = read_terms(name)
    (folder / BOOKS_FOLDER / f"{name}.toml").write_text(toml, "utf-8")
    client.billing.ImportPriceBook(ImportPriceBookRequest(toml=toml))


def create_server_key(client: Client) -> str:
    """Create the servers' API key, which may report for everybody and do nothing else."""
    request = CreateApiKeyRequest(
        scopes=[Scope(role=ROLE_PRODUCER)], description="the factory's servers"
    )
    return client.accounts.CreateApiKey(request).secret


def order_move(client: Client) -> None:
    """Have a team belong to another customer, from a time ahead on."""
    request = MoveAccountRequest(account=MOVE.account, parent=MOVE.parent)
    request.start_time.FromDatetime(MOVE.time)
    client.accounts.MoveAccount(request)


def _creation(team: Team) -> CreateAccountRequest:
    return CreateAccountRequest(handle=team.handle, parent=team.parent, account=team.account)
