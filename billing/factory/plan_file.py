"""What is planned with, as TOML; see `docs/factory.md`. Pure.

A file may leave out what is measured: `PlanFile.complete` puts both together and says what is
missing still.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Final

from billing.factory.figures import raise_to, ratio
from billing.factory.plan import ZERO, PlanInput, Tier
from billing.file_terms import read_format
from billing.limits import TEXT_CHARS_MAX
from meter.domain.limits import TIER_CHARS_MAX
from meter.toml_file import Entry, Table, TomlFile

_KEYS: Final = ("format", "name", "power_mw", "pue", "usd_per_kwh", "tiers")
_TIER_KEYS: Final = (
    *("tokens_per_second_per_mw", "usd_per_million_tokens", "minimum_tokens_per_second"),
    *("demand_tokens_per_second", "demand_at_usd_per_million_tokens", "elasticity", "actual_mw"),
)
_ONE: Final = Fraction(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of a factory by measuring; None is not known.

    Of each tier: `tps_per_mw`, `price`, `minimum_tps` and `actual_mw` as in `Tier`.
    """

    name: str = ""
    power_mw: Fraction | None = None
    pue: Fraction | None = None
    tiers: Mapping[str, Tier] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TierTerms:
    """What a file says of a tier; None is not said. `demand_tps` is asked for at `demand_at`."""

    tps_per_mw: Fraction | None = None
    price: Fraction | None = None
    minimum_tps: Fraction | None = None
    demand_tps: Fraction | None = None
    demand_at: Fraction | None = None
    elasticity: Decimal | None = None
    actual_mw: Fraction | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFile:
    """What a file says; None is not said."""

    name: str = ""
    power_mw: Fraction | None = None
    pue: Fraction | None = None
    usd_per_kwh: Fraction | None = None
    tiers: Mapping[str, TierTerms] = field(default_factory=dict)

    def complete(
        self, known: Known | None = None, *, prices: Mapping[str, Fraction] | None = None
    ) -> PlanInput:
        """Return what is planned with: `prices` before the file, the file before what is known.

        Raises ValueError when something is in none of them.
        """
        known, prices = known or Known(), prices or {}
        names = list(dict.fromkeys([*self.tiers, *known.tiers]))
        unknown = [name for name in prices if name not in names]
        if unknown:
            raise ValueError(f"a price is given for {unknown[0]}, which is none of the tiers")
        if not names:
            raise ValueError("there are no tiers to plan with")
        power_mw = known.power_mw if self.power_mw is None else self.power_mw
        if power_mw is None:
            raise ValueError("power_mw is said nowhere: how much power is there?")
        pue = known.pue if self.pue is None else self.pue
        return PlanInput(
            name=self.name or known.name,
            power_mw=power_mw,
            pue=_ONE if pue is None else pue,
            usd_per_kwh=self.usd_per_kwh or ZERO,
            tiers=[
                _complete_tier(
                    name,
                    self.tiers.get(name, TierTerms()),
                    known=known.tiers.get(name),
                    price=prices.get(name),
                )
                for name in names
            ],
        )


def read_plan(text: str) -> PlanFile:
    """Return what a TOML text says; raises FileFaults with all faults."""
    file = TomlFile(text)
    root = file.root.table(_KEYS)
    assert root is not None
    read_format(root)
    name = root.find("name")
    pue_entry = root.find("pue")
    pue = _fraction(pue_entry)
    if pue_entry is not None and pue is not None and pue < 1:
        pue_entry.note("must be 1 or more: a site draws at least what its IT does")
    tiers_entry = root.find("tiers")
    tiers = None if tiers_entry is None else tiers_entry.table()
    found = PlanFile(
        name="" if name is None else name.text(chars_max=TEXT_CHARS_MAX) or "",
        power_mw=_positive(root.find("power_mw")),
        pue=pue,
        usd_per_kwh=_fraction(root.find("usd_per_kwh")),
        tiers={} if tiers is None else _read_tiers(tiers),
    )
    file.check()
    return found


def _read_tiers(tiers: Table) -> dict[str, TierTerms]:
    found = {}
    for name, entry in tiers.entries.items():
        if not name or len(name) > TIER_CHARS_MAX or not name.isprintable():
            entry.note(
                f"the name of a tier has 1 to {TIER_CHARS_MAX} characters, all of which can be"
                " printed"
            )
        table = entry.table(_TIER_KEYS)
        if table is not None:
            found[name] = _read_tier(table)
    return found


def _read_tier(table: Table) -> TierTerms:
    rate, price, minimum, demand, demand_at, elasticity, actual = map(table.find, _TIER_KEYS)
    terms = TierTerms(
        tps_per_mw=_fraction(rate),
        price=_fraction(price),
        minimum_tps=_fraction(minimum),
        demand_tps=_fraction(demand),
        demand_at=_positive(demand_at),
        elasticity=None if elasticity is None else elasticity.decimal(),
        actual_mw=_fraction(actual),
    )
    parts = {"demand_tokens_per_second": demand, "demand_at_usd_per_million_tokens": demand_at}
    for key, entry in parts.items():
        if elasticity is not None and entry is None:
            elasticity.note(f"needs `{key}`: demand is so much at a price")
    if demand_at is not None and elasticity is None:
        demand_at.note("says nothing without `elasticity`")
    if elasticity is not None and price is not None and terms.price == 0:
        elasticity.note("has no meaning for a tier that is free: its demand has no end")
    return terms


def _complete_tier(
    name: str, terms: TierTerms, *, known: Tier | None, price: Fraction | None
) -> Tier:
    rate, minimum, actual = terms.tps_per_mw, terms.minimum_tps, terms.actual_mw
    price = terms.price if price is None else price
    if known is not None:
        rate = known.tps_per_mw if rate is None else rate
        price = known.price if price is None else price
        minimum = known.minimum_tps if minimum is None else minimum
        actual = known.actual_mw if actual is None else actual
    if rate is None:
        raise ValueError(f"tokens_per_second_per_mw of {name} is said nowhere")
    if price is None:
        raise ValueError(f"usd_per_million_tokens of {name} is said nowhere")
    return Tier(
        tier=name,
        tps_per_mw=rate,
        price=price,
        minimum_tps=minimum or ZERO,
        demand_tps=_demand_at(terms, price),
        actual_mw=actual,
    )


def _demand_at(terms: TierTerms, price: Fraction) -> Fraction | None:
    """Return what is asked for at a price: of constant elasticity, where one is said."""
    if terms.elasticity is None or terms.demand_tps is None or terms.demand_at is None:
        return terms.demand_tps
    if not price:
        # A free tier has no end of demand.
        return None
    return terms.demand_tps * raise_to(ratio(price, terms.demand_at), -terms.elasticity)


def _fraction(entry: Entry | None) -> Fraction | None:
    found = None if entry is None else entry.decimal()
    return None if found is None else Fraction(found)


def _positive(entry: Entry | None) -> Fraction | None:
    found = _fraction(entry)
    if entry is not None and found == 0:
        entry.note("must be above 0")
    return found
