"""Price books as TOML: what a file says, as a version; see `docs/reference/price-book.md`."""

from collections.abc import Collection
from decimal import Decimal
from typing import Final

from billing.file_terms import (
    ALL,
    CLASSES,
    MODES,
    Tiers,
    check_id,
    check_model_name,
    check_tier,
    is_price,
    read_currency,
    read_format,
    read_id,
    read_instant,
    read_model_name,
    read_models,
    read_modes,
    read_prices,
    read_tiers,
    read_zone,
)
from billing.limits import MODELS_LISTED_MAX, WINDOWS_MAX
from billing.model_names import ModelName, check_names
from billing.price_book import (
    DAY_NAMES,
    Band,
    ModelKeys,
    ModelPrices,
    PriceBook,
    PriceTable,
    Window,
    can_meet,
)
from billing.window_hours import Hours, check_own_hours, check_windows, read_hours
from meter.domain.tokens import BAND_EDGES, Mode, TokenClass
from meter.toml_file import Entry, Table, TomlFile, quote

MISSING: Final = "hold"
_KEYS: Final = (
    *("format", "book", "from", "zone", "currency", "missing"),
    *("same", "tiers", "modes", "windows", "models"),
)
_WINDOW_KEYS: Final = ("days", "hours", "models", "tiers", "modes", "factor")
_PRICE_KEYS: Final = (*CLASSES, ALL)
_TIER_KEYS: Final = (*_PRICE_KEYS, "above")
_MODEL_KEYS: Final = (*_TIER_KEYS, "names", "tier")
_BAND_KEYS: Final = (*_PRICE_KEYS, "prompt")
_DAYS: Final = {name: number for number, name in enumerate(DAY_NAMES)}


def read_book(text: str, *, tiers: Collection[str] | None) -> PriceBook:
    """Return the version of a book that a TOML text says; raises FileFaults with all its faults.

    `tiers` are those that the installation sells, and no others may be named; None for a text that
    was taken in before, when it may have sold others.
    """
    file = TomlFile(text)
    root = file.root.table(_KEYS)
    assert root is not None
    read_format(root)
    book = read_id(root.need("book"))
    zone = read_zone(root.need("zone"))
    start_ms = read_instant(root.need("from"), zone)
    currency = read_currency(root.need("currency"))
    _check_missing(root.find("missing"))
    same = _read_same(root.find("same"))
    tier_factors = _read_tier_factors(root.find("tiers"), tiers=tiers)
    modes = _read_mode_factors(root.find("modes"))
    models, names = _read_models(root.need("models"), tiers=tiers)
    keys = ModelKeys(models, names=names)
    windows = _read_windows(root.find("windows"), tiers=tiers, keys=keys)
    file.check()
    assert book is not None
    assert zone is not None
    assert start_ms is not None
    assert currency is not None
    return PriceBook(
        book=book,
        start_ms=start_ms,
        zone=zone,
        currency=currency,
        same=same,
        tiers=tier_factors,
        modes=modes,
        windows=windows,
        models=models,
        names=names,
    )


def _check_missing(entry: Entry | None) -> None:
    if entry is not None and entry.value != MISSING:
        entry.note(f'must be "{MISSING}": what has no price holds the invoice; free is written "0"')


def _read_same(entry: Entry | None) -> dict[TokenClass, TokenClass]:
    table = None if entry is None else entry.table()
    same: dict[TokenClass, TokenClass] = {}
    for name, each in {} if table is None else table.entries.items():
        other = each.choice(CLASSES, what="token class")
        if name not in CLASSES:
            each.note(f"{quote(name)} is no token class; there are {', '.join(CLASSES)}")
        elif other is not None and name == each.value:
            each.note("a class has its own price anyway; leave it out")
        elif other is not None and table is not None and each.value in table.entries:
            each.note(f"{each.value} is priced as another class itself; one step is all there is")
        elif other is not None:
            same[CLASSES[name]] = other
    return same


def _read_tier_factors(entry: Entry | None, *, tiers: Tiers) -> dict[str, Decimal] | None:
    table = None if entry is None else _filled_table(entry)
    if table is None:
        return None
    factors: dict[str, Decimal] = {}
    for tier, each in table.entries.items():
        factor = each.decimal()
        if check_tier(each, tier, tiers=tiers) and factor is not None:
            factors[tier] = factor
    return factors


def _read_mode_factors(entry: Entry | None) -> dict[Mode, Decimal]:
    table = None if entry is None else entry.table(tuple(MODES))
    factors: dict[Mode, Decimal] = {}
    for name, each in {} if table is None else table.entries.items():
        factor = each.decimal()
        if factor is not None:
            factors[MODES[name]] = factor
    return factors


