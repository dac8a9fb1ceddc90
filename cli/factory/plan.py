"""`tokenworks factory plan`: the mix of tiers that earns the most of the power that there is."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Final

import click

from billing.factory.plan import Plan, PlanImpossible
from billing.factory.plan import plan as find_best
from billing.factory.plan_file import PlanTerms, read_plan
from billing.factory.shipped import SHIPPED, read_shipped
from cli.connection import Reach, find_now_ms, reaching_command
from cli.drawing import PictureImpossible
from cli.factory.chart import draw
from cli.factory.keynote_screen import keynote_to_json, print_keynote
from cli.factory.plan_screen import plan_to_json, print_plan
from cli.factory.site import SiteTerms, measure_site
from cli.prices import read_text
from cli.process import CommandError, Exit, report_progress
from cli.usage.span import check_order, check_time, to_span
from meter.toml_file import FileFaults

_SUFFIXES: Final = (".svg", ".png")


def check_prices(
    context: click.Context, param: click.Parameter, values: Sequence[str]
) -> dict[str, Fraction]:
    """Return prices by tier of texts like medium=2.50."""
    prices = {}
    for value in values:
        tier, _, amount = value.partition("=")
        if not tier or not amount.replace(".", "", 1).isdecimal():
            raise click.BadParameter(f"{value}: write it like medium=2.50", context, param)
        prices[tier] = Fraction(amount)
    return prices


def check_chart(context: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """Refuse a file that is no picture."""
    if value is not None and value.suffix.lower() not in _SUFFIXES:
        raise click.BadParameter(f"{value}: must end in .svg or .png", context, param)
    return value


@click.command("plan", short_help="The mix of tiers that earns the most of a power.")
@click.argument("source", metavar="[FILE|NAME]", required=False)
@click.option("--site", metavar="NAME", help="Take what is not in FILE from this site's meters.")
@click.option(
    "--since",
    callback=check_time,
    default="7d",
    show_default=True,
    metavar="TIME",
    help="Begin of the time that is measured.",
)
@click.option("--until", callback=check_time, metavar="TIME", help="End of it; without it, now.")
@click.option(
    "--price",
    "prices",
    callback=check_prices,
    multiple=True,
    metavar="TIER=USD",
    help="A price per 1,000,000 tokens to try; may be repeated.",
)
@click.option(
    "--chart",
    callback=check_chart,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Draw it, as .svg or .png.",
)
@click.option("--keynote", is_flag=True, help="Work out the keynote of GTC 2026 again.")
@reaching_command
def plan(
    reach: Reach,
    *,
    source: str | None,
    site: str | None,
    since: str,
    until: str | None,
    prices: dict[str, Fraction],
    chart: Path | None,
    keynote: bool,
) -> None:
    """Find the mix of tiers that earns the most of a site's power, beside the one of now.

    By FILE (TOML), by the NAME of a shipped one (keynote-hopper, keynote-blackwell-as-read,
    keynote-blackwell, keynote-rubin), or by what the site measured. With both FILE and --site the
    file is believed first.
    """
    if keynote:
        _tell_keynote(as_json=reach.as_json)
        return
    check_order(since, until)
    terms = PlanTerms() if source is None else _read(source)
    known = SiteTerms(terms=PlanTerms(), notes=[])
    if source is None or site is not None:
        with reach.connect() as client:
            span = to_span(since, until, now_ms=find_now_ms(client))
            known = measure_site(client, site, span=span)
        if not terms.tiers and not known.terms.tiers:
            raise CommandError(
                f"there are no tiers to plan with: {known.terms.name} has no tokens beside valid"
                " power. See tokenworks energy show, or plan by a FILE",
                code=Exit.REFUSED,
            )
    with _possible():
        found = find_best(terms.complete(known.terms, prices=prices))
    if chart is not None:
        _draw(chart, found)
    if reach.as_json:
        click.echo(json.dumps(plan_to_json(found, notes=known.notes), indent=2))
    else:
        print_plan(found, notes=known.notes)


@contextmanager
def _possible() -> Iterator[None]:
    try:
        yield
    except PlanImpossible as error:
        raise CommandError(str(error), code=Exit.REFUSED) from error


def _tell_keynote(*, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(keynote_to_json(), indent=2))
    else:
        print_keynote()


def _read(source: str) -> PlanTerms:
    path = Path(source)
    text = read_shipped(source) if source in SHIPPED and not path.exists() else read_text(path)
    try:
        return read_plan(text)
    except FileFaults as faults:
        raise CommandError(faults.describe(source), code=Exit.USAGE) from faults


def _draw(path: Path, found: Plan) -> None:
    try:
        draw(path, found)
    except PictureImpossible as error:
        raise CommandError(str(error)) from error
    report_progress(f"drawn: {path}")
