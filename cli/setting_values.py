"""How each kind of setting is read: from a text, or from a value of TOML.

A wrong one raises ValueError with the rule that it breaks.
"""

import ipaddress
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from meter.domain.limits import (
    ENERGY_SOURCES_MAX,
    ENGINES_MAX,
    FACILITY_WATTS_MAX,
    POOL_CHARS_MAX,
    TIER_CHARS_MAX,
)
from meter.options import EnergySource, EnginePlace

_TIER = re.compile(rf"[a-z0-9][a-z0-9_-]{{0,{TIER_CHARS_MAX - 1}}}")
# What Postgres keeps of an application_name.
_STANDBY = re.compile(r"[!-+\--~]([ -+\--~]{0,61}[!-+\--~])?")
# Printable ASCII without blanks: it goes into a request as it is.
_URL = re.compile(r"[!-~]{1,1000}")
_RATING = re.compile(r"static:([0-9]{1,9})")
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")


def read_text(value: object) -> str:
    """Return a text without the blanks around it; an empty one is wrong."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be a text that is not empty")
    return value.strip()


def read_path(value: object) -> Path:
    """Return an absolute path, ~ resolved."""
    return Path(read_text(value)).expanduser().absolute()


def read_existing_file(value: object) -> Path:
    """Return the absolute path of a file that is there."""
    path = read_path(value)
    if not path.is_file():
        raise ValueError(f"{path} is no file")
    return path


def read_database_url(value: object) -> str:
    """Return a Postgres URL that begins with postgresql://; it may name several hosts."""
    if not re.match(r"postgres(ql)?://", read_text(value)):
        raise ValueError("must begin with postgresql://")
    # Slow to load, and what most commands are told of is a server, not a database.
    from psycopg import ProgrammingError  # noqa: PLC0415
    from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415

    from meter.runtime.database_url import engine_url  # noqa: PLC0415

    url = read_text(value).replace("postgres://", "postgresql://", 1)
    try:
        engine_url(url)
        conninfo_to_dict(url)
    except (ArgumentError, ProgrammingError, ValueError):
        # Their words repeat parts of the URL, which has a password in it.
        raise ValueError(
            "must be a URL like postgresql://user:password@host:port/database, with several"
            " host:port separated by commas or one, and no setting that libpq does not know"
        ) from None
    return url


def read_address(value: object) -> str:
    """Return host:port."""
    address = read_text(value)
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004 — the highest port
        raise ValueError("must be host:port, for instance 127.0.0.1:7411")
    return address


def read_boolean(value: object) -> bool:
    """Return true or false, also of 1 or 0."""
    known = {True: True, False: False, "true": True, "1": True, "false": False, "0": False}
    if not isinstance(value, bool | str) or value not in known:
        raise ValueError("must be true or false")
    return known[value]


def read_integer(*, minimum: int, maximum: int) -> Callable[[object], int]:
    """Return what reads a whole number between two, both included."""

    def parse(value: object) -> int:
        written = str(value)
        if isinstance(value, bool) or not re.fullmatch(r"-?\d{1,18}", written):
            raise ValueError("must be a whole number")
        if not minimum <= int(written) <= maximum:
            raise ValueError(f"must be {minimum} to {maximum}")
        return int(written)

    return parse


def read_tiers(value: object) -> tuple[str, ...]:
    """Return different names of tiers."""
    names = value if isinstance(value, list) else read_text(value).split(",")
    tiers = tuple(read_text(name) for name in names)
    wrong = [tier for tier in tiers if not _TIER.fullmatch(tier)]
    if not tiers or wrong or len(set(tiers)) != len(tiers):
        raise ValueError(
            f"must be different names of 1 to {TIER_CHARS_MAX} characters a-z, 0-9, _ or -,"
            " separated by commas"
        )
    return tiers


def read_standbys(value: object) -> tuple[str, ...]:
    """Return different application_names."""
    written = value if isinstance(value, list) else read_text(value).split(",")
    names = tuple(read_text(name) for name in written)
    if len(set(names)) < len(names) or any(not _STANDBY.fullmatch(name) for name in names):
        raise ValueError(
            "must be different application_names of standbys, printable and of at most 63"
            " characters, separated by commas"
        )
    return names


