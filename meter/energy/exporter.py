"""Reads a page of dcgm-exporter: the energy counter of each board, in whole millijoules."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from meter.domain.limits import (
    COUNTER_MJ_MAX,
    DEVICE_CHARS_MAX,
    ENERGY_LINE_CHARS_MAX,
    ENERGY_PAGE_DEVICES_MAX,
)

# Millijoules of one unit, by the counter's name: what a number is in is never guessed from it.
_MJ_OF_UNIT: Final = {
    # Up to dcgm-exporter 4.8.
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": 1,
    # From 4.9 on, with DCGM 4.7.
    "DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL": 1_000,
}
# The second is how it is written where old names are kept. The host's name is no part of it.
_DEVICE_LABELS: Final = ("UUID", "uuid")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What a page says: mJ by device, and how many of its energy samples made no sense.

    A board that stands there several times, for each of its parts (MIG) or under both names, has
    its highest value.
    """

    counters_mj: dict[str, int]
    unreadable_count: int


def read_page(text: str) -> Page:
    """Read a page in the Prometheus text form; lines of other metrics are passed over unread."""
    counters: dict[str, int] = {}
    unreadable_count = 0
    for line in text.split("\n"):
        name = next((name for name in _MJ_OF_UNIT if line.startswith(name)), None)
        if name is None or line[len(name) : len(name) + 1] not in {"{", " ", "\t", ""}:
            continue
        try:
            device, counter_mj = _read_sample(line, mj_of_unit=_MJ_OF_UNIT[name])
        except (ValueError, IndexError):
            # The parser of torn lines looks behind their end.
            unreadable_count += 1
            continue
        if device not in counters and len(counters) == ENERGY_PAGE_DEVICES_MAX:
            unreadable_count += 1
            continue
        counters[device] = max(counters.get(device, 0), counter_mj)
    return Page(counters_mj=counters, unreadable_count=unreadable_count)


def _read_sample(line: str, *, mj_of_unit: int) -> tuple[str, int]:
    """Return the device and its counter in mJ, rounded down; raises ValueError."""
    if len(line) > ENERGY_LINE_CHARS_MAX:
        raise ValueError("no line of an exporter")
    # A line at a time: one that is torn does not take the others with it.
    ((sample,),) = (family.samples for family in text_string_to_metric_families(line))
    device = next((sample.labels[it] for it in _DEVICE_LABELS if it in sample.labels), "")
    if not device or len(device) > DEVICE_CHARS_MAX or not device.isprintable():
        raise ValueError("no name of a device")
    # By its digits: binary fractions would make 0.3 J less than 300 mJ.
    value = Decimal(repr(sample.value))
    if not value.is_finite() or not 0 <= value * mj_of_unit <= COUNTER_MJ_MAX:
        raise ValueError("no counter")
    return device, int(value * mj_of_unit)
