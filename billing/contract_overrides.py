"""The overrides of a contract's file: prices of its own, and which of them could never apply."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from billing.file_terms import (
    ALL,
    CLASSES,
    Tiers,
    read_models,
    read_modes,
    read_prices,
    read_tiers,
)
from billing.limits import MODELS_LISTED_MAX, OVERRIDES_MAX
from billing.price_book import Override, class_name, matches
from meter.domain.tokens import Mode, TokenClass
from meter.toml_file import Entry

_OVERRIDE_KEYS: Final = ("models", "tiers", "modes", "classes", "factor", "prices")


def read_overrides(entry: Entry | None, *, tiers: Tiers) -> tuple[Override, ...]:
    """Return the overrides of a list, in its order; empty for none."""
    entries = (entry.entries() if entry else None) or []
    if entry is not None and len(entries) > OVERRIDES_MAX:
        entry.note(f"has more than {OVERRIDES_MAX} overrides")
        return ()
    overrides: list[tuple[Entry, Override]] = []
    for index, each in enumerate(entries):
        override = _read_override(index, each, tiers=tiers)
        if override is not None:
            overrides.append((each, override))
    if entry is not None and sum(len(it.models) for _, it in overrides) > MODELS_LISTED_MAX:
        entry.note(f"lists more than {MODELS_LISTED_MAX} models in all; a pattern stands for many")
        return ()
    for place, (each, override) in enumerate(overrides):
        for earlier_entry, earlier in overrides[:place]:
            if _takes_all(earlier, override, tiers=tiers):
                each.note(
                    f"never applies: the override of line {earlier_entry.line} comes before it and"
                    " is for all that this one is for"
                )
                break
    return tuple(override for _, override in overrides)


def _read_override(index: int, entry: Entry, *, tiers: Tiers) -> Override | None:
    table = entry.table(_OVERRIDE_KEYS)
    if table is None:
        return None
    count_before = entry.file.fault_count
    factor_entry, prices_entry = table.find("factor"), table.find("prices")
    if (factor_entry is None) == (prices_entry is None):
        entry.note("must have either a `factor` or `prices`")
    classes_entry = table.find("classes")
    classes = classes_entry.choices(CLASSES, what="token class") if classes_entry else ()
    factor = None if factor_entry is None else factor_entry.decimal()
    prices, every = _read_override_prices(prices_entry, classes)
    override = Override(
        index=index,
        models=read_models(table.find("models")),
        tiers=read_tiers(table.find("tiers"), tiers=tiers),
        modes=read_modes(table.find("modes")),
        classes=classes,
        factor=factor,
        prices=prices,
        all=every,
    )
    return None if entry.file.fault_count > count_before else override


def _read_override_prices(
    entry: Entry | None, classes: Sequence[TokenClass]
) -> tuple[dict[TokenClass, Decimal], Decimal | None]:
    table = None if entry is None else entry.table((*CLASSES, ALL))
    if entry is None or table is None:
        return {}, None
    if not entry.value:
        entry.note("is empty")
    for name, each in table.entries.items():
        if classes and name != ALL and CLASSES[name] not in classes:
            listed = ", ".join(map(class_name, classes))
            each.note(f"never applies: the override is for {listed} only")
    return read_prices(table)


def _takes_all(earlier: Override, later: Override, *, tiers: Tiers) -> bool:
    """Tell whether each key that the later one is for is the earlier one's."""
    models = not earlier.models or (
        bool(later.models)
        and all(any(matches(it, name) for it in earlier.models) for name in later.models)
    )
    return (
        models
        and _has_all(earlier.tiers, later.tiers, every=tuple(tiers or ()))
        and _has_all(earlier.modes, later.modes, every=tuple(Mode))
        and _classes_of(earlier) >= _classes_of(later)
    )


def _has_all(
    earlier: Sequence[object], later: Sequence[object], *, every: Sequence[object]
) -> bool:
    """Tell whether a list has all that another has, where an empty one stands for every one."""
    wanted = later or every
    return not earlier or (bool(wanted) and set(earlier) >= set(wanted))


def _classes_of(override: Override) -> frozenset[TokenClass]:
    classes = frozenset(override.classes or TokenClass)
    is_of_all = override.factor is not None or override.all is not None
    return classes if is_of_all else classes & override.prices.keys()
