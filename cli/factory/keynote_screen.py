"""The keynote's table and claims, worked out again, as people and programs read them."""

from fractions import Fraction
from typing import Final

import click

from billing.factory.figures import per_year
from billing.factory.keynote import Claim, Generation, claims, generations
from billing.money import round_fraction
from cli.accounts import print_table
from cli.factory.amounts import ABSENT, to_number, write_tokens

_BILLION: Final = 10**9


def print_keynote() -> None:
    """Print both tables."""
    found = generations()
    tiers = [it.tier for it in found[-1].inputs.tiers]
    click.echo("GTC 2026 keynote: a gigawatt in equal parts, billions of dollars a year\n")
    print_table(
        ["generation", *tiers, "sum", "tokens/s", "$/M tokens"],
        (
            [
                it.shipped,
                *(_billions(it, tier) for tier in tiers),
                f"{round_fraction(it.usd_per_year / _BILLION, decimals=3)}",
                write_tokens(it.mix.total_tps),
                _blended(it),
            ]
            for it in found
        ),
    )
    print_table(
        ["claim", "by", "comes out as", "published", "verdict", "note"],
        (
            [
                it.claim,
                it.inputs,
                ABSENT if it.computed is None else _figure(it.computed, it),
                ABSENT if it.published is None else _figure(it.published, it),
                str(it.verdict),
                it.note,
            ]
            for it in claims()
        ),
    )
    click.echo("Throughputs are one reader's of the chart, and no data of the vendor's.")


def keynote_to_json() -> dict[str, object]:
    """Return both tables for programs."""
    return {
        "generations": [
            {
                "name": it.shipped,
                "usd_per_year": to_number(it.usd_per_year, decimals=2),
                "tokens_per_second": to_number(it.mix.total_tps),
                "usd_per_million_tokens": to_number(it.mix.usd_per_million),
                "usd_per_year_by_tier": {
                    tier: to_number(per_year(earned), decimals=2)
                    for tier, earned in it.mix.usd_per_second.items()
                },
            }
            for it in generations()
        ],
        "claims": [
            {
                "claim": it.claim,
                "inputs": it.inputs,
                "unit": it.unit,
                "computed": to_number(it.computed),
                "published": to_number(it.published),
                "verdict": str(it.verdict),
                "note": it.note,
            }
            for it in claims()
        ],
    }


def _billions(of: Generation, tier: str) -> str:
    earned = of.mix.usd_per_second.get(tier)
    if earned is None:
        return ABSENT
    return f"{round_fraction(per_year(earned) / _BILLION, decimals=3)}"


def _blended(of: Generation) -> str:
    price = of.mix.usd_per_million
    return ABSENT if price is None else f"{round_fraction(price, decimals=3)}"


def _figure(value: Fraction, of: Claim) -> str:
    decimals = 0 if value.denominator == 1 and value == of.published else of.decimals
    return f"{round_fraction(value, decimals=decimals):,} {of.unit}"
