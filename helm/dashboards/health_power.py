"""The part of "Metering health" about power: where it is not measured, or not as it should be."""

from typing import Final

from helm.dashboards.dashboard import Row
from helm.dashboards.panels import BAD_ABOVE_ZERO, GOOD_AT_ONE, Step, bar_gauge, series, stat
from helm.dashboards.questions import Asked

_CROSSCHECK: Final = (
    Step(value=None, color="red"),
    Step(value=0.95, color="green"),
    Step(value=1.05, color="red"),
)
_AGE: Final = (
    Step(value=None, color="green"),
    Step(value=60, color="orange"),
    Step(value=120, color="red"),
)

POWER: Final = Row(
    title="Power",
    heights=(6, 8, 8),
    panels=(
        stat(
            "Power is valid",
            says="1 while all boards of a pool are seen and fresh. Where it is 0, ratios leave the"
            " pool out, and the fault is in the panel beside.",
            asks=[Asked(expr="min by (pool) (tokenworks_power_valid)", legend="{{pool}}")],
            unit="none",
            width=6,
            steps=GOOD_AT_ONE,
        ),
        stat(
            "Faults now",
            says="Why the power of a pool is not valid.",
            asks=[
                Asked(
                    expr="max by (pool, fault) (tokenworks_power_fault > 0)"
                    ' or on () label_replace(vector(0), "fault", "none", "", "")',
                    legend="{{pool}} {{fault}}",
                )
            ],
            unit="none",
            width=6,
            steps=BAD_ABOVE_ZERO,
        ),
        bar_gauge(
            "Age of the newest sample",
            says="Since a counter of the pool last moved. It is fresh for four times as long as it"
            " takes to collect and to read, a minute at least. One that is reported is fresh for 15"
            " minutes: its bar may be red.",
            asks=[
                Asked(
                    expr="time() - max by (pool, source)"
                    " (tokenworks_energy_last_sample_timestamp_seconds)",
                    legend="{{pool}}, {{source}}",
                )
            ],
            unit="s",
            width=6,
            steps=_AGE,
        ),
        stat(
            "Gauge against counter",
            says="Watts added up over an hour, by what the counters say: 1 when both agree. Within"
            " 5 % is usual; a thousand is a wrong unit.",
            asks=[
                Asked(
                    expr="max by (pool) (tokenworks_energy_crosscheck_ratio > 1.05)"
                    " or min by (pool) (tokenworks_energy_crosscheck_ratio)",
                    legend="{{pool}}",
                )
            ],
            unit="none",
            width=6,
            steps=_CROSSCHECK,
            decimals=3,
        ),
        series(
            "Power is valid, over time",
            says="1 while it is, 0 while it is not, by pool.",
            asks=[Asked(expr="min by (pool) (tokenworks_power_valid)", legend="{{pool}}")],
            unit="none",
            width=6,
            legend="bottom",
        ),
        series(
            "Time without energy",
            says="Device-seconds a second that no sample covers: 1 is one board unseen all the"
            " time.",
            asks=[
                Asked(
                    expr="sum by (pool)"
                    " (rate(tokenworks_energy_gap_seconds_total[$__rate_interval]))",
                    legend="{{pool}}",
                )
            ],
            unit="none",
            width=6,
            legend="bottom",
        ),
        series(
            "Counters that went back",
            says="In the span chosen, by pool: a driver was loaded anew, a board was changed, or an"
            " exporter errs.",
            asks=[
                Asked(
                    expr="sum by (pool) (increase(tokenworks_energy_counter_resets_total[$span]))",
                    legend="{{pool}}",
                )
            ],
            unit="short",
            width=6,
            legend="bottom",
        ),
        series(
            "Exporters that gave less than they should",
            says="Scrapes a second that failed and readings that were ignored, by pool and reason.",
            asks=[
                Asked(
                    expr="sum by (pool, reason)"
                    " (rate(tokenworks_energy_scrapes_failed_total[$__rate_interval]))"
                    ' or on () label_replace(vector(0), "reason", "none", "", "")',
                    legend="{{pool}} {{reason}}",
                ),
                Asked(
                    expr="sum by (pool, reason)"
                    " (rate(tokenworks_energy_readings_ignored_total[$__rate_interval])) > 0",
                    legend="{{pool}}, ignored: {{reason}}",
                ),
            ],
            unit="ops",
            width=6,
            legend="bottom",
        ),
        series(
            "Energy that is estimated",
            says="The share of measured energy that no counter measured: gauges added up over time,"
            " or a rating.",
            asks=[
                Asked(
                    expr="(sum by (pool)"
                    " (rate(tokenworks_energy_estimated_joules_total[$__rate_interval]))"
                    " or 0 * sum by (pool)"
                    " (rate(tokenworks_energy_joules_total[$__rate_interval])))"
                    " / sum by (pool)"
                    " (rate(tokenworks_energy_joules_total[$__rate_interval]) > 0)",
                    legend="{{pool}}",
                )
            ],
            unit="percentunit",
            width=8,
            legend="bottom",
        ),
        series(
            "Joules that belong nowhere",
            says="Measured, minus attributed, minus not attributed. It is 0, or the meter errs.",
            asks=[
                Asked(
                    expr="sum by (pool) (abs(tokenworks_attribution_residual_joules))",
                    legend="{{pool}}",
                )
            ],
            unit="joule",
            width=8,
            legend="bottom",
        ),
        series(
            "Series that were folded",
            says="In the span chosen: label sets beyond what a metric may have, which went to"
            " `__other__`. Their sums are right, their names are lost.",
            asks=[
                Asked(
                    expr="sum by (metric) (increase(tokenworks_series_truncated_total[$span]))"
                    ' or on () label_replace(vector(0), "metric", "none", "", "")',
                    legend="{{metric}}",
                )
            ],
            unit="short",
            width=8,
            legend="bottom",
        ),
    ),
)
