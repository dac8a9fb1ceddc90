"""What books and contracts write in the same way: ids, zones, times, lists of keys, prices."""

import re
from collections.abc import Collection, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Final
from zoneinfo import ZoneInfo

from billing.limits import ID_CHARS_MAX
from billing.money import Currency, find_currency
from billing.periods import find_zone, read_local
from billing.price_book import MODE_NAMES, class_name
from meter.domain.limits import MODEL_CHARS_MAX, TIER_CHARS_MAX
from meter.domain.tokens import Mode, TokenClass
from meter.toml_file import Entry, Table, quote

FORMAT: Final = 1
ALL: Final = "all"
CLASSES: Final[Mapping[str, TokenClass]] = {class_name(it): it for it in TokenClass}
MODES: Final[Mapping[str, Mode]] = {name: mode for mode, name in MODE_NAMES.items()}
_ID: Final = re.compile(r"[a-z0-9][a-z0-9_-]*")

# The tiers that are sold; None where a file that was taken in is read again, whatever is sold now.
Tiers = Collection[str] | None


def read_format(root: Table) -> None:
    """Check that the file is of the format that is read here."""
    entry = root.need("format")
    if entry is not None and (entry.value != FORMAT or entry.value is True):
        entry.note(f"must be {FORMAT}, the only format so far")


def read_id(entry: Entry | None) -> str | None:
    """Return the id of a book, contract, party or window."""
    return None if entry is None else entry.matching(_ID, chars_max=ID_CHARS_MAX)


def check_id(entry: Entry) -> bool:
    """Tell whether the last key of an entry's path is an id; note it when it is none."""
    key = str(entry.path[-1])
    if len(key) > ID_CHARS_MAX or not _ID.fullmatch(key):
        entry.note(f"its name must match {_ID.pattern}, with at most {ID_CHARS_MAX} characters")
        return False
    return True


def read_zone(entry: Entry | None) -> ZoneInfo | None:
    """Return a time zone."""
    name = None if entry is None else entry.text(chars_max=ID_CHARS_MAX)
    if entry is None or name is None:
        return None
    zone = find_zone(name)
    if zone is None:
        entry.note(f'{quote(name)} is no time zone; write an IANA name such as "Europe/Berlin"')
    return zone


def read_currency(entry: Entry | None) -> Currency | None:
    """Return a currency."""
    code = None if entry is None else entry.text(chars_max=ID_CHARS_MAX)
    if entry is None or code is None:
        return None
    currency = find_currency(code)
    if currency is None:
        entry.note(
            f"{quote(code)} is no currency that can be paid in; write an ISO 4217 code such as"
            ' "USD"'
        )
    return currency


def read_instant(entry: Entry | None, zone: ZoneInfo | None) -> int | None:
    """Return the instant (ms), an edge, of a local time in the zone; None without a zone."""
    local: datetime | None = None if entry is None else entry.local_time()
    if entry is None or local is None or zone is None:
        return None
    try:
        return read_local(local, zone)
    except ValueError as error:
        entry.note(str(error))
        return None


def read_model_name(entry: Entry) -> str | None:
    """Return the name of a model, or a pattern."""
    name = entry.text(chars_max=MODEL_CHARS_MAX)
    return name if name is not None and check_model_name(entry, name) else None


def check_model_name(entry: Entry, name: str) -> bool:
    """Tell whether a text can be the name of a model, or a pattern; note why not at the entry."""
    if not name or len(name) > MODEL_CHARS_MAX or not name.isprintable():
        entry.note(
            f"the name of a model has 1 to {MODEL_CHARS_MAX} characters, all of which can be"
            " printed"
        )
        return False
    if "**" in name:
        entry.note(f"{quote(name)}: write one `*`, which stands for any characters")
        return False
    return True


def read_models(entry: Entry | None) -> tuple[str, ...]:
    """Return a list of names and patterns of models; empty for none."""
    found = map(read_model_name, entry.distinct() if entry else ())
    return tuple(it for it in found if it is not None)


def check_tier(entry: Entry, tier: str, *, tiers: Tiers) -> bool:
    """Tell whether a tier is sold; note it at the entry when it is not."""
    if tiers is None or tier in tiers:
        return True
    entry.note(f"{quote(tier)} is no tier that is sold here; there are {', '.join(tiers)}")
    return False


def read_tiers(entry: Entry | None, *, tiers: Tiers) -> tuple[str, ...]:
    """Return a list of tiers; empty for none."""
    found: list[str] = []
    for item in entry.distinct() if entry else ():
        tier = item.text(chars_max=TIER_CHARS_MAX)
        if tier is not None and check_tier(item, tier, tiers=tiers):
            found.append(tier)
    return tuple(found)


def read_modes(entry: Entry | None) -> tuple[Mode, ...]:
    """Return a list of modes; empty for none."""
    return () if entry is None else entry.choices(MODES, what="mode")


def read_prices(table: Table) -> tuple[dict[TokenClass, Decimal], Decimal | None]:
    """Return the prices by class that a table has, and the one for all others."""
    prices = {name: entry.decimal() for name, entry in table.entries.items() if is_price(name)}
    by_class = {
        CLASSES[it]: price for it, price in prices.items() if it != ALL and price is not None
    }
    return by_class, prices.get(ALL)


def is_price(key: str) -> bool:
    """Tell whether a key of a table has a price: a class, or all of them."""
    return key == ALL or key in CLASSES
