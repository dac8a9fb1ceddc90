"""`tokenworks prices show --explain`: the price of a key, factor by factor."""

import json
from collections.abc import Mapping
from typing import Any, Final

import click
from google.protobuf.timestamp_pb2 import Timestamp

from cli.accounts import format_time
from cli.connection import Client
from cli.prices.versions import to_timestamp, version_to_json
from cli.process import CommandError, Exit
from tokenworks.billing.v1 import billing_service_pb2 as pb
from tokenworks.meter.v1 import usage_pb2

_KEYS: Final = ("model", "tier", "mode", "class", "prompt", "at", "contract")


def explain(client: Client, book: str, *, at: Timestamp | None, key: Mapping[str, str]) -> None:
    """Print the price of a key, or end the command where it has none."""
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
        "version": version_to_json(answer.version),
    }


def read_key(text: str) -> dict[str, str]:
    """Return what a key of `--explain` says; raises BadParameter."""
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
