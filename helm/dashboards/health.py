"""The dashboard "Metering health": whether what the other two show can be believed."""

from typing import Final

from helm.dashboards.dashboard import Dashboard, Row
from helm.dashboards.health_power import POWER
from helm.dashboards.health_sources import SOURCES
from helm.dashboards.panels import BAD_ABOVE_ZERO, GOOD, Step, series, stat
from helm.dashboards.questions import Asked
from helm.dashboards.variables import PROMETHEUS, choice

_BEHIND: Final = (
    Step(value=None, color="green"),
    Step(value=10, color="orange"),
    Step(value=60, color="red"),
)

_AT_A_GLANCE: Final = Row(
    title="At a glance",
    heights=(4,),
    panels=(
        stat(
            "Behind",
            says="How old the oldest report is that is recorded and not counted yet. Nothing is"
            " lost while it grows.",
            asks=[Asked(expr="max(tokenworks_counting_behind_seconds)", legend="behind")],
            unit="s",
            steps=_BEHIND,
        ),
        stat(
            "In quarantine",
            says="Events that wait for a person: `tokenworks usage quarantine` lists them.",
            asks=[Asked(expr="max(tokenworks_quarantine_held)", legend="held")],
            unit="short",
            steps=BAD_ABOVE_ZERO,
        ),
        stat(
            "Batches missing",
            says="Numbers that producers passed over: usage that was lost before it came here.",
            asks=[Asked(expr="max(tokenworks_batches_missing)", legend="missing")],
            unit="short",
            steps=BAD_ABOVE_ZERO,
        ),
        stat(
            "Silent producers",
            says="What they did since they were last heard is unknown, not zero.",
            asks=[Asked(expr="max(tokenworks_producers_silent)", legend="silent")],
            unit="none",
            steps=BAD_ABOVE_ZERO,
        ),
        stat(
            "Pools without valid power",
            says="Ratios leave them out.",
            asks=[
                Asked(
                    expr="count(min by (pool) (tokenworks_power_valid) != 1) or vector(0)",
                    legend="not valid",
                )
            ],
            unit="none",
            steps=BAD_ABOVE_ZERO,
        ),
        stat(
            "Version",
            says="What runs, and the version of the factory's description that is in force; 0 for"
            " none.",
            asks=[
                Asked(
                    expr="max by (version, factory_version) (tokenworks_build_info)",
                    legend="{{version}}, factory {{factory_version}}",
                )
            ],
            unit="none",
            steps=GOOD,
            only_names=True,
        ),
    ),
)

_REPORTS: Final = Row(
    title="Reports",
    heights=(8, 8),
    panels=(
        series(
            "Events by outcome",
            says="Events a second. Anything but RECORDED and DUPLICATE waits in quarantine.",
            asks=[
                Asked(
                    expr="sum by (outcome) (rate(tokenworks_events_total[$__rate_interval]))",
                    legend="{{outcome}}",
                )
            ],
            unit="eps",
        ),
        series(
            "Requests by how they ended",
            says="Requests a second that were delivered, cancelled, or failed.",
            asks=[
                Asked(
                    expr="sum by (finish) (rate(tokenworks_requests_total[$__rate_interval]))",
                    legend="{{finish}}",
                )
            ],
            unit="reqps",
            width=6,
            stacked=True,
            legend="bottom",
        ),
        series(
            "Calls that failed",
            says="Calls and streams a second that ended in an error, by reason. What was not"
            " acknowledged was not recorded; producers report it again.",
            asks=[
                Asked(
                    expr="sum by (reason) (rate(tokenworks_calls_failed_total[$__rate_interval]))"
                    ' or on () label_replace(vector(0), "reason", "none", "", "")',
                    legend="{{reason}}",
                )
            ],
            unit="reqps",
            width=6,
            legend="bottom",
        ),
        series(
            "From the end of a request to its count",
            says="Half, and 99 in 100, of the events of a pool were counted within this time.",
            asks=[
                Asked(
                    expr=f"histogram_quantile({share}, sum by (le, pool)"
                    " (rate(tokenworks_report_lag_seconds_bucket[$__rate_interval])))",
                    legend="{{pool}}, " + name,
                )
                for share, name in (("0.5", "half"), ("0.99", "99 in 100"))
            ],
            unit="s",
        ),
        series(
            "From arrival to answer",
            says="99 in 100 batches and calls were on disk and answered within this time; a commit"
            " is the database's part of it.",
            asks=[
                Asked(
                    expr="histogram_quantile(0.99, sum by (le, form)"
                    " (rate(tokenworks_ack_seconds_bucket[$__rate_interval])))",
                    legend="{{form}}",
                ),
                Asked(
                    expr="histogram_quantile(0.99, sum by (le)"
                    " (rate(tokenworks_commit_seconds_bucket[$__rate_interval])))",
                    legend="commit",
                ),
            ],
            unit="s",
            width=6,
            legend="bottom",
        ),
        series(
            "Waiting",
            says="Segments that are recorded and not counted, and batches that producers have"
            " announced and hold.",
            asks=[
                Asked(expr="max(tokenworks_counting_lag_segments)", legend="segments to count"),
                Asked(expr="max(tokenworks_producer_backlog_batches)", legend="batches to come"),
            ],
            unit="short",
            width=6,
            legend="bottom",
        ),
    ),
)

_PRODUCERS: Final = Row(
    title="Producers",
    heights=(8,),
    panels=(
        series(
            "Producers by state",
            says="Those that have announced themselves, that report, and that were retired.",
            asks=[
                Asked(expr="max by (state) (tokenworks_producers)", legend="{{state}}"),
                Asked(expr="sum(tokenworks_streams_open)", legend="connected"),
            ],
            unit="none",
            width=8,
            legend="bottom",
        ),
        series(
            "Longest unheard",
            says="The ten producers that were heard longest ago, and how long ago.",
            asks=[
                Asked(
                    expr="topk(10, time() - max by (account, producer)"
                    " (tokenworks_producer_seen_timestamp_seconds > 0))",
                    legend="{{producer}}",
                )
            ],
            unit="s",
            width=8,
            legend="bottom",
        ),
        series(
            "Out of the ordinary",
            says="In the span chosen: streams that a newer process of their producer took over,"
            " streams that found the database older than it was, corrections.",
            asks=[
                Asked(
                    expr="sum(increase(tokenworks_streams_fenced_total[$span]))",
                    legend="taken over",
                ),
                Asked(
                    expr="sum(increase(tokenworks_rollbacks_total[$span]))", legend="database older"
                ),
                Asked(
                    expr="sum(increase(tokenworks_corrections_total[$span])) or vector(0)",
                    legend="corrections",
                ),
            ],
            unit="short",
            width=8,
            legend="bottom",
        ),
    ),
)

DASHBOARD: Final = Dashboard(
    uid="tokenworks-health",
    title="Metering health",
    description="Whether everything is counted, and whether power is measured as it should be.",
    begin="now-6h",
    refresh="30s",
    variables=(
        PROMETHEUS,
        choice("span", label="Rare events over", values=("1h", "6h", "1d")),
    ),
    rows=(_AT_A_GLANCE, _REPORTS, _PRODUCERS, SOURCES, POWER),
)
