"""Which reader a source of the settings has."""

from collections.abc import Callable

from meter.energy.counters import Source
from meter.energy.sources.dcgm import DcgmReader
from meter.energy.sources.nvml import NvmlReader
from meter.energy.sources.port import SourceReader
from meter.energy.sources.static import StaticReader
from meter.options import EnergySource


def open_source(
    source: EnergySource, *, monotonic_seconds: Callable[[], float]
) -> tuple[Source, SourceReader]:
    """Return what kind of source it is, and what reads it; nothing is read yet."""
    if source.is_nvml:
        return Source.NVML, NvmlReader()
    if source.static_watts is not None:
        return Source.STATIC, StaticReader(pool=source.pool, watts=source.static_watts)
    return Source.DCGM, DcgmReader(source.url, monotonic_seconds=monotonic_seconds)
