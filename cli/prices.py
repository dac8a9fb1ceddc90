"""`tokenworks prices import|list|show|diff`."""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from billing.shipped import SHIPPED
from cli.accounts import format_time, print_table
from cli.connection import Client, client_command, find_reason
from cli.process import CommandError, Exit
from tokenworks.billing.v1 import billing_service_pb2 as pb
from tokenworks.meter.v1 import usage_pb2

_KEYS: Final = ("model", "tier", "mode", "class", "prompt", "at", "contract")
_FAULTY: Final = frozenset({"BOOK_INVALID", "CONTRACT_INVALID", "FACTORY_INVALID"})
_AT: Final = re.compile(r"(?P<book>[^@]+)@(?P<time>.+)")


@click.group("prices")
def prices() -> None:
    """Import, list, show and compare price books.

    A BOOK is named as its file names it. A version of it by a time at which it is in force:
    retail@2026-12-01 (UTC unless it says otherwise); without a time, the one that is in force now.
    """


@prices.command("import")
@click.argument("source", metavar="FILE|NAME")
@client_command
def import_book(client: Client, *, source: str) -> None:
    """Import a version of a book from FILE, or by NAME one that is shipped: keynote, retail."""
    path = Path(source)
    if source in SHIPPED and not path.exists():
        request = pb.ImportPriceBookRequest(shipped=source)
    else:
        request = pb.ImportPriceBookRequest(toml=read_text(path))
    with faults_of(source):
        answer = client.billing.ImportPriceBook(request)
    if client.as_json:
        told = {**_version_to_json(answer.version), "imported": answer.imported}
        click.echo(json.dumps(told, indent=2))
        return
    version = answer.version
    state = "imported" if answer.imported else "there already, nothing changed:"
    click.echo(
        f"{state} {version.book} from {format_time(version.start_time)}, {version.currency},"
        f" {version.model_count} model entr{'y' if version.model_count == 1 else 'ies'}"
    )


@prices.command("list")
@click.argument("book", required=False)
@client_command
def list_books(client: Client, *, book: str | None) -> None:
    """List the versions of all books, or of BOOK."""
    request = pb.ListPriceVersionsRequest(book=book or "")
    versions = client.billing.ListPriceVersions(request).versions
    if client.as_json:
        click.echo(json.dumps([_version_to_json(it) for it in versions], indent=2))
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
    name, at = _split(book)
    if key is not None:
        _explain(client, name, at=at, key=_read_key(key))
        return
    answer = client.billing.GetPriceBook(pb.GetPriceBookRequest(book=name, at=at))
    if client.as_json:
        told = {**_version_to_json(answer.version), "toml": answer.toml}
        click.echo(json.dumps(told, indent=2))
    else:
        click.echo(answer.toml, nl=not answer.toml.endswith("\n"))


@prices.command("diff")
@click.argument("before", metavar="BOOK[@TIME]|FILE")
@click.argument("after", metavar="BOOK[@TIME]|FILE")
@client_command
def diff(client: Client, *, before: str, after: str) -> None:
    """Show what changes from one version or file to another: each price and factor, by its place.

    Exits 0 whether anything changes or not.
    """
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


def read_text(path: Path) -> str:
    """Return a file's text, or end the command saying why it cannot be read."""
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise CommandError(f"{path} cannot be read: it is no UTF-8", code=Exit.USAGE) from error
    except OSError as error:
        # Its own text has a number and the path once more.
        why = (error.strerror or str(error)).lower()
        raise CommandError(f"{path} cannot be read: {why}", code=Exit.USAGE) from error


@contextmanager
def faults_of(source: object) -> Iterator[None]:
    """Name the file in each line of the faults that the server found in it."""
    try:
        yield
    except grpc.RpcError as error:
        faults = _find_faults(error)
        if faults is None:
            raise
        message = "\n".join(f"{source}:{line}" for line in faults.splitlines())
        raise CommandError(message, code=Exit.USAGE) from error


def compare(
    before: Mapping[str, Any], after: Mapping[str, Any]
) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield each place whose value is another, with both values; None where it is absent."""
    old, new = dict(_flatten(before)), dict(_flatten(after))
    for place in sorted({*old, *new}):
        if old.get(place) != new.get(place):
            yield place, old.get(place), new.get(place)


def to_timestamp(text: str) -> Timestamp:
    """Return the time that a text means, UTC unless it says otherwise; raises BadParameter."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(
            f"{text} is no time: write it like 2026-12-01 or 2026-12-01T09:15"
        ) from error
    message = Timestamp()
    message.FromDatetime(time if time.tzinfo else time.replace(tzinfo=UTC))
    return message


