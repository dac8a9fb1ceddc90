"""Reads dcgm-exporter: of each board its energy counter and its power gauge, whole mJ and mW."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from meter.domain.limits import (
    COUNTER_MJ_MAX,
    DEVICE_CHARS_MAX,
    ENERGY_PAGE_DEVICES_MAX,
    ENERGY_READ_SECONDS_MAX,
)
from meter.energy.sources.page import fetch_page, find_name, read_line
from meter.energy.sources.port import Found, Sample, SourceFailed, SourceFailure

# Millijoules of one unit, by the counter's name: what a number is in is never guessed from it.
_MJ_OF_UNIT: Final = {
    # Up to dcgm-exporter 4.8.
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": 1,
    # From 4.9 on, with DCGM 4.7.
    "DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL": 1_000,
}
# The same of gauges, in milliwatts: of those that are averaged over a second.
_MW_OF_UNIT: Final = {
    "DCGM_FI_DEV_POWER_USAGE": 1_000,
    "DCGM_FI_DEV_BOARD_POWER_WATTS": 1_000,
}
# The second is how it is written where old names are kept. The host's name is no part of it.
_DEVICE_LABELS: Final = ("UUID", "uuid")


class DcgmReader:
    """One exporter, by the URL of its page."""

    def __init__(self, url: str, *, monotonic_seconds: Callable[[], float]) -> None:
        """Take where it is, and what measures how long a read takes."""
        self._url = url
        self._monotonic_seconds = monotonic_seconds

    def read(self) -> Found:
        """Return what the exporter shows; raises SourceFailed."""
        text = fetch_page(
            self._url,
            seconds_max=ENERGY_READ_SECONDS_MAX,
            monotonic_seconds=self._monotonic_seconds,
        )
        page = read_page(text)
        if not page.counters_mj and not page.powers_mw and not page.unreadable_count:
            raise SourceFailed(SourceFailure.NO_COUNTERS)
        return Found(
            samples=page.samples(),
            failure=SourceFailure.UNREADABLE if page.unreadable_count else None,
        )

    def close(self) -> None:
        """Nothing is held between reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What a page says: mJ and mW by device, and how many of its energy samples made no sense.

    A board that stands there several times, for each of its parts (MIG) or under both names, has
    its highest value. A gauge that makes no sense is as good as none.
    """

    counters_mj: Mapping[str, int]
    powers_mw: Mapping[str, int]
    unreadable_count: int = 0

    def samples(self) -> list[Sample]:
        """Return what is known of each device."""
        return [
            Sample(
                device=device,
                counter_mj=self.counters_mj.get(device),
                power_mw=self.powers_mw.get(device),
            )
            for device in {**self.counters_mj, **self.powers_mw}
        ]


def read_page(text: str) -> Page:
    """Read a page in the Prometheus text form; lines of other metrics are passed over unread."""
    counters: dict[str, int] = {}
    powers: dict[str, int] = {}
    unreadable_count = 0
    for line in text.split("\n"):
        for units, found in ((_MJ_OF_UNIT, counters), (_MW_OF_UNIT, powers)):
            name = find_name(line, units)
            if name is None:
                continue
            try:
                _add_sample(line, unit=units[name], found=found)
            except (ValueError, IndexError):
                # The parser of torn lines looks behind their end.
                unreadable_count += found is counters
    return Page(counters_mj=counters, powers_mw=powers, unreadable_count=unreadable_count)


def _add_sample(line: str, *, unit: int, found: dict[str, int]) -> None:
    """Add a device's value, rounded down, in whole parts of its unit; raises ValueError."""
    sample = read_line(line)
    device = next((sample.labels[it] for it in _DEVICE_LABELS if it in sample.labels), "")
    if not device or len(device) > DEVICE_CHARS_MAX or not device.isprintable():
        raise ValueError("no name of a device")
    # By its digits: binary fractions would make 0.3 J less than 300 mJ.
    value = Decimal(repr(sample.value))
    if not value.is_finite() or not 0 <= value * unit <= COUNTER_MJ_MAX:
        raise ValueError("no counter")
    if device not in found and len(found) == ENERGY_PAGE_DEVICES_MAX:
        raise ValueError("more devices than a page has")
    found[device] = max(found.get(device, 0), int(value * unit))
