"""What one of all servers does for them all: the names by which they share it; see `Leases`."""

import hashlib
import json
from collections.abc import Sequence
from typing import Final

from meter.options import MeterOptions

ARBITER: Final = "arbiter"


def tasks_of(options: MeterOptions) -> list[str]:
    """Return what a server may be asked to do for all."""
    found = (energy_task(options), machine_task(options), engines_task(options), ARBITER)
    return [it for it in found if it]


def energy_task(options: MeterOptions) -> str:
    """Return what servers with the same sources of the network call the reading of them, or ""."""
    return _task(
        "energy", [f"{it.pool}={it.url}" for it in options.energy_sources if not it.is_nvml]
    )


def machine_task(options: MeterOptions) -> str:
    """Return what the workers of a crew call the reading of their machine's accelerators, or ""."""
    if options.crew is None:
        return ""
    return _task(f"nvml:{options.crew}", [it.pool for it in options.energy_sources if it.is_nvml])


def engines_task(options: MeterOptions) -> str:
    """Return what servers with the same engines call the reading of them, or ""."""
    return _task("engines", [f"{it.pool}={it.url}" for it in options.engines])


def _task(kind: str, shared: Sequence[str]) -> str:
    digest = hashlib.sha256(json.dumps(sorted(shared)).encode()).hexdigest()
    return f"{kind}:{digest}" if shared else ""
