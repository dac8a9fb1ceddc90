"""The factory's description as TOML: what a file says; see `docs/reference/factory.md`. Pure."""

import re
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Final

from meter.domain.interval import is_on_edge
from meter.domain.limits import (
    DEVICE_CHARS_MAX,
    DEVICE_WATTS_MAX,
    FACTORY_DEVICES_MAX,
    FACTORY_NAMES_MAX,
    MODEL_CHARS_MAX,
    POOL_CHARS_MAX,
    PUE_MAX,
    QUOTE_CHARS_MAX,
    SITE_WATTS_MAX,
    WEIGHT_MAX,
)
from meter.domain.times import to_ms
from meter.energy.factory import (
    WEIGHT_UNIT,
    Carbon,
    Factory,
    IdlePolicy,
    Pool,
    Site,
    Weights,
)
from meter.toml_file import Entry, Table, TomlFile, quote

FORMAT: Final = 1
_MW_PER_WATT: Final = 1_000
_KEYS: Final = ("format", "from", "sites", "pools", "weights")
_SITE_KEYS: Final = ("contracted_watts", "pue", "reserved_watts", "carbon")
_CARBON_KEYS: Final = ("location", "market", "source")
_POOL_KEYS: Final = ("site", "hardware", "device_count", "devices", "idle_watts", "idle")
_WEIGHT_KEYS: Final = ("hardware", "model", "input", "cached_input", "output", "source")
_TOKEN_KINDS: Final = ("input", "cached_input", "output")
_IDLE: Final = {it.value: it for it in IdlePolicy}
_TEXT_CHARS_MAX: Final = 200
_ANY: Final = re.compile(r"\*?")


def read_factory(text: str, *, version: int, tiers: Collection[str] | None) -> Factory:
    """Return the version of the description that a TOML text says; raises FileFaults with all.

    `tiers` are those that the installation sells, and no others may be named; None for a text that
    was taken in before, when it may have sold others.
    """
    file = TomlFile(text)
    root = file.root.table(_KEYS)
    assert root is not None
    form = root.need("format")
    if form is not None and (form.value != FORMAT or form.value is True):
        form.note(f"must be {FORMAT}, the only format so far")
    start_ms = _read_begin(root.need("from"))
    sites = {
        name: _read_site(name, entry, tiers=tiers) for name, entry in _named(root.need("sites"))
    }
    pools = {
        name: _read_pool(name, entry, sites=sites) for name, entry in _named(root.find("pools"))
    }
    _check_devices(root, pools)
    weights = _read_weights(root.find("weights"))
    file.check()
    assert start_ms is not None
    return Factory(
        version=version,
        start_ms=start_ms,
        sites={name: site for name, site in sites.items() if site is not None},
        pools={name: pool for name, pool in pools.items() if pool is not None},
        weights=weights,
    )


def _read_begin(entry: Entry | None) -> int | None:
    """Return the instant (ms) of a time in UTC on an edge."""
    if entry is None:
        return None
    at = entry.value
    if not isinstance(at, datetime) or at.tzinfo is None or at.utcoffset() != timedelta(0):
        entry.note("must be a time in UTC, without quotes: 2026-10-01T00:00:00Z")
        return None
    at_ms = to_ms(at)
    if at_ms < 0 or at.microsecond or not is_on_edge(at_ms):
        entry.note("must begin an interval: on the minute 0, 15, 30 or 45, from 1970 on")
        return None
    return at_ms


def _named(entry: Entry | None) -> list[tuple[str, Entry]]:
    """Return the entries of a table whose keys are names of sites or pools."""
    table = None if entry is None else entry.table()
    if entry is None or table is None:
        return []
    if not table.entries:
        entry.note("is empty; leave it out")
    if len(table.entries) > FACTORY_NAMES_MAX:
        entry.note(f"has more than {FACTORY_NAMES_MAX:,} entries")
        return []
    named = []
    for name, each in table.entries.items():
        if not name or len(name) > POOL_CHARS_MAX or not name.isprintable():
            each.note(f"its name must have 1 to {POOL_CHARS_MAX} characters that can be printed")
        else:
            named.append((name, each))
    return named


def _read_site(name: str, entry: Entry, *, tiers: Collection[str] | None) -> Site | None:
    table = entry.table(_SITE_KEYS)
    if table is None:
        return None
    watts = table.need("contracted_watts")
    contracted = None if watts is None else watts.integer(minimum=1, maximum=SITE_WATTS_MAX)
    reserved = _read_reserved(table.find("reserved_watts"), tiers=tiers, contracted=contracted)
    pue_entry = table.find("pue")
    pue = None if pue_entry is None else pue_entry.decimal()
    if pue_entry is not None and pue is not None and not 1 <= pue <= PUE_MAX:
        pue_entry.note(f"must be 1 to {PUE_MAX}: the site's energy by that of its machines")
    carbon_entry = table.find("carbon")
    carbon = None if carbon_entry is None else _read_carbon(carbon_entry)
    if contracted is None:
        return None
    return Site(
        site=name,
        contracted_watts=contracted,
        pue=pue,
        reserved_watts=reserved,
        carbon=carbon,
    )


def _read_reserved(
    entry: Entry | None, *, tiers: Collection[str] | None, contracted: int | None
) -> dict[str, int]:
    table = None if entry is None else entry.table()
    if entry is None or table is None:
        return {}
    reserved: dict[str, int] = {}
    for tier, each in table.entries.items():
        if tiers is not None and tier not in tiers:
            each.note(f"{quote(tier)} is no tier that is sold here; there are {', '.join(tiers)}")
        watts = each.integer(minimum=1, maximum=SITE_WATTS_MAX)
        if watts is not None:
            reserved[tier] = watts
    if contracted is not None and sum(reserved.values()) > contracted:
        entry.note("sets aside more than `contracted_watts`")
    return reserved


