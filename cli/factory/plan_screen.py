"""A plan as people and programs read it: the tiers by what a megawatt earns, now and at best."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Final

import click

from billing.factory.figures import HOURS_PER_YEAR, SECONDS_PER_HOUR, per_year
from billing.factory.plan import Binding, Limit, Mix, Plan, Tier
from cli.accounts import print_table
from cli.factory.amounts import (
    ABSENT,
    to_number,
    write_percent,
    write_power,
    write_price,
    write_tokens,
    write_usd,
)

_BAR_COLUMNS: Final = 60
# A tier's part of a bar, in the order of the ranking; the lightest is what is spare.
_SHADES: Final = "█▓▒░▚▞▙▟"
_SPARE: Final = "·"
_LIMITS: Final = {
    Limit.DEMAND: "demand",
    Limit.POWER: "power",
    Limit.MINIMUM: "its minimum",
}


def ranked(plan: Plan) -> list[Tier]:
    """Return the tiers by what a megawatt of them earns, the most first."""
    return sorted(plan.inputs.tiers, key=lambda it: -it.usd_per_mw_second)


def print_plan(plan: Plan, *, notes: Sequence[str] = ()) -> None:
    """Print a plan."""
    inputs = plan.inputs
    is_small = inputs.power_mw < 1
    electricity = (
        f"electricity ${write_price(inputs.usd_per_kwh)} a kWh"
        if inputs.usd_per_kwh
        else "electricity not reckoned"
    )
    power = write_power(inputs.power_mw, is_small=is_small)
    pue = to_number(inputs.pue, decimals=4)
    click.echo(inputs.name or "a plan")
    click.echo(f"{power} at the meter, PUE {pue:g}, {electricity}")
    for note in notes:
        click.echo(note)
    _print_tiers(plan, is_small=is_small)
    _print_mixes(plan, is_small=is_small)
    _print_bars(plan)
    click.echo("")
    for line in findings(plan):
        click.echo(line)


def findings(plan: Plan) -> Iterator[str]:
    """Yield what the plan says, in sentences."""
    is_small = plan.inputs.power_mw < 1
    if plan.binding is Binding.POWER:
        yearly = per_year(plan.shadow_per_mw_second)
        yield f"Power binds: a further megawatt earns {write_usd(yearly)} a year."
    else:
        spare = write_power(plan.inputs.it_mw - plan.best.total_mw, is_small=is_small)
        yield (
            "Demand binds: every tier that earns has all that is asked of it, and more power earns"
            f" nothing. {spare} of IT power are spare."
        )
    if plan.tied:
        yield (
            f"A megawatt of {' and of '.join(plan.tied)} earns the same: the last ones may be split"
            " among them in any way."
        )
    if plan.actual is None:
        return
    broken = list(_breaches(plan, plan.actual))
    if broken:
        yield f"Now keeps not all bounds, so that the mixes do not compare: {', '.join(broken)}."
        return
    more = per_year(_margin(plan.best) - _margin(plan.actual))
    yield f"The best mix earns {write_usd(more)} a year more than the one of now."


def plan_to_json(plan: Plan, *, notes: Sequence[str] = ()) -> dict[str, object]:
    """Return a plan for programs; amounts are in USD, power is in megawatts of IT."""
    inputs = plan.inputs
    return {
        "name": inputs.name,
        "power_mw": to_number(inputs.power_mw),
        "pue": to_number(inputs.pue),
        "it_mw": to_number(inputs.it_mw),
        "usd_per_kwh": to_number(inputs.usd_per_kwh),
        "binding": str(plan.binding),
        "shadow_usd_per_mw_year": to_number(per_year(plan.shadow_per_mw_second), decimals=2),
        "tied": list(plan.tied),
        "best": _mix_to_json(plan.best),
        "actual": None if plan.actual is None else _mix_to_json(plan.actual),
        "tiers": [_tier_to_json(plan, tier) for tier in ranked(plan)],
        "notes": list(notes),
    }


def _print_tiers(plan: Plan, *, is_small: bool) -> None:
    columns = ["tier", "$/M tokens", "tokens/s per MW", "$/MWh"]
    now = plan.actual
    columns += [] if now is None else ["now", "share", "$/year"]
    columns += ["best", "share", "tokens/s", "$/year", "limited by"]
    rows = []
    for tier in ranked(plan):
        name = tier.tier
        row = [
            name,
            write_price(tier.price),
            f"{to_number(tier.tps_per_mw, decimals=0):,.0f}",
            write_price(tier.usd_per_mw_second * SECONDS_PER_HOUR),
        ]
        if now is not None:
            row += _part(now, name, is_small=is_small)
        best = _part(plan.best, name, is_small=is_small)
        row += [*best[:2], write_tokens(plan.best.tps[name]), best[2]]
        rows.append([*row, _LIMITS[plan.limits[name]]])
    print_table(columns, rows)


def _part(mix: Mix, tier: str, *, is_small: bool) -> list[str]:
    return [
        write_power(mix.mw[tier], is_small=is_small),
        write_percent(mix.mw[tier], mix.total_mw),
        write_usd(per_year(mix.usd_per_second[tier])),
    ]


def _print_mixes(plan: Plan, *, is_small: bool) -> None:
    mixes = [("best", plan.best)]
    if plan.actual is not None:
        mixes.insert(0, ("now", plan.actual))
    print_table(
        ["", "IT power", "tokens/s", "revenue/year", "electricity/year", "$/M tokens"],
        (
            [
                name,
                write_power(mix.total_mw, is_small=is_small),
                write_tokens(mix.total_tps),
                write_usd(per_year(mix.revenue_per_second)),
                write_usd(per_year(mix.electricity_per_second))
                if plan.inputs.usd_per_kwh
                else ABSENT,
                write_price(mix.usd_per_million),
            ]
            for name, mix in mixes
        ),
    )


def _print_bars(plan: Plan) -> None:
    tiers = ranked(plan)
    shades = {it.tier: _SHADES[place % len(_SHADES)] for place, it in enumerate(tiers)}
    whole = max(plan.inputs.it_mw, plan.actual.total_mw if plan.actual else Fraction(0))
    if plan.actual is not None:
        click.echo(f"now   {_bar(plan.actual, tiers=tiers, shades=shades, whole=whole)}")
    click.echo(f"best  {_bar(plan.best, tiers=tiers, shades=shades, whole=whole)}")
    entries = [f"{shades[it.tier]} {it.tier}" for it in tiers]
    click.echo(f"      {'   '.join([*entries, f'{_SPARE} spare'])}")


def _bar(mix: Mix, *, tiers: Sequence[Tier], shades: dict[str, str], whole: Fraction) -> str:
    """Return the power of a mix as a bar; edges are rounded, so that all of it has its length."""
    bar, reached = "", Fraction(0)
    for tier in tiers:
        reached += mix.mw[tier.tier]
        bar += shades[tier.tier] * (round(_BAR_COLUMNS * reached / whole) - len(bar))
    return bar.ljust(_BAR_COLUMNS, _SPARE)


def _breaches(plan: Plan, mix: Mix) -> Iterator[str]:
    for tier in ranked(plan):
        served = mix.tps[tier.tier]
        if served < tier.minimum_tps:
            yield f"{tier.tier} gets less than its minimum"
        if tier.demand_tps is not None and served > tier.demand_tps:
            yield f"{tier.tier} gets more than is asked for"
    if mix.total_mw > plan.inputs.it_mw:
        yield "it takes more than the power that there is"


def _margin(mix: Mix) -> Fraction:
    return mix.revenue_per_second - mix.electricity_per_second


def _mix_to_json(mix: Mix) -> dict[str, object]:
    return {
        "it_mw": to_number(mix.total_mw),
        "tokens_per_second": to_number(mix.total_tps, decimals=3),
        "usd_per_year": to_number(per_year(mix.revenue_per_second), decimals=2),
        "electricity_usd_per_year": to_number(per_year(mix.electricity_per_second), decimals=2),
        "usd_per_million_tokens": to_number(mix.usd_per_million),
    }


def _tier_to_json(plan: Plan, tier: Tier) -> dict[str, object]:
    name, hourly = tier.tier, tier.usd_per_mw_second * SECONDS_PER_HOUR
    told: dict[str, object] = {
        "tier": name,
        "usd_per_million_tokens": to_number(tier.price),
        "tokens_per_second_per_mw": to_number(tier.tps_per_mw),
        "usd_per_mwh": to_number(hourly),
        "usd_per_mw_year": to_number(hourly * HOURS_PER_YEAR, decimals=2),
        "limited_by": str(plan.limits[name]),
    }
    for which, mix in (("best", plan.best), ("actual", plan.actual)):
        told[which] = mix and {
            "mw": to_number(mix.mw[name]),
            "tokens_per_second": to_number(mix.tps[name], decimals=3),
            "usd_per_year": to_number(per_year(mix.usd_per_second[name]), decimals=2),
        }
    return told
