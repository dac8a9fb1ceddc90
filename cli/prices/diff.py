"""`tokenworks prices diff`: what changes in a book, or with `--on` who would pay how much more."""

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import click

from cli.accounts import print_table
from cli.connection import PRICING_SECONDS_MAX, Client, client_command
from cli.effects import effects_to_json, print_effects
from cli.prices.versions import faults_of, is_file, read_text, split_version
from cli.process import CommandError, Exit
from tokenworks.billing.v1 import billing_service_pb2 as pb


@click.command("diff")
@click.argument("before", metavar="BOOK[@TIME]|FILE")
@click.argument("after", metavar="BOOK[@TIME]|FILE")
@click.option(
    "--on",
    "month",
    metavar="MONTH",
    help="Lay both on the usage of a month, as 2026-10: who would pay how much more.",
)
@client_command
def diff(client: Client, *, before: str, after: str, month: str | None) -> None:
    """Show what changes from one version or file to another: each price and factor, by its place.

    With --on, what the month's usage comes to by both, for each contract at these prices; a FILE
    need not be imported. Exits 0 whether anything changes or not.
    """
    if month is not None:
        _diff_on(client, before, after, month=month)
        return
    rows = list(compare(_load(client, before), _load(client, after)))
    if client.as_json:
        told = [{"place": it[0], "before": it[1], "after": it[2]} for it in rows]
        click.echo(json.dumps(told, indent=2))
    elif rows:
        print_table(
            ["place", "before", "after"], ([it[0], it[1] or "-", it[2] or "-"] for it in rows)
        )
    else:
        click.echo("nothing changes")


def compare(
    before: Mapping[str, Any], after: Mapping[str, Any]
) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield each place whose value is another, with both values; None where it is absent."""
    old, new = dict(_flatten(before)), dict(_flatten(after))
    for place in sorted({*old, *new}):
        if old.get(place) != new.get(place):
            yield place, old.get(place), new.get(place)


def _diff_on(client: Client, before: str, after: str, *, month: str) -> None:
    request = pb.DiffPricesRequest(before=_to_side(before), after=_to_side(after), month=month)
    with faults_of(next(filter(is_file, (after, before)), after)):
        answer = client.billing.DiffPrices(request, timeout=PRICING_SECONDS_MAX)
    if client.as_json:
        told = {
            "effects": effects_to_json(answer.effects),
            "totals": [_total_to_json(it) for it in answer.totals],
        }
        click.echo(json.dumps(told, indent=2))
    elif answer.effects:
        print_effects(_by_difference(answer.effects), totals=answer.totals)
    else:
        click.echo(f"nobody with this book has used anything in {month}")


def _by_difference(effects: Iterable[pb.TermsEffect]) -> list[pb.TermsEffect]:
    """Return those first who would pay the most more."""
    return sorted(effects, key=lambda it: (-Decimal(it.difference), it.contract))


def _total_to_json(total: pb.TermsEffect) -> dict[str, object]:
    return {
        "currency": total.currency,
        "before": total.before,
        "after": total.after,
        "difference": total.difference,
        "unpriced_tokens": total.unpriced_tokens,
    }


def _to_side(text: str) -> pb.PriceSide:
    if is_file(text):
        return pb.PriceSide(toml=read_text(Path(text)))
    name, at = split_version(text)
    return pb.PriceSide(book=name, at=at)


def _load(client: Client, text: str) -> dict[str, Any]:
    if is_file(text):
        toml = read_text(Path(text))
    else:
        name, at = split_version(text)
        toml = client.billing.GetPriceBook(pb.GetPriceBookRequest(book=name, at=at)).toml
    try:
        return tomllib.loads(toml)
    except tomllib.TOMLDecodeError as error:
        raise CommandError(f"{text}: {error}", code=Exit.USAGE) from error


def _flatten(value: object, place: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, below in value.items():
            plain = re.fullmatch(r"[A-Za-z0-9_-]+", name)
            yield from _flatten(below, f"{place}.{name if plain else json.dumps(name)}".lstrip("."))
    elif isinstance(value, list) and value and all(isinstance(it, Mapping) for it in value):
        for index, below in enumerate(value):
            key = below.get("prompt", index)
            yield from _flatten(below, f"{place}[{key}]")
    elif isinstance(value, list):
        yield place, ", ".join(map(str, value))
    else:
        yield place, value.isoformat() if isinstance(value, datetime) else str(value)
