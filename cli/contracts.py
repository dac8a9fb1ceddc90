"""`tokenworks contracts set|list|show`."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import click

from cli.accounts import format_time, print_table
from cli.connection import PRICING_SECONDS_MAX, Client, client_command
from cli.effects import (
    corrections_to_json,
    effects_to_json,
    print_corrections,
    print_effects,
    terms_options,
)
from cli.prices import faults_of, read_text, to_timestamp
from tokenworks.billing.v1 import billing_service_pb2 as pb

_FLAGS: Final = ("contract", "start", "zone", "currency", "book", "covers", "seller", "buyer")


@click.group("contracts")
def contracts() -> None:
    """Set, list and show contracts: who sells to whom, at which prices, for which accounts."""


@contracts.command("set")
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--contract", metavar="NAME", help="Without FILE: the contract's name.")
@click.option("--from", "start", metavar="TIME", help="From when on, local in --zone: 2026-10-01.")
@click.option("--until", metavar="TIME", help="Until when, local in --zone; else open.")
@click.option("--zone", metavar="ZONE", help="Time zone of its months: Europe/Berlin.")
@click.option("--currency", metavar="CODE", help="The book's currency: USD.")
@click.option("--book", metavar="BOOK", help="The price book.")
@click.option("--price-by", type=click.Choice(["requested", "served"]), help="Which model is sold.")
@click.option("--covers", multiple=True, metavar="ACCOUNT", help="Covered with all below it.")
@click.option("--seller", metavar="NAME", help="The seller's name.")
@click.option("--seller-address", multiple=True, metavar="LINE", help="A line of its address.")
@click.option("--seller-tax-id", metavar="ID", help="Its tax id.")
@click.option("--buyer", metavar="NAME", help="The buyer's name.")
@click.option("--buyer-address", multiple=True, metavar="LINE", help="A line of its address.")
@click.option("--buyer-tax-id", metavar="ID", help="Its tax id.")
@click.option("--series", metavar="SERIES", help="What invoice numbers begin with.")
@click.option("--po", metavar="NUMBER", help="The buyer's order number.")
@click.option("--terms-days", type=int, help="Days until an invoice is due.")
@terms_options
@client_command
def set_contract(
    client: Client, *, file: Path | None, dry_run: bool, correct: bool, **flags: object
) -> None:
    """Set a version of a contract from FILE, or from flags.

    Taxes, charges, overrides and how months are closed need a file.
    """
    given = {name: value for name, value in flags.items() if value not in (None, ())}
    if file is not None and given:
        raise click.UsageError("give a FILE or flags, not both")
    toml = _write(given) if file is None else read_text(file)
    with faults_of("the flags' file" if file is None else file):
        if dry_run:
            preview = pb.PreviewTermsRequest(contract=toml)
            found = client.billing.PreviewTerms(preview, timeout=PRICING_SECONDS_MAX)
            print_effects(found.effects, as_json=client.as_json)
            return
        request = pb.SetContractRequest(toml=toml, correct_issued=correct)
        answer = client.billing.SetContract(request, timeout=PRICING_SECONDS_MAX)
    if client.as_json:
        told = {
            **_version_to_json(answer.version),
            "changed": answer.changed,
            "effects": effects_to_json(answer.effects),
            "corrections": corrections_to_json(answer.corrections),
            "toml": toml,
        }
        click.echo(json.dumps(told, indent=2))
        return
    state = "set" if answer.changed else "there already, nothing changed:"
    version = answer.version
    click.echo(f"{state} {version.contract} from {format_time(version.start_time)}")
    _print([version])
    if answer.effects:
        print_effects(answer.effects)
    print_corrections(answer.corrections)


@contracts.command("list")
@click.argument("contract", required=False)
@client_command
def list_contracts(client: Client, *, contract: str | None) -> None:
    """List the versions of all contracts, or of CONTRACT."""
    request = pb.ListContractsRequest(contract=contract or "")
    versions = client.billing.ListContracts(request).versions
    if client.as_json:
        click.echo(json.dumps([_version_to_json(it) for it in versions], indent=2))
    elif versions:
        _print(versions)
    else:
        click.echo("no contract is set; begin with: tokenworks contracts set FILE")


@contracts.command("show")
@click.argument("contract")
@click.option("--at", "at", metavar="TIME", help="The version in force then; else the newest.")
@client_command
def show(client: Client, *, contract: str, at: str | None) -> None:
    """Print a version of CONTRACT as its file."""
    request = pb.GetContractRequest(contract=contract)
    if at is not None:
        request.at.CopyFrom(to_timestamp(at))
    answer = client.billing.GetContract(request)
    if client.as_json:
        told = {
            **_version_to_json(answer.version),
            "revision": answer.revision,
            "set_time": answer.set_time.ToJsonString(),
            "toml": answer.toml,
        }
        click.echo(json.dumps(told, indent=2))
    else:
        click.echo(answer.toml, nl=not answer.toml.endswith("\n"))


def _write(given: dict[str, object]) -> str:
    """Return the file that the flags stand for; what it lacks the server tells."""
    missing = [name for name in _FLAGS if name not in given]
    if missing:
        flags = ", ".join(f"--{'from' if it == 'start' else it}" for it in missing)
        raise click.UsageError(f"without a FILE these are needed too: {flags}")
    start = str(given["start"])
    rows = ["format = 1", f"contract = {_quote(given['contract'])}", f"from = {_local(start)}"]
    if "until" in given:
        rows.append(f"until = {_local(str(given['until']))}")
    plain = ("zone", "currency", "book", "price_by", "covers")
    rows += [f"{name} = {_quote(given[name])}" for name in plain if name in given]
    rows += ['seller = "seller"', 'buyer = "buyer"']
    for party in ("seller", "buyer"):
        rows += ["", f"[parties.{party}]", f"name = {_quote(given[party])}"]
        rows.append(f"address = {_quote(given.get(f'{party}_address', ()))}")
        if f"{party}_tax_id" in given:
            rows.append(f"tax_id = {_quote(given[f'{party}_tax_id'])}")
    rows += ["", "[document]", 'kind = "invoice"']
    rows += [f"{name} = {_quote(given[name])}" for name in ("series", "po") if name in given]
    if "terms_days" in given:
        rows.append(f"terms_days = {given['terms_days']}")
    return "\n".join(rows) + "\n"


def _quote(value: object) -> str:
    # Strings and lists of JSON, in plain ASCII, are the same in TOML.
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def _local(text: str) -> str:
    return text if "T" in text else f"{text}T00:00:00"


def _print(versions: Iterable[pb.ContractVersion]) -> None:
    print_table(
        ["contract", "from", "until", "covers", "book", "currency", "zone", "buyer"],
        (
            [
                it.contract,
                format_time(it.start_time),
                format_time(it.end_time) if it.HasField("end_time") else "-",
                ", ".join(it.covers),
                it.book,
                it.currency,
                it.zone,
                it.buyer,
            ]
            for it in versions
        ),
    )


def _version_to_json(version: pb.ContractVersion) -> dict[str, object]:
    return {
        "contract": version.contract,
        "from": version.start_time.ToJsonString(),
        "until": version.end_time.ToJsonString() if version.HasField("end_time") else None,
        "seller": version.seller,
        "buyer": version.buyer,
        "covers": list(version.covers),
        "book": version.book,
        "currency": version.currency,
        "zone": version.zone,
    }
