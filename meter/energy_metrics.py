"""The Prometheus metrics of energy, of the sites that draw it, and of what it emits.

Energy is counted at a boundary, and that of two boundaries is never added up. All of it is live:
shared out at each look at the sources by what was counted since the one before. SQL has it by whole
intervals, and invoices and ratios of months come from there.
"""

from typing import Final

from meter.domain.metric import Entry, Joining
from meter.series import Exposition

# 1 to a million joules, two for each factor of ten.
_JOULES: Final = tuple(round(10 ** (step / 2), 2) for step in range(13))

ENERGY: Final = Entry(
    name="tokenworks_energy_joules_total",
    kind="counter",
    unit="joules",
    labels=("pool", "boundary", "source"),
    meaning="Energy of a pool, by boundary (board, host) and by source (dcgm, nvml, static,"
    " reported). Each device is in it once. At each boundary, attributed and unattributed energy"
    " add up to it.",
)
ENERGY_ESTIMATED: Final = Entry(
    name="tokenworks_energy_estimated_joules_total",
    kind="counter",
    unit="joules",
    labels=("pool", "boundary", "method"),
    meaning="What of the energy no counter measured, by method: gauge_integral (power, where the"
    " device has no counter), static (a rating, the last resort).",
)
ENERGY_ATTRIBUTED: Final = Entry(
    name="tokenworks_energy_attributed_joules_total",
    kind="counter",
    unit="joules",
    labels=("pool", "tier", "model", "boundary", "kind"),
    meaning="Energy by whom it served, in proportion to the weighted tokens counted since the look"
    " before. By kind: active, or idle (a share of the pool's idling, where the factory's"
    " description shares it out).",
)
ENERGY_UNATTRIBUTED: Final = Entry(
    name="tokenworks_energy_unattributed_joules_total",
    kind="counter",
    unit="joules",
    labels=("pool", "boundary", "reason"),
    meaning="Energy that served no tier: gap (samples too far apart), no_tokens (none were counted"
    " since the look before), idle (what devices take for idling, by the factory's description),"
    " unmapped (devices that it does not name).",
)
ATTRIBUTION_RESIDUAL: Final = Entry(
    name="tokenworks_attribution_residual_joules",
    kind="gauge",
    unit="joules",
    labels=("pool", "boundary"),
    joining=Joining.SUM,
    meaning="Energy that is neither attributed, nor unattributed, nor waits to be. Always 0; else"
    " the meter errs, and no ratio of it is to be believed.",
)
ENERGY_RESETS: Final = Entry(
    name="tokenworks_energy_counter_resets_total",
    kind="counter",
    unit="resets",
    labels=("pool", "source"),
    meaning="Energy counters that went back, or leapt further than their device can have used. A"
    " driver was loaded anew, a board was changed, or an exporter errs.",
)
ENERGY_GAP: Final = Entry(
    name="tokenworks_energy_gap_seconds_total",
    kind="counter",
    unit="seconds",
    labels=("pool", "source"),
    meaning="Time between samples that lay too far apart, or without known energy, added up over"
    " the pool's devices when the next sample comes.",
)
ENERGY_IGNORED: Final = Entry(
    name="tokenworks_energy_readings_ignored_total",
    kind="counter",
    unit="readings",
    labels=("pool", "reason"),
    meaning="Readings that add nothing though they are new: conflict (another source or another"
    " pool has the device).",
)
ENERGY_SCRAPES_FAILED: Final = Entry(
    name="tokenworks_energy_scrapes_failed_total",
    kind="counter",
    unit="reads",
    labels=("pool", "reason"),
    meaning="Reads of an energy source that gave less than they should, by reason: unreachable,"
    " refused (not status 200), too_large, unreadable (samples without sense; the others are used),"
    " no_counters, no_library and device_lost (of this machine's GPUs).",
)
POWER_VALID: Final = Entry(
    name="tokenworks_power_valid",
    kind="gauge",
    unit="pools",
    labels=("pool",),
    joining=Joining.MIN,
    meaning="1 while the power of the pool is valid, else 0: ratios of its energy are not to be"
    " believed, and the recording rules leave it out. tokenworks_power_fault says why.",
)
POWER_FAULT: Final = Entry(
    name="tokenworks_power_fault",
    kind="gauge",
    unit="pools",
    labels=("pool", "fault"),
    meaning="1 for each reason why the pool's power is not valid, else 0: no_sample, stale,"
    " devices, cross_check, implausible, conflict.",
)
ENERGY_LAST_SAMPLE: Final = Entry(
    name="tokenworks_energy_last_sample_timestamp_seconds",
    kind="gauge",
    unit="seconds",
    labels=("pool", "source"),
    meaning="When a counter of the pool last moved, in seconds since 1970, by source.",
)
ENERGY_CROSS_CHECK: Final = Entry(
    name="tokenworks_energy_crosscheck_ratio",
    kind="gauge",
    unit="ratio",
    labels=("pool",),
    meaning="The integral of the pool's power gauges by what its counters say of the same devices"
    " and time. 1 is agreement; a thousand, or a thousandth, is a wrong unit. Absent where no"
    " device has both.",
)
SITE_ENERGY: Final = Entry(
    name="tokenworks_site_energy_joules_total",
    kind="counter",
    unit="joules",
    labels=("site",),
    meaning="Energy that the site's own meters reported, cooling and losses included.",
)
POOL_INFO: Final = Entry(
    name="tokenworks_pool_info",
    kind="gauge",
    unit="pools",
    labels=("pool", "site", "hardware", "software"),
    meaning="1 for each pool of the factory's description that is in force: its site and hardware,"
    " and the software that was last marked on it (empty without a mark).",
)
PUE: Final = Entry(
    name="tokenworks_pue_ratio",
    kind="gauge",
    unit="ratio",
    labels=("site", "basis"),
    meaning="How much more a site takes than its pools, as the factory's description says"
    " (basis=configured). The measured one is the recording rule site:tokenworks_pue:ratio_rate5m.",
)
POWER_BUDGET: Final = Entry(
    name="tokenworks_power_budget_watts",
    kind="gauge",
    unit="watts",
    labels=("site",),
    meaning="What the site's contract for electricity allows, by the factory's description.",
)
POWER_RESERVED: Final = Entry(
    name="tokenworks_power_reserved_watts",
    kind="gauge",
    unit="watts",
    labels=("site", "tier"),
    meaning="What of it is kept for a tier, by the factory's description.",
)
GRID_CARBON: Final = Entry(
    name="tokenworks_grid_carbon_grams_per_kilowatt_hour",
    kind="gauge",
    unit="grams of CO2e a kilowatt-hour",
    labels=("site", "method"),
    meaning="What a kilowatt-hour of the site's grid emits, by method (location, market), by the"
    " factory's description.",
)
CARBON: Final = Entry(
    name="tokenworks_carbon_grams_total",
    kind="counter",
    unit="grams of CO2e",
    labels=("tier", "method"),
    meaning="What the energy attributed to a tier emitted: that of hosts (of boards where no host"
    " is measured), times the site's PUE of the last hour (measured, else configured), times what"
    " its grid emits. Pools whose site has no PUE or no such number are not in it.",
)
REQUEST_ENERGY: Final = Entry(
    name="tokenworks_request_energy_joules",
    kind="histogram",
    unit="joules",
    labels=("tier",),
    meaning="Energy of boards that a request took: each counts with the mean of its pool, tier and"
    " model since the look before, for nobody measures a single one.",
)
CATALOGUE: Final = (
    ENERGY,
    ENERGY_ESTIMATED,
    ENERGY_ATTRIBUTED,
    ENERGY_UNATTRIBUTED,
    ATTRIBUTION_RESIDUAL,
    ENERGY_RESETS,
    ENERGY_GAP,
    ENERGY_IGNORED,
    ENERGY_SCRAPES_FAILED,
    POWER_VALID,
    POWER_FAULT,
    ENERGY_LAST_SAMPLE,
    ENERGY_CROSS_CHECK,
    SITE_ENERGY,
    POOL_INFO,
    PUE,
    POWER_BUDGET,
    POWER_RESERVED,
    GRID_CARBON,
    CARBON,
    REQUEST_ENERGY,
)
# What is 0 as long as all is well, so that no test can show it move.
ALWAYS_ZERO: Final = (ATTRIBUTION_RESIDUAL,)


