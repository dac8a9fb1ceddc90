"""Where settings come from, and what is wrong with them together.

Each function names the place of a fault, for whoever must correct it.
"""

import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from meter.domain.limits import GAP_SCRAPES, RATE_WINDOW_SECONDS

# Kubernetes puts the address of each Service into every container's environment, and a Service may
# be called tokenworks.
_OF_KUBERNETES = re.compile(r"TOKENWORKS(_\w+)?_(SERVICE_HOST|(SERVICE_)?PORT(_\w+)?)")
_PAIRS = (("tls_certificate", "tls_key"), ("client_certificate", "client_key"))
# What means nothing without a certificate of the server's.
_WITH_TLS = ("tls_client_ca", "http_tls")

# The place that a value comes from, and the value.
Given = tuple[str, object]


def gather(
    config: Path | None,
    environment: Mapping[str, str],
    *,
    flags: Mapping[str, object],
    names: Mapping[str, str],
    faults: list[str],
) -> dict[str, Given]:
    """Return what is set in a file, an environment and flags, the later before the earlier.

    `names` are the settings' by those of their variables; what is wrong is added to the faults.
    """
    return {
        **read_file(config, known=names.values(), faults=faults),
        **pick_environment(environment, known=names, faults=faults),
        **pick_flags(flags),
    }


def read_file(path: Path | None, *, known: Collection[str], faults: list[str]) -> dict[str, Given]:
    """Read a settings file (TOML), if there is one."""
    if path is None:
        return {}
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        faults.append(f"{path}: {error}")
        return {}
    faults.extend(f"{path}: {name}: no such setting" for name in content if name not in known)
    return {name: (f"{path}: {name}", value) for name, value in content.items()}


def pick_environment(
    environment: Mapping[str, str], *, known: Mapping[str, str], faults: list[str]
) -> dict[str, Given]:
    """Pick the settings out of an environment; `known` has their names by those of variables."""
    faults.extend(
        f"{name}: no such setting"
        for name in sorted(environment)
        if name not in known and not _OF_KUBERNETES.fullmatch(name)
    )
    return {known[name]: (name, text) for name, text in environment.items() if name in known}


def pick_flags(flags: Mapping[str, object]) -> dict[str, Given]:
    """Pick the flags that were given."""
    return {
        name: (f"--{name.replace('_', '-')}", value)
        for name, value in flags.items()
        if value is not None
    }


def find_faults(values: Mapping[str, Any], *, given: Collection[str]) -> list[str]:
    """Return what is wrong with settings that are right one by one."""
    halves = [
        f"{first} and {second}: set both or neither"
        for first, second in _PAIRS
        if (first in given) != (second in given)
    ]
    bare = [
        f"{name}: needs tls_certificate and tls_key"
        for name in _WITH_TLS
        if values.get(name) and "tls_certificate" not in given
    ]
    return halves + bare + _rate_faults(values) + _retention_faults(values) + _worker_faults(values)


def _retention_faults(values: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with how long the journal is kept: what goes has to go somewhere."""
    if values.get("journal_retention_days") is None or values.get("archive_folder") is not None:
        return []
    return ["journal_retention_days: needs archive_folder, where the journal is written before"]


def _worker_faults(values: Mapping[str, Any]) -> list[str]:
    """Return what several workers cannot have."""
    if values.get("workers", 1) == 1:
        return []
    whys = {
        "shard": "each worker has one of its own",
        "sandbox_clock": "the clock is moved in one worker and followed by the others within a"
        " second, and nobody who reports can choose which of them he reaches",
    }
    return [
        f"workers: must be 1 with {name}: {why}"
        for name, why in whys.items()
        if values.get(name) is not None
    ]


def _rate_faults(values: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with how often energy is read, by what the recording rules need."""
    limit = RATE_WINDOW_SECONDS // GAP_SCRAPES
    return [
        f"{name}: must be at most {limit}: the recording rules look back {RATE_WINDOW_SECONDS}"
        f" seconds, and a rate needs {GAP_SCRAPES} samples in them"
        for name in ("energy_scrape_seconds", "energy_collect_seconds")
        if values.get(name, 0) * GAP_SCRAPES > RATE_WINDOW_SECONDS
    ]
