"""The part of "Factory" about tokens: what they take, by tier and by pool."""

from typing import Final

from helm.dashboards.dashboard import Row
from helm.dashboards.expressions import HERE, UNATTRIBUTED
from helm.dashboards.panels import series, table
from helm.dashboards.questions import Asked, Column

TOKENS: Final = Row(
    title="What tokens take",
    heights=(9, 9, 7),
    panels=(
        series(
            "Tokens per joule by tier",
            says="Output tokens per joule attributed to the tier. Where a line ends, no pool that"
            " served the tier had valid power.",
            asks=[
                Asked(
                    expr=f"tier:tokenworks_tokens_per_joule:ratio_rate$window{{{HERE}}}",
                    legend="{{tier}}",
                )
            ],
            unit="si:tok/J",
        ),
        series(
            "Joules per output token by tier",
            says="The same the other way round: what one token more of the tier takes. Batching"
            " moves it several times over on the same boards, so compare it under the same load.",
            asks=[
                Asked(
                    expr=f"tier:tokenworks_joules_per_output_token:ratio_rate$window{{{HERE}}}",
                    legend="{{tier}}",
                )
            ],
            unit="joule",
        ),
        series(
            "Tokens per joule by pool",
            says="Output tokens per joule that the pool drew, idling included.",
            asks=[
                Asked(
                    expr=f"pool:tokenworks_tokens_per_joule:ratio_rate$window{{{HERE}}}",
                    legend="{{pool}}",
                )
            ],
            unit="si:tok/J",
            width=8,
            legend="bottom",
        ),
        series(
            "Energy of a request, the median",
            says="Half of the requests of a tier took less. Each is taken as the mean of those that"
            " were counted together with it.",
            asks=[
                Asked(
                    expr="histogram_quantile(0.5, sum by (le, tier)"
                    " (rate(tokenworks_request_energy_joules_bucket[$window])))",
                    legend="{{tier}}",
                )
            ],
            unit="joule",
            width=8,
            legend="bottom",
        ),
        series(
            "Power without tokens",
            says="Measured power that served no tier, by reason: boards idled, had no tokens, fell"
            " into a gap between samples, or are not in the description of the factory.",
            asks=[Asked(expr=UNATTRIBUTED, legend="{{reason}}")],
            unit="watt",
            width=8,
            stacked=True,
            legend="bottom",
        ),
        table(
            "Pools",
            says="Where each pool stands and what runs on it, with what it makes of its power. A"
            " pool without numbers has no valid power.",
            asks=[
                Asked(
                    expr="max by (pool, site, hardware, software) (tokenworks_pool_info)",
                    legend="{{pool}}",
                ),
                Asked(
                    expr=f"sum by (pool) (pool:tokenworks_power_watts:rate$window{{{HERE}}})",
                    legend="power",
                ),
                Asked(
                    expr="max by (pool) (pool:tokenworks_tokens_per_joule:ratio_rate$window"
                    f"{{{HERE}}})",
                    legend="tokens per joule",
                ),
                Asked(
                    expr="max by (pool) (pool:tokenworks_usd_per_megawatt_hour:ratio_rate$window"
                    f"{{{HERE}}})",
                    legend="$ per MWh",
                ),
                Asked(
                    expr="sum by (pool) (pool_tier:tokenworks_output_tokens:rate$window)",
                    legend="output",
                ),
            ],
            columns=[
                Column(field="pool", title="Pool"),
                Column(field="site", title="Site"),
                Column(field="hardware", title="Hardware"),
                Column(field="software", title="Software"),
                Column(field="Value #E", title="Output", unit="si:tok/s", bar=True),
                Column(field="Value #B", title="Power", unit="watt", bar=True),
                Column(field="Value #C", title="Output tok/J", decimals=2, unit="none"),
                Column(field="Value #D", title="$ per MWh", unit="currencyUSD"),
            ],
            width=24,
            by="$ per MWh",
        ),
    ),
)
