"""`tokenworks accounts create|list|show|move|close`."""

import json
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Final

import click
import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.connection import Client, client_command, find_reason
from cli.process import CommandError, Exit
from tokenworks.meter.v1 import account_service_pb2 as pb
from tokenworks.meter.v1.account_service_pb2_grpc import AccountServiceStub

# Stands for no account: above all roots, the whole installation.
TOP: Final = "/"
ID_PREFIX: Final = "id:"
PAGE_SIZE: Final = 10_000
# Wide enough for any table: what is piped into another program is neither cut nor wrapped.
_PIPED_COLUMNS: Final = 100_000


@click.group("accounts")
def accounts() -> None:
    """Create, list, show, move and close accounts.

    An ACCOUNT is named by its id or by its path, handles joined by slashes: acme/team. Where an id
    and a path are the same text, write id:acme or /acme.
    """


@accounts.command("create")
@click.argument("path", metavar="HANDLE|PATH")
@click.option("--parent", metavar="ACCOUNT", help="The account that it will be below.")
@click.option("--id", "account_id", default="", metavar="ID", help="Its id, if yours to choose.")
@client_command
def create(client: Client, *, path: str, parent: str | None, account_id: str) -> None:
    """Create an account: a root, or below --parent, or below the account that PATH begins with."""
    above, _, handle = path.rpartition("/")
    if above and parent is not None:
        raise click.UsageError("name the parent in the path or by --parent, not both")
    wanted = f"/{above.removeprefix('/')}" if above else parent
    parent_id = resolve(client.accounts, wanted) if wanted else ""
    request = pb.CreateAccountRequest(handle=handle, parent=parent_id, account=account_id)
    _print_account(client, client.accounts.CreateAccount(request).account)


@accounts.command("list")
@click.argument("account", required=False)
@client_command
def list_accounts(client: Client, *, account: str | None) -> None:
    """List all accounts, or those of ACCOUNT's subtree, by path."""
    root = resolve(client.accounts, account) if account else ""
    found = list(_list_all(client.accounts, root=root))
    if client.as_json:
        click.echo(json.dumps([account_to_json(each) for each in found], indent=2))
        return
    print_table(
        ["path", "account", "created", "closed"],
        ([each.path, each.account, format_time(each.create_time), _closed(each)] for each in found),
    )


@accounts.command("show")
@click.argument("account")
@client_command
def show(client: Client, *, account: str) -> None:
    """Show one account and all its parents."""
    request = pb.GetAccountRequest(account=resolve(client.accounts, account))
    _print_account(client, client.accounts.GetAccount(request).account)


@accounts.command("move")
@click.argument("account")
@click.argument("parent")
@click.option(
    "--at",
    "start",
    metavar="TIME",
    help="From when on: 2027-01-01 or 2027-01-01T09:15, UTC unless it says otherwise, on a quarter"
    " of an hour and not in the past. Without it, from the next quarter of an hour.",
)
@client_command
def move(client: Client, *, account: str, parent: str, start: str | None) -> None:
    """Put ACCOUNT, and all below it, below PARENT; / makes it a root."""
    request = pb.MoveAccountRequest(
        account=resolve(client.accounts, account), parent=resolve_or_top(client.accounts, parent)
    )
    if start is not None:
        request.start_time.FromDatetime(_parse_time(start))
    _print_account(client, client.accounts.MoveAccount(request).account)


@accounts.command("close")
@click.argument("account")
@client_command
def close(client: Client, *, account: str) -> None:
    """Close ACCOUNT: events that end from now on are set aside."""
    request = pb.CloseAccountRequest(account=resolve(client.accounts, account))
    _print_account(client, client.accounts.CloseAccount(request).account)


def resolve(stub: AccountServiceStub, text: str) -> str:
    """Return the id of the account that `text` names by id or by path.

    An API key that may not read cannot look a path up; for it the text is taken for an id. Raises
    CommandError when there is no such account, or when the text names two.
    """
    if text.startswith(ID_PREFIX):
        return text.removeprefix(ID_PREFIX)
    by_id = None if "/" in text else _find_by_id(stub, text)
    try:
        by_path = _find_by_path(stub, text.removeprefix("/"))
    except grpc.RpcError as error:
        if _reason(error) != "SCOPE_MISSING" or "/" in text:
            raise
        return text
    if by_id and by_path and by_id != by_path:
        raise CommandError(
            f"{text} is the id of one account and the path of another: write {ID_PREFIX}{text} or"
            f" /{text}",
            code=Exit.USAGE,
        )
    found = by_id or by_path
    if found is None:
        raise CommandError(f"no account {text} is known to this API key (ACCOUNT_NOT_FOUND)")
    return found


def resolve_or_top(stub: AccountServiceStub, text: str) -> str:
    """Return the id of the account, or "" for "/", the whole installation."""
    return "" if text == TOP else resolve(stub, text)


def account_to_json(account: pb.Account) -> dict[str, object]:
    """Return the account as JSON has it; `close_time` is null while open."""
    return {
        "account": account.account,
        "handle": account.handle,
        "parent": account.parent,
        "path": account.path,
        "create_time": account.create_time.ToJsonString(),
        "close_time": account.close_time.ToJsonString() if account.HasField("close_time") else None,
        "parents": [
            {"parent": edge.parent, "start_time": edge.start_time.ToJsonString()}
            for edge in account.parents
        ],
    }


def print_table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Print a table, as wide as it needs to be where stdout is no terminal."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    width = None if sys.stdout.isatty() else _PIPED_COLUMNS
    Console(file=sys.stdout, width=width).print(table)


def format_time(time: Timestamp) -> str:
    """Return a time for people to read: UTC, whole seconds."""
    return time.ToDatetime().strftime("%Y-%m-%d %H:%M:%SZ")


def _print_account(client: Client, account: pb.Account) -> None:
    if client.as_json:
        click.echo(json.dumps(account_to_json(account), indent=2))
        return
    facts = [
        ["path", account.path],
        ["account", account.account],
        ["created", format_time(account.create_time)],
        ["closed", _closed(account)],
    ]
    facts += [
        ["parent", f"{edge.parent or TOP} from {format_time(edge.start_time)}"]
        for edge in account.parents
    ]
    for name, value in facts:
        click.echo(f"{name:<8} {value}")


def _closed(account: pb.Account) -> str:
    return format_time(account.close_time) if account.HasField("close_time") else "-"


def _list_all(stub: AccountServiceStub, *, root: str) -> Iterator[pb.Account]:
    request = pb.ListAccountsRequest(account=root, page_size=PAGE_SIZE)
    while True:
        answer = stub.ListAccounts(request)
        yield from answer.accounts
        if not answer.next_page_token:
            return
        request.page_token = answer.next_page_token


def _find_by_id(stub: AccountServiceStub, account_id: str) -> str | None:
    """Return the id when there is such an account that the API key may read."""
    try:
        return stub.GetAccount(pb.GetAccountRequest(account=account_id)).account.account
    except grpc.RpcError as error:
        if _reason(error) in {"ACCOUNT_NOT_FOUND", "SCOPE_MISSING", "ARGUMENT_INVALID"}:
            return None
        raise


def _find_by_path(stub: AccountServiceStub, path: str) -> str | None:
    if not path:
        return None
    found = stub.ListAccounts(pb.ListAccountsRequest(path=path)).accounts
    return found[0].account if found else None


def _reason(error: Exception) -> str | None:
    return find_reason(error) if isinstance(error, grpc.Call) else None


def _parse_time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(
            f"{text} is no time: write it like 2027-01-01T09:15", param_hint="--at"
        ) from error
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
