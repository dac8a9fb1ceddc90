"""Small libraries that are loaded before others (LD_PRELOAD), built here with gcc."""

import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.faults.row import Skipped

_SOURCES: Final = Path(__file__).parent
_BUILD_SECONDS_MAX: Final = 60


def build(name: str, *, folder: Path) -> Path:
    """Build a library of this folder; returns its path. Raises Skipped without gcc."""
    if shutil.which("gcc") is None:
        raise Skipped("there is no gcc to build a library with")
    library = folder / f"{name}.so"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-o", library, _SOURCES / f"{name}.c"],
        check=True,
        timeout=_BUILD_SECONDS_MAX,
    )
    return library
