"""What terms change, as the commands of contracts and prices tell of it."""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

from cli.accounts import print_table
from tokenworks.billing.v1 import billing_service_pb2 as pb

_Command = TypeVar("_Command", bound=Callable[..., Any])


def terms_options(command: _Command) -> _Command:
    """Add `--dry-run` and `--correct` to a command that takes terms in."""
    dry_run = click.option(
        "--dry-run", is_flag=True, help="Only say what would change, by contract and month."
    )
    correct = click.option(
        "--correct",
        is_flag=True,
        help="Change what was billed too: issue the differences as documents of their own.",
    )
    return dry_run(correct(command))


def print_effects(
    effects: Sequence[pb.TermsEffect],
    *,
    totals: Iterable[pb.TermsEffect] = (),
    as_json: bool = False,
) -> None:
    """Print what changes, a row for each contract and month, and the sums."""
    if as_json:
        click.echo(json.dumps(effects_to_json(effects), indent=2))
        return
    if not effects:
        click.echo("nothing changes in what has begun")
        return
    rows = [[it.contract, it.account, it.month, *_amounts(it), _words(it)] for it in effects]
    rows += [["all", "", "", *_amounts(it), _words(it)] for it in totals]
    columns = ["contract", "account", "month", "before", "after", "difference", ""]
    print_table(columns, rows)


def effects_to_json(effects: Iterable[pb.TermsEffect]) -> list[dict[str, object]]:
    """Return what changes as JSON has it; money are strings."""
    return [
        {
            "contract": it.contract,
            "account": it.account,
            "month": it.month,
            "currency": it.currency,
            "before": it.before,
            "after": it.after,
            "difference": it.difference,
            "closed": it.closed,
            "unpriced_tokens": it.unpriced_tokens,
        }
        for it in effects
    ]


def print_corrections(documents: Iterable[pb.InvoiceSummary]) -> None:
    """Print the documents that were issued for what terms change, a line each."""
    for it in documents:
        click.echo(f"issued {it.number} for {it.contract}, {it.month}: {it.total} {it.currency}")


def corrections_to_json(documents: Iterable[pb.InvoiceSummary]) -> list[dict[str, object]]:
    """Return these documents as JSON has them."""
    return [
        {
            "number": it.number,
            "contract": it.contract,
            "month": it.month,
            "currency": it.currency,
            "total": it.total,
        }
        for it in documents
    ]


def _amounts(effect: pb.TermsEffect) -> list[str]:
    sign = "" if effect.difference.startswith("-") else "+"
    return [effect.before, effect.after, f"{sign}{effect.difference} {effect.currency}"]


def _words(effect: pb.TermsEffect) -> str:
    """Return what else there is to say of an effect."""
    words = ["closed"] if effect.closed else []
    if effect.unpriced_tokens:
        words.append(f"{effect.unpriced_tokens:,} tokens without a price")
    return ", ".join(words)
