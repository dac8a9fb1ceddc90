"""`tokenworks factory compare`: two times, pools, generations or versions at an equal mix."""

import json
from collections.abc import Iterator
from fractions import Fraction
from typing import Final

import click

from billing.factory.compare import Comparison, Figures, Side, change
from billing.factory.compare import compare as find_difference
from cli.accounts import print_table
from cli.connection import Client, client_command, find_now_ms
from cli.factory.amounts import (
    ABSENT,
    to_number,
    write_percent,
    write_price,
    write_times,
    write_usd,
)
from cli.factory.measured import Measured
from cli.factory.sides import SideName, check_side, measure_side
from cli.process import CommandError, Exit
from cli.usage.span import check_order, check_time, to_span

_WHOLE: Final = Fraction(1)


@click.command("compare", short_help="Two months, pools, generations or versions of software.")
@click.argument("before", callback=check_side, metavar="A")
@click.argument("after", callback=check_side, metavar="B")
@click.option(
    "--since",
    callback=check_time,
    default="7d",
    show_default=True,
    metavar="TIME",
    help="Begin of the time, for sides that are no month.",
)
@click.option("--until", callback=check_time, metavar="TIME", help="End of it; without it, now.")
@client_command
def compare(
    client: Client, *, before: SideName, after: SideName, since: str, until: str | None
) -> None:
    """Compare A with B at A's mix of tiers: tokens per joule, dollars a megawatt-hour.

    A side is a month (2026-09, in UTC), or pool:NAME, hardware:NAME or software:NAME in the time
    from --since to --until. Only intervals whose power is valid count, and only tiers that both
    sides have.
    """
    check_order(since, until)
    span = to_span(since, until, now_ms=find_now_ms(client))
    measured = [measure_side(client, side, span=span) for side in (before, after)]
    sides = [
        Side(name=name.text, tiers=it.served)
        for name, it in zip((before, after), measured, strict=True)
    ]
    found = find_difference(*sides)
    notes = list(_notes(found, measured, names=(before.text, after.text)))
    if client.as_json:
        told = _to_json(found, measured, names=(before.text, after.text), notes=notes)
        click.echo(json.dumps(told, indent=2))
    elif found.before is not None and found.after is not None:
        _print(found, found.before, found.after, measured=measured, names=(before.text, after.text))
        for note in notes:
            click.echo(note)
    if found.before is None:
        why = "; ".join(found.missing) or (
            "neither side has tokens with energy of valid intervals. See tokenworks energy show"
        )
        raise CommandError(f"nothing can be compared: {why}", code=Exit.REFUSED)


def _print(
    found: Comparison,
    before: Figures,
    after: Figures,
    *,
    measured: list[Measured],
    names: tuple[str, str],
) -> None:
    mix = ", ".join(f"{name} {write_percent(it, _WHOLE)}" for name, it in found.mix.items())
    click.echo(f"at the mix of {names[0]}, in output tokens: {mix}")
    hours = (before.usd_per_megawatt_hour, after.usd_per_megawatt_hour)
    years = (before.usd_per_megawatt_year, after.usd_per_megawatt_year)
    tokens = (before.tokens_per_joule, after.tokens_per_joule)
    own = (
        _figure(found.own_before, "tokens_per_joule"),
        _figure(found.own_after, "tokens_per_joule"),
    )
    rows = [
        ["output tokens per joule", *(write_price(it) for it in tokens), _change(tokens)],
        [
            "output tokens/s per MW",
            *(f"{to_number(it * 10**6, decimals=0):,.0f}" for it in tokens),
            _change(tokens),
        ],
        ["$/MWh", *(write_price(it) for it in hours), _change(hours)],
        [
            "revenue of a MW in a year",
            *(ABSENT if it is None else write_usd(it) for it in years),
            _change(years),
        ],
        ["each at its own mix, tokens per joule", *map(write_price, own), _change(own)],
        ["of the measured energy went to tokens", *map(_attributed, measured), ABSENT],
    ]
    print_table(["", *names, "change"], rows)


def _attributed(measured: Measured) -> str:
    return write_percent(Fraction(measured.attributed_mj), Fraction(measured.measured_mj))


def _change(values: tuple[Fraction | None, Fraction | None]) -> str:
    return write_times(change(*values))


def _notes(found: Comparison, measured: list[Measured], *, names: tuple[str, str]) -> Iterator[str]:
    if found.mix and found.mix_share < 1:
        yield (
            f"These tiers are {write_percent(found.mix_share, _WHOLE)} of {names[0]}'s output"
            " tokens."
        )
    for sentence in found.missing:
        yield f"{sentence}."
    boundaries = [it.boundaries for it in measured]
    if boundaries[0] != boundaries[1] and all(boundaries):
        said = [" and ".join(sorted(it)) for it in boundaries]
        yield (
            f"Energy is that of {said[0]}s at {names[0]} and of {said[1]}s at {names[1]}: these are"
            " not alike."
        )
    for name, it in zip(names, measured, strict=True):
        if it.other_currencies:
            yield f"{name}: revenue in {', '.join(sorted(it.other_currencies))} is left out."


def _to_json(
    found: Comparison, measured: list[Measured], *, names: tuple[str, str], notes: list[str]
) -> dict[str, object]:
    sides = ((names[0], found.before, found.own_before), (names[1], found.after, found.own_after))
    return {
        "mix": {name: to_number(share) for name, share in found.mix.items()},
        "mix_share": to_number(found.mix_share),
        "sides": [
            {
                "name": name,
                **_figures_to_json(figures),
                "own_mix": _figures_to_json(own),
                "attributed_mj": it.attributed_mj,
                "measured_mj": it.measured_mj,
                "boundaries": sorted(it.boundaries),
            }
            for (name, figures, own), it in zip(sides, measured, strict=True)
        ],
        "change": {
            key: to_number(change(*(_figure(it[1], key) for it in sides)))
            for key in ("tokens_per_joule", "usd_per_megawatt_hour")
        },
        "notes": notes,
    }


def _figure(figures: Figures | None, key: str) -> Fraction | None:
    found = None if figures is None else getattr(figures, key)
    assert found is None or isinstance(found, Fraction)
    return found


def _figures_to_json(figures: Figures | None) -> dict[str, object]:
    return {
        "tokens_per_joule": to_number(_figure(figures, "tokens_per_joule")),
        "usd_per_mwh": to_number(_figure(figures, "usd_per_megawatt_hour")),
        "usd_per_mw_year": to_number(_figure(figures, "usd_per_megawatt_year"), decimals=2),
    }