def _read_carbon(entry: Entry) -> Carbon | None:
    table = entry.table(_CARBON_KEYS)
    if table is None:
        return None
    grams = {
        key: each.decimal() for key, each in table.entries.items() if key in ("location", "market")
    }
    if not grams:
        entry.note("must have `location` or `market`, in grams of CO2e a kilowatt-hour")
    source = table.need("source")
    return Carbon(
        location=grams.get("location"),
        market=grams.get("market"),
        source="" if source is None else source.text(chars_max=_TEXT_CHARS_MAX) or "",
    )


def _read_pool(name: str, entry: Entry, *, sites: Mapping[str, Site | None]) -> Pool | None:
    table = entry.table(_POOL_KEYS)
    if table is None:
        return None
    site = _read_text(table.need("site"), chars_max=POOL_CHARS_MAX)
    if site and site not in sites:
        table.entries["site"].note(f"no site {quote(site)}; write a table [sites.{site}]")
    hardware = _read_text(table.need("hardware"), chars_max=QUOTE_CHARS_MAX)
    devices = _read_devices(table.find("devices"))
    count_entry = table.find("device_count")
    count = None if count_entry is None else count_entry.integer(minimum=1, maximum=10**9)
    if count_entry is not None and count is not None and devices and count != len(devices):
        count_entry.note(f"must be {len(devices)}, as `devices` lists; or leave it out")
    idle_entry = table.find("idle")
    idle = None if idle_entry is None else idle_entry.choice(_IDLE, what="policy of idling")
    if idle_entry is not None and "idle_watts" not in table.entries:
        idle_entry.note("says nothing without `idle_watts`")
    return Pool(
        pool=name,
        site=site,
        hardware=hardware,
        device_count=len(devices) or count,
        devices=frozenset(devices),
        idle_mw=_read_watts(table.find("idle_watts")),
        idle=idle or IdlePolicy.UNATTRIBUTED,
    )


def _read_devices(entry: Entry | None) -> list[str]:
    if entry is None:
        return []
    if isinstance(entry.value, list) and len(entry.value) > FACTORY_DEVICES_MAX:
        entry.note(f"lists more than {FACTORY_DEVICES_MAX:,} devices; give `device_count` instead")
        return []
    found = [each.text(chars_max=DEVICE_CHARS_MAX) for each in entry.distinct()]
    return [device for device in found if device is not None]


def _check_devices(root: Table, pools: Mapping[str, Pool | None]) -> None:
    """Note each device that a pool lists, and another one before it."""
    owners: dict[str, str] = {}
    for name, pool in pools.items():
        for device in sorted(pool.devices if pool is not None else ()):
            if owners.setdefault(device, name) != name:
                root.entry.file.note(
                    ("pools", name, "devices"),
                    f"{quote(device)} is a device of the pool {quote(owners[device])} already",
                )


def _read_watts(entry: Entry | None) -> int:
    """Return mW."""
    watts = None if entry is None else entry.decimal()
    if entry is None or watts is None:
        return 0
    if watts > DEVICE_WATTS_MAX or watts * _MW_PER_WATT % 1:
        entry.note(f"must be 0 to {DEVICE_WATTS_MAX} watts, with at most 3 decimals")
        return 0
    return int(watts * _MW_PER_WATT)


def _read_weights(entry: Entry | None) -> tuple[Weights, ...]:
    found: list[tuple[Entry, Weights]] = []
    for each in (entry.entries() if entry else None) or ():
        table = each.table(_WEIGHT_KEYS)
        if table is None:
            continue
        kinds = {kind: _read_weight(table.need(kind)) for kind in _TOKEN_KINDS}
        if not any(kinds.values()) and kinds.keys() <= table.entries.keys():
            each.note("all its weights are 0: nobody's tokens would take anything")
        weights = Weights(
            hardware=_read_text(table.find("hardware"), chars_max=QUOTE_CHARS_MAX),
            model=_read_model(table.find("model")),
            source=_read_text(table.find("source"), chars_max=_TEXT_CHARS_MAX),
            **kinds,
        )
        for earlier_entry, earlier in found:
            if _fits_all(earlier, weights):
                each.note(
                    f"never applies: the weights of line {earlier_entry.line} come before it and"
                    " fit all that these are for"
                )
                break
        found.append((each, weights))
    return tuple(weights for _, weights in found)


def _read_weight(entry: Entry | None) -> int:
    """Return millionths."""
    weight = None if entry is None else entry.decimal()
    if entry is None or weight is None:
        return 0
    if weight > WEIGHT_MAX or weight * WEIGHT_UNIT % 1:
        entry.note(f"must be 0 to {WEIGHT_MAX}, with at most 6 decimals")
        return 0
    return int(weight * WEIGHT_UNIT)


def _read_model(entry: Entry | None) -> str:
    model = _read_text(entry, chars_max=MODEL_CHARS_MAX)
    if entry is not None and "**" in model:
        entry.note(f"{quote(model)}: write one `*`, which stands for any characters")
    return model


def _read_text(entry: Entry | None, *, chars_max: int) -> str:
    return "" if entry is None else entry.text(chars_max=chars_max) or ""


def _fits_all(earlier: Weights, later: Weights) -> bool:
    """Tell whether the earlier weights fit whatever the later ones are for."""
    is_of_any = _ANY.fullmatch(earlier.model) is not None
    return earlier.hardware in {"", later.hardware} and (is_of_any or earlier.model == later.model)
