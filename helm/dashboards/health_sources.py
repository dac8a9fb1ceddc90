"""The part of "Metering health" about sources: who reports requests, and what engines counted."""

from typing import Final

from helm.dashboards.dashboard import Row
from helm.dashboards.panels import series
from helm.dashboards.questions import Asked

SOURCES: Final = Row(
    title="Sources and engines",
    heights=(8, 8),
    panels=(
        series(
            "Reports by source",
            says="Reports a second by who reports and what became of them. Each request is counted"
            " once; observed is what others said of it.",
            asks=[
                Asked(
                    expr="sum by (source, result)"
                    " (rate(tokenworks_observations_total[$__rate_interval]))"
                    ' or on () label_replace(vector(0), "source", "none", "", "")',
                    legend="{{source}} {{result}}",
                )
            ],
            unit="reqps",
            width=8,
            legend="bottom",
        ),
        series(
            "Sources, last heard",
            says="How long ago any server heard of each source.",
            asks=[
                Asked(
                    expr="time() - max by (source) (tokenworks_source_heard_timestamp_seconds)"
                    ' or on () label_replace(vector(0), "source", "none", "", "")',
                    legend="{{source}}",
                )
            ],
            unit="s",
            width=8,
            legend="bottom",
        ),
        series(
            "Reports in memory, and undecided",
            says="Reports that are held until they are recorded and that nobody sends again, and"
            " reports that are to take another one's place.",
            asks=[
                Asked(
                    expr="sum by (source) (tokenworks_reports_held)"
                    ' or on () label_replace(vector(0), "source", "none", "", "")',
                    legend="{{source}}, held",
                ),
                Asked(expr="max(tokenworks_observations_waiting)", legend="undecided"),
            ],
            unit="short",
            width=8,
            legend="bottom",
        ),
        series(
            "Drift of engines",
            says="What the engines of a pool counted of a model above what was metered, as a share"
            " of it: of the last complete day. Below 0, more was metered.",
            asks=[
                Asked(
                    expr="max by (pool, model, kind)"
                    ' (tokenworks_engine_drift_ppm{window="1d"}) / 1e6'
                    ' or on () label_replace(vector(0), "pool", "none", "", "")',
                    legend="{{pool}}, {{model}} {{kind}}",
                )
            ],
            unit="percentunit",
            width=8,
            legend="bottom",
        ),
        series(
            "Reports that differ",
            says="Reports a second with other tokens than the counted one of their request: one of"
            " the two is set up wrong.",
            asks=[
                Asked(
                    expr="sum by (source)"
                    " (rate(tokenworks_observation_conflicts_total[$__rate_interval]))"
                    ' or on () label_replace(vector(0), "source", "none", "", "")',
                    legend="{{source}}",
                )
            ],
            unit="reqps",
            width=8,
            legend="bottom",
        ),
        series(
            "What cannot be read",
            says="Reports a second of which no event could be made, and reads of engines' pages"
            " that gave nothing.",
            asks=[
                Asked(
                    expr="sum by (source)"
                    " (rate(tokenworks_reports_unreadable_total[$__rate_interval]))"
                    ' or on () label_replace(vector(0), "source", "none", "", "")',
                    legend="{{source}}",
                ),
                Asked(
                    expr="sum by (pool, reason)"
                    " (rate(tokenworks_engine_reads_failed_total[$__rate_interval])) > 0",
                    legend="{{pool}}: {{reason}}",
                ),
            ],
            unit="reqps",
            width=8,
            legend="bottom",
        ),
    ),
)
