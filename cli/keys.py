"""`tokenworks keys create|list|rotate|revoke`."""

import json
import re
from typing import Final

import click

from cli.accounts import TOP, format_time, print_table, resolve, resolve_or_top
from cli.connection import Client, client_command
from tokenworks.meter.v1 import account_service_pb2 as pb
from tokenworks.meter.v1.account_service_pb2_grpc import AccountServiceStub

_ROLES: Final = {
    "producer": pb.ROLE_PRODUCER,
    "reader": pb.ROLE_READER,
    "admin": pb.ROLE_ADMIN,
    "biller": pb.ROLE_BILLER,
    "price-editor": pb.ROLE_PRICE_EDITOR,
    "operator": pb.ROLE_OPERATOR,
}
_NAMES: Final = {number: name for name, number in _ROLES.items()}
_UNITS_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


@click.group("keys")
def keys() -> None:
    """Create, list, rotate and revoke API keys.

    An ACCOUNT is named by its id or by its path (acme/team); / is the whole installation.
    """


@keys.command("create")
@click.argument("account")
@click.option(
    "--role",
    "roles",
    multiple=True,
    metavar="ROLE[:ACCOUNT]",
    help="What the key is: producer, reader, admin, biller, price-editor or operator, of ACCOUNT"
    " and all below it unless another one is named. May be given several times; without it:"
    " producer.",
)
@click.option(
    "--certificate",
    metavar="NAME",
    help="Bind the key to a name in a client's certificate (spiffe://factory/gateway, or a DNS"
    " name) instead of a secret.",
)
@click.option("--description", default="", help="For the reader, at most 200 characters.")
@client_command
def create(
    client: Client,
    *,
    account: str,
    roles: tuple[str, ...],
    certificate: str | None,
    description: str,
) -> None:
    """Create an API key of ACCOUNT; it is printed this once, on the last line."""
    owner = resolve_or_top(client.accounts, account)
    request = pb.CreateApiKeyRequest(
        account=owner,
        scopes=[_parse_scope(client.accounts, each, owner=owner) for each in roles or ["producer"]],
        description=description,
        certificate_name=certificate or "",
    )
    answer = client.accounts.CreateApiKey(request)
    _print_new(client, answer.key, secret=answer.secret)


@keys.command("list")
@click.argument("account", required=False)
@client_command
def list_keys(client: Client, *, account: str | None) -> None:
    """List the API keys of ACCOUNT, or all that this API key is admin of."""
    owner = resolve(client.accounts, account) if account else ""
    found = client.accounts.ListApiKeys(pb.ListApiKeysRequest(account=owner)).keys
    if client.as_json:
        click.echo(json.dumps([_key_to_json(each) for each in found], indent=2))
        return
    print_table(
        ["key", "account", "prefix", "scopes", "created", "ends", "description"],
        (
            [
                each.key_id,
                each.account or TOP,
                each.prefix or each.certificate_name,
                _scopes(each),
                format_time(each.create_time),
                _end(each),
                each.description,
            ]
            for each in found
        ),
    )


@keys.command("rotate")
@click.argument("key_id", metavar="KEY")
@click.option(
    "--grace",
    default="1d",
    show_default=True,
    metavar="TIME",
    help="How long the old key goes on: 90s, 15m, 12h, 7d; at most 30d.",
)
@client_command
def rotate(client: Client, *, key_id: str, grace: str) -> None:
    """Create a successor of KEY with the same scopes; it is printed this once, on the last line."""
    request = pb.RotateApiKeyRequest(key_id=key_id, grace_seconds=_parse_grace(grace))
    answer = client.accounts.RotateApiKey(request)
    _print_new(client, answer.key, secret=answer.secret)


@keys.command("revoke")
@click.argument("key_id", metavar="KEY")
@client_command
def revoke(client: Client, *, key_id: str) -> None:
    """End KEY now; doing it again changes nothing."""
    key = client.accounts.RevokeApiKey(pb.RevokeApiKeyRequest(key_id=key_id)).key
    if client.as_json:
        click.echo(json.dumps(_key_to_json(key), indent=2))
    else:
        _print_key(key)


def _print_new(client: Client, key: pb.ApiKey, *, secret: str) -> None:
    if secret:
        click.echo("This is the only time that the API key is shown: keep it now.", err=True)
    if client.as_json:
        shown = {"secret": secret} if secret else {}
        click.echo(json.dumps({**_key_to_json(key), **shown}, indent=2))
        return
    _print_key(key)
    if secret:
        click.echo(secret)


def _print_key(key: pb.ApiKey) -> None:
    facts = {
        "key": key.key_id,
        "account": key.account or TOP,
        "scopes": _scopes(key),
        "created": format_time(key.create_time),
        "ends": _end(key),
        "succeeds": key.rotated_from or "-",
        "certificate": key.certificate_name or "-",
        "description": key.description or "-",
    }
    for name, value in facts.items():
        click.echo(f"{name:<11} {value}")


def _key_to_json(key: pb.ApiKey) -> dict[str, object]:
    return {
        "key_id": key.key_id,
        "account": key.account,
        "prefix": key.prefix,
        "scopes": [{"role": _NAMES[scope.role], "account": scope.account} for scope in key.scopes],
        "create_time": key.create_time.ToJsonString(),
        "end_time": key.end_time.ToJsonString() if key.HasField("end_time") else None,
        "rotated_from": key.rotated_from or None,
        "certificate_name": key.certificate_name or None,
        "description": key.description,
    }


def _scopes(key: pb.ApiKey) -> str:
    return " ".join(f"{_NAMES[scope.role]}:{scope.account or TOP}" for scope in key.scopes)


def _end(key: pb.ApiKey) -> str:
    return format_time(key.end_time) if key.HasField("end_time") else "-"


def _parse_scope(stub: AccountServiceStub, text: str, *, owner: str) -> pb.Scope:
    name, colon, account = text.partition(":")
    if name not in _ROLES:
        raise click.BadParameter(
            f"{text}: begin with one of {', '.join(_ROLES)}", param_hint="--role"
        )
    account_id = resolve_or_top(stub, account) if colon else owner
    return pb.Scope(role=_ROLES[name], account=account_id)


def _parse_grace(text: str) -> int:
    match = re.fullmatch(r"(\d{1,7})([smhd])", text)
    seconds = int(match[1]) * _UNITS_SECONDS[match[2]] if match else None
    if seconds is None or seconds >= 2**31:
        raise click.BadParameter(
            f"{text} is no time like 90s, 15m, 12h or 7d", param_hint="--grace"
        )
    return seconds