class EnergyMetrics:
    """The catalogue's metrics on a page."""

    def __init__(self, page: Exposition) -> None:
        """Make them all."""
        self.joules = page.counter(ENERGY)
        self.estimated = page.counter(ENERGY_ESTIMATED)
        self.attributed = page.counter(ENERGY_ATTRIBUTED)
        self.unattributed = page.counter(ENERGY_UNATTRIBUTED)
        self.residual = page.gauge(ATTRIBUTION_RESIDUAL)
        self.resets = page.counter(ENERGY_RESETS)
        self.gap_seconds = page.counter(ENERGY_GAP)
        self.ignored = page.counter(ENERGY_IGNORED)
        self.scrapes_failed = page.counter(ENERGY_SCRAPES_FAILED)
        self.power_valid = page.gauge(POWER_VALID)
        self.power_fault = page.gauge(POWER_FAULT)
        self.last_sample = page.gauge(ENERGY_LAST_SAMPLE)
        self.cross_check = page.gauge(ENERGY_CROSS_CHECK)
        self.site_joules = page.counter(SITE_ENERGY)
        self.pool_info = page.gauge(POOL_INFO)
        self.pue = page.gauge(PUE)
        self.power_budget = page.gauge(POWER_BUDGET)
        self.power_reserved = page.gauge(POWER_RESERVED)
        self.grid_carbon = page.gauge(GRID_CARBON)
        self.carbon = page.counter(CARBON)
        self.request_joules = page.counted_histogram(REQUEST_ENERGY, buckets=_JOULES)
