"""Which edition of the time zones this process reads: what two machines may differ in."""

import importlib
import zoneinfo
from functools import cache
from pathlib import Path
from typing import Final

_MARK: Final = "# version "
# Of the machine's own zones, where they do not say.
UNKNOWN_EDITION: Final = "unknown"


@cache
def tzdata_version() -> str:
    """Return the edition of the zones that `zoneinfo` reads, such as 2026f.

    The machine's where it has zones, which are read first, else that of the package beside it.
    """
    return edition_on(zoneinfo.TZPATH)


def edition_on(folders: tuple[str, ...]) -> str:
    """Return the edition of the first folder with zones, or of the package where none has any."""
    for folder in map(Path, folders):
        if (folder / "UTC").is_file():
            return _edition_in(folder)
    try:
        return str(importlib.import_module("tzdata").IANA_VERSION)
    except ImportError:
        return UNKNOWN_EDITION


def _edition_in(folder: Path) -> str:
    try:
        with (folder / "tzdata.zi").open(encoding="utf-8") as file:
            first = file.readline().strip()
    except OSError:
        return UNKNOWN_EDITION
    return first.removeprefix(_MARK) if first.startswith(_MARK) else UNKNOWN_EDITION