def _read_models(
    entry: Entry | None, *, tiers: Tiers
) -> tuple[dict[str, ModelPrices], dict[str, str]]:
    """Return the models by their keys, and which key each further name stands for."""
    table = None if entry is None else _filled_table(entry)
    if entry is None or table is None:
        return {}, {}
    models: dict[str, ModelPrices] = {}
    keys: list[ModelName] = []
    aliases: list[ModelName] = []
    for key, each in table.entries.items():
        model = each.table(_MODEL_KEYS)
        if not check_model_name(each, key) or model is None:
            continue
        keys.append(ModelName(key, key, each))
        names = model.find("names")
        for item in (names.entries() if names else None) or ():
            name = read_model_name(item)
            if name is not None:
                aliases.append(ModelName(name, key, item))
        models[key] = _read_model(model, tiers=tiers)
    check_names(entry, keys=keys, aliases=aliases)
    return models, {it.name: it.key for it in aliases}


def _read_model(model: Table, *, tiers: Tiers) -> ModelPrices:
    tier = model.find("tier")
    by_tier = None if tier is None else _filled_table(tier)
    written: dict[str, PriceTable] = {}
    for name, entry in {} if by_tier is None else by_tier.entries.items():
        table = entry.table(_TIER_KEYS)
        if check_tier(entry, name, tiers=tiers) and table is not None:
            _check_priced(table)
            written[name] = _read_price_table(table)
    if tier is None:
        _check_priced(model)
    return ModelPrices(table=_read_price_table(model), tiers=written)


def _check_priced(table: Table) -> None:
    if not any(is_price(key) or key == "above" for key in table.entries):
        table.entry.note('has no price; write one for a token class or for `all`; free is "0"')


def _read_price_table(table: Table) -> PriceTable:
    prices, every = read_prices(table)
    above = table.find("above")
    bands: dict[int, Band] = {}
    lines: dict[int, int] = {}
    for entry in (above.entries() if above else None) or ():
        band = _read_band(entry)
        if band is not None and band.prompt in bands:
            entry.note(f"the prompt of line {lines[band.prompt]} again: {band.prompt:_}")
        elif band is not None:
            bands[band.prompt] = band
            lines[band.prompt] = entry.line
    from_the_highest = tuple(bands[prompt] for prompt in sorted(bands, reverse=True))
    return PriceTable(prices=prices, all=every, bands=from_the_highest)


def _read_band(entry: Entry) -> Band | None:
    table = entry.table(_BAND_KEYS)
    if table is None:
        return None
    prices, every = read_prices(table)
    _check_priced(table)
    prompt = table.need("prompt")
    if prompt is None:
        return None
    if not isinstance(prompt.value, int) or prompt.value not in BAND_EDGES:
        edges = ", ".join(f"{it:_}" for it in BAND_EDGES)
        prompt.note(f"must be one of {edges}, between which usage is kept apart")
        return None
    return Band(prompt=prompt.value, prices=prices, all=every)


def _read_windows(entry: Entry | None, *, tiers: Tiers, keys: ModelKeys) -> tuple[Window, ...]:
    table = None if entry is None else entry.table()
    if entry is None or table is None:
        return ()
    if len(table.entries) > WINDOWS_MAX:
        entry.note(f"has more than {WINDOWS_MAX} windows")
        return ()
    windows: list[tuple[Entry, Window]] = []
    for name, each in table.entries.items():
        window = _read_window(name, each, tiers=tiers, keys=keys) if check_id(each) else None
        if window is not None:
            windows.append((each, window))
    if sum(len(window.models) for _, window in windows) > MODELS_LISTED_MAX:
        entry.note(f"lists more than {MODELS_LISTED_MAX} models in all; a pattern stands for many")
        return ()
    check_windows(windows, keys)
    return tuple(window for _, window in windows)


def _read_window(name: str, entry: Entry, *, tiers: Tiers, keys: ModelKeys) -> Window | None:
    table = entry.table(_WINDOW_KEYS)
    if table is None:
        return None
    count_before = entry.file.fault_count
    days_entry, hours_entry, factor_entry = map(table.need, ("days", "hours", "factor"))
    days = () if days_entry is None else days_entry.choices(_DAYS, what="day")
    hours: list[tuple[Entry, Hours]] = []
    for item in (hours_entry.entries() if hours_entry else None) or ():
        span = read_hours(item)
        if span is not None:
            hours.append((item, span))
    check_own_hours(days, hours)
    _check_are_of_book(table.find("models"), keys=keys)
    models = read_models(table.find("models"))
    window_tiers = read_tiers(table.find("tiers"), tiers=tiers)
    modes = read_modes(table.find("modes"))
    factor = None if factor_entry is None else factor_entry.decimal()
    if entry.file.fault_count > count_before or factor is None:
        return None
    return Window(
        name=name,
        days=frozenset(days),
        hours=tuple(span for _, span in hours),
        models=models,
        tiers=window_tiers,
        modes=modes,
        factor=factor,
    )


def _check_are_of_book(models: Entry | None, *, keys: ModelKeys) -> None:
    """Note what no model of the book is called: a window would never hold for it."""
    known = [*keys.exact, *(pattern for pattern, _ in keys.patterns)]
    for item in (models.entries() if models else None) or ():
        name = item.value
        if isinstance(name, str) and not any(can_meet(name, it) for it in known):
            item.note(f"{quote(name)} is no model of this book, so the window is never for it")


def _filled_table(entry: Entry) -> Table | None:
    table = entry.table()
    if table is not None and not table.entries:
        entry.note("is empty")
        return None
    return table