def _find_faults(error: Exception) -> str | None:
    if not isinstance(error, grpc.Call) or find_reason(error) not in _FAULTY:
        return None
    return str(error.details())


def _explain(client: Client, book: str, *, at: Timestamp | None, key: Mapping[str, str]) -> None:
    contract = key.get("contract", "")
    request = pb.ExplainPriceRequest(
        book="" if contract else book,
        contract=contract,
        model=key["model"],
        tier=key["tier"],
        at=to_timestamp(key["at"]) if "at" in key else at,
    )
    request.mode = _number("Mode", "MODE_", key.get("mode", "online"))
    request.token_class = _number("TokenClass", "TOKEN_CLASS_", key["class"])
    prompt = key.get("prompt", "0").replace("_", "")
    if not prompt.isdecimal():
        raise click.BadParameter("prompt must be a number of tokens", param_hint="--explain")
    request.prompt_tokens = int(prompt)
    answer = client.billing.ExplainPrice(request)
    if client.as_json:
        click.echo(json.dumps(_price_to_json(answer), indent=2))
    elif answer.priced:
        click.echo(_price_to_text(answer))
    if not answer.priced:
        raise CommandError(
            f"{answer.version.book} has no price for this key: usage of it would hold invoices",
            code=Exit.REFUSED,
        )


def _price_to_text(answer: pb.ExplainPriceResponse) -> str:
    steps = [("", answer.base, answer.source)]
    steps += [("× ", it.value, it.source) for it in answer.factors]
    steps.append(("= ", answer.unit_price, f"{answer.version.currency} per 1,000,000 tokens"))
    texts = [f"{sign}{value}" for sign, value, _ in steps]
    width = max(map(len, texts))
    rows = [
        f"{text.rjust(width)}   {source}" for text, (_, _, source) in zip(texts, steps, strict=True)
    ]
    version = answer.version
    return "\n".join([*rows, "", f"{version.book} from {format_time(version.start_time)}"])


def _price_to_json(answer: pb.ExplainPriceResponse) -> dict[str, object]:
    return {
        "priced": answer.priced,
        "unit_price": answer.unit_price or None,
        "base": answer.base or None,
        "source": answer.source or None,
        "factors": [{"source": it.source, "value": it.value} for it in answer.factors],
        "above": answer.above,
        "window": answer.window,
        "version": _version_to_json(answer.version),
    }


def _version_to_json(version: pb.PriceVersion) -> dict[str, object]:
    return {
        "book": version.book,
        "from": version.start_time.ToJsonString(),
        "currency": version.currency,
        "model_count": version.model_count,
    }


def _read_key(text: str) -> dict[str, str]:
    parts = [part.partition("=") for part in text.split(",")]
    key = {name.strip(): value.strip() for name, _, value in parts}
    unknown = [name for name in key if name not in _KEYS]
    missing = [name for name in ("model", "tier", "class") if not key.get(name)]
    if unknown or missing:
        raise click.BadParameter(
            "write name=value, separated by commas: model, tier and class, and any of"
            " mode, prompt, at, contract",
            param_hint="--explain",
        )
    return key


def _number(enum: str, prefix: str, text: str) -> Any:  # noqa: ANN401  an open enum
    values = usage_pb2.DESCRIPTOR.enum_types_by_name[enum].values_by_name
    name = prefix + text.upper()
    if name not in values or values[name].number == 0:
        known = [it.removeprefix(prefix).lower() for it, value in values.items() if value.number]
        raise click.BadParameter(f"{text}: one of {', '.join(known)}", param_hint="--explain")
    return values[name].number


def _split(text: str) -> tuple[str, Timestamp | None]:
    match = _AT.fullmatch(text)
    return (text, None) if match is None else (match["book"], to_timestamp(match["time"]))


def _load(client: Client, text: str) -> dict[str, Any]:
    path = Path(text)
    if path.suffix == ".toml" or path.exists():
        toml = read_text(path)
    else:
        name, at = _split(text)
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