def read_energy_sources(value: object) -> tuple[EnergySource, ...]:
    """Return energy sources, each of a place of its own; a rating stands alone for its pool."""
    written = value if isinstance(value, list) else read_text(value).split(",")
    if len(written) > ENERGY_SOURCES_MAX:
        raise ValueError(f"must be at most {ENERGY_SOURCES_MAX}")
    sources = tuple(_energy_source(read_text(each)) for each in written)
    measuring = [source.url for source in sources if source.static_watts is None]
    if len(set(measuring)) < len(measuring):
        raise ValueError(
            "must each have a place of its own, a URL or nvml: what it shows belongs to one pool"
        )
    for pool in {source.pool for source in sources if source.static_watts is not None}:
        if sum(source.pool == pool for source in sources) > 1:
            raise ValueError(
                f"must have nothing beside the rating of {pool}: when what is measured comes back,"
                " the same energy would count twice"
            )
    return sources


def read_engines(value: object) -> tuple[EnginePlace, ...]:
    """Return engines' pages, each of a place of its own."""
    written = value if isinstance(value, list) else read_text(value).split(",")
    if len(written) > ENGINES_MAX:
        raise ValueError(f"must be at most {ENGINES_MAX}")
    places = tuple(_engine(read_text(each)) for each in written)
    if len({place.url for place in places}) < len(places):
        raise ValueError("must each have a URL of its own: a replica belongs to one pool")
    return places


def _engine(written: str) -> EnginePlace:
    pool, _, url = (part.strip() for part in written.partition("="))
    if not url or not pool or not pool.isprintable() or len(pool) > POOL_CHARS_MAX:
        raise ValueError("must be pool=URL, separated by commas")
    if not _is_page(url):
        raise ValueError(f"{url!r} must be like http://127.0.0.1:8000/metrics")
    return EnginePlace(pool=pool, url=url)


def _energy_source(written: str) -> EnergySource:
    pool, _, url = (part.strip() for part in written.partition("="))
    if not url or not pool or not pool.isprintable() or len(pool) > POOL_CHARS_MAX:
        raise ValueError("must be pool=URL, pool=nvml or pool=static:WATTS, separated by commas")
    if url != "nvml" and not _is_rating(url) and not _is_page(url):
        raise ValueError(
            f"{url!r} must be like http://127.0.0.1:9400/metrics, or nvml, or static:WATTS with"
            f" whole watts from 1 to {FACILITY_WATTS_MAX}"
        )
    return EnergySource(pool=pool, url=url)


def _is_rating(url: str) -> bool:
    found = _RATING.fullmatch(url)
    return found is not None and 1 <= int(found[1]) <= FACILITY_WATTS_MAX


def _is_page(url: str) -> bool:
    try:
        place = urlsplit(url)
        # What the name of a machine cannot be, and ports out of range, are ValueErrors too.
        (place.hostname or "").encode("idna")
        is_whole = bool(place.hostname) and place.port != 0
    except ValueError:
        return False
    is_plain = place.scheme == "http" and "@" not in place.netloc
    return is_whole and is_plain and _URL.fullmatch(url) is not None


def read_instant(value: object) -> datetime:
    """Return an instant in UTC of the years 2000 to 2199."""
    rule = "must be an instant in UTC of the years 2000 to 2199, for instance 2026-10-01T00:00:00Z"
    try:
        # TOML has times of its own.
        time = value if isinstance(value, datetime) else datetime.fromisoformat(read_text(value))
    except ValueError as error:
        raise ValueError(rule) from error
    if time.utcoffset() != timedelta(0) or time.year not in range(2000, 2200):
        raise ValueError(rule)
    return time


def read_log_level(value: object) -> str:
    """Return a log level in small letters."""
    if read_text(value).lower() not in LOG_LEVELS:
        raise ValueError(f"must be one of {', '.join(LOG_LEVELS)}")
    return read_text(value).lower()


def read_log_format(value: object) -> str:
    """Return how the log is written, in small letters."""
    if read_text(value).lower() not in LOG_FORMATS:
        raise ValueError(f"must be one of {', '.join(LOG_FORMATS)}")
    return read_text(value).lower()


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach a host:port."""
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_collector_url(value: object) -> str:
    """Return http://host:port or https://host:port."""
    url = read_text(value)
    try:
        place = urlsplit(url)
        is_whole = place.scheme in ("http", "https") and bool(place.hostname) and bool(place.port)
    except ValueError:
        is_whole = False
    if not is_whole or place.path.strip("/") or _URL.fullmatch(url) is None:
        raise ValueError("must be http://host:port or https://host:port")
    return url
