"""`tokenworks prices import|list|show`; `diff` has a file of its own."""

import json
from pathlib import Path

import click

from billing.shipped import SHIPPED, read_shipped
from cli.accounts import format_time, print_table
from cli.connection import PRICING_SECONDS_MAX, Client, client_command
from cli.effects import (
    corrections_to_json,
    effects_to_json,
    print_corrections,
    print_effects,
    terms_options,
)
from cli.prices.diff import diff
from cli.prices.explain import explain, read_key
from cli.prices.versions import faults_of, read_text, split_version, version_to_json
from tokenworks.billing.v1 import billing_service_pb2 as pb


@click.group("prices")
def prices() -> None:
    """Import, list, show and compare price books.

    A BOOK is named as its file names it. A version of it by a time at which it is in force:
    retail@2026-12-01 (UTC unless it says otherwise); without a time, the one that is in force now.
    """


@prices.command("import")
@click.argument("source", metavar="FILE|NAME")
@terms_options
@client_command
def import_book(client: Client, *, source: str, dry_run: bool, correct: bool) -> None:
    """Import a version of a book from FILE, or by NAME one that is shipped: keynote, retail."""
    path = Path(source)
    is_shipped = source in SHIPPED and not path.exists()
    with faults_of(source):
        if dry_run:
            toml = read_shipped(source) if is_shipped else read_text(path)
            preview = pb.PreviewTermsRequest(book=toml)
            told = client.billing.PreviewTerms(preview, timeout=PRICING_SECONDS_MAX)
            print_effects(told.effects, as_json=client.as_json)
            return
        request = pb.ImportPriceBookRequest(correct_issued=correct)
        if is_shipped:
            request.shipped = source
        else:
            request.toml = read_text(path)
        answer = client.billing.ImportPriceBook(request, timeout=PRICING_SECONDS_MAX)
    if client.as_json:
        document = {
            **version_to_json(answer.version),
            "imported": answer.imported,
            "effects": effects_to_json(answer.effects),
            "corrections": corrections_to_json(answer.corrections),
        }
        click.echo(json.dumps(document, indent=2))
        return
    version = answer.version
    state = "imported" if answer.imported else "there already, nothing changed:"
    click.echo(
        f"{state} {version.book} from {format_time(version.start_time)}, {version.currency},"
        f" {version.model_count} model entr{'y' if version.model_count == 1 else 'ies'}"
    )
    if answer.effects:
        print_effects(answer.effects)
    print_corrections(answer.corrections)


@prices.command("list")
@click.argument("book", required=False)
@client_command
def list_books(client: Client, *, book: str | None) -> None:
    """List the versions of all books, or of BOOK."""
    request = pb.ListPriceVersionsRequest(book=book or "")
    versions = client.billing.ListPriceVersions(request).versions
    if client.as_json:
        click.echo(json.dumps([version_to_json(it) for it in versions], indent=2))
        return
    if not versions:
        click.echo("no price book is imported; one is shipped: tokenworks prices import keynote")
        return
    print_table(
        ["book", "from", "currency", "model entries"],
        (
            [it.book, format_time(it.start_time), it.currency, str(it.model_count)]
            for it in versions
        ),
    )


@prices.command("show")
@click.argument("book", metavar="BOOK[@TIME]")
@click.option(
    "--explain",
    "key",
    metavar="KEY",
    help="Explain the price of a key instead: model=glm-5.1,tier=high,class=output, and where it"
    " matters mode=batch, prompt=250000, at=2026-12-01T21:00, contract=acme-2026.",
)
@client_command
def show(client: Client, *, book: str, key: str | None) -> None:
    """Print a version of BOOK as its file, or the price of a key, factor by factor."""
    name, at = split_version(book)
    if key is not None:
        explain(client, name, at=at, key=read_key(key))
        return
    answer = client.billing.GetPriceBook(pb.GetPriceBookRequest(book=name, at=at))
    if client.as_json:
        told = {**version_to_json(answer.version), "toml": answer.toml}
        click.echo(json.dumps(told, indent=2))
    else:
        click.echo(answer.toml, nl=not answer.toml.endswith("\n"))


prices.add_command(diff)
