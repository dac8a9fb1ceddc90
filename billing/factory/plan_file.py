"""What is planned with, as TOML; see `docs/factory.md`. Pure.

A file may leave out what is measured: `PlanTerms.complete` puts both together and says what is
missing still.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Final

from billing.factory.figures import raise_to, ratio
from billing.factory.plan import ZERO, PlanImpossible, PlanInput, Tier
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
class TierTerms:
    """What is said of a tier; None is not said. `demand_tps` is that at the price `demand_at`."""

    tps_per_mw: Fraction | None = None
    price: Fraction | None = None
    minimum_tps: Fraction | None = None
    demand_tps: Fraction | None = None
    demand_at: Fraction | None = None
    elasticity: Decimal | None = None
    actual_mw: Fraction | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanTerms:
    """What a file, or measuring, says; None is not said. Units are those of `PlanInput`."""

    name: str = ""
    power_mw: Fraction | None = None
    pue: Fraction | None = None
    usd_per_kwh: Fraction | None = None
    tiers: Mapping[str, TierTerms] = field(default_factory=dict)

    def complete(
        self, known: "PlanTerms | None" = None, *, prices: Mapping[str, Fraction] | None = None
    ) -> PlanInput:
        """Return what is planned with: `prices` before these terms, and these before what is known.

        Raises PlanImpossible when something is in none of them.
        """
        known, prices = known or PlanTerms(), prices or {}
        names = list(dict.fromkeys([*self.tiers, *known.tiers]))
        unknown = [name for name in prices if name not in names]
        if unknown:
            raise PlanImpossible(f"a price is given for {unknown[0]}, which is none of the tiers")
        if not names:
            raise PlanImpossible("there are no tiers to plan with")
        power_mw = _first(self.power_mw, known.power_mw)
        if power_mw is None:
            raise PlanImpossible("power_mw is said nowhere: how much power is there?")
        nothing = TierTerms()
        return PlanInput(
            name=self.name or known.name,
            power_mw=power_mw,
            pue=_first(self.pue, known.pue) or _ONE,
            usd_per_kwh=self.usd_per_kwh or ZERO,
            tiers=[
                _complete_tier(
                    name,
                    self.tiers.get(name, nothing),
                    known=known.tiers.get(name, nothing),
                    price=prices.get(name),
                )
                for name in names
            ],
        )


def read_plan(text: str) -> PlanTerms:
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
    found = PlanTerms(
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
    name: str, terms: TierTerms, *, known: TierTerms, price: Fraction | None
) -> Tier:
    rate = _first(terms.tps_per_mw, known.tps_per_mw)
    price = _first(price, terms.price, known.price)
    if rate is None:
        raise PlanImpossible(f"tokens_per_second_per_mw of {name} is said nowhere")
    if price is None:
        raise PlanImpossible(f"usd_per_million_tokens of {name} is said nowhere")
    return Tier(
        tier=name,
        tps_per_mw=rate,
        price=price,
        minimum_tps=_first(terms.minimum_tps, known.minimum_tps) or ZERO,
        demand_tps=_demand_at(terms, price),
        actual_mw=_first(terms.actual_mw, known.actual_mw),
    )


def _first(*values: Fraction | None) -> Fraction | None:
    return next((it for it in values if it is not None), None)


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
