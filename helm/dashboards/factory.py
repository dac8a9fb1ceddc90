"""The dashboard "Factory": what comes of the power that a factory has, in tokens and in dollars."""

from typing import Final

from helm.dashboards.dashboard import Dashboard, Row
from helm.dashboards.expressions import FACILITY, HERE, PAID_WATTS, REVENUE
from helm.dashboards.factory_money import CARBON, MONEY
from helm.dashboards.factory_power import POWER
from helm.dashboards.factory_tokens import TOKENS
from helm.dashboards.panels import GOOD_AT_ONE, bar_chart, bar_gauge, series, stat, table
from helm.dashboards.questions import Asked, Column
from helm.dashboards.variables import BOUNDARIES, PROMETHEUS, WINDOW, choice, number

_NOW: Final = Row(
    title="Now",
    heights=(5,),
    panels=(
        stat(
            "Tokens",
            says="Tokens a second as they are counted: those that were made, reasoning included,"
            " and all, prompts included.",
            asks=[
                Asked(expr="sum(tier:tokenworks_output_tokens:rate$window)", legend="output"),
                Asked(expr="sum(tier:tokenworks_total_tokens:rate$window)", legend="all"),
            ],
            unit="si:tok/s",
        ),
        stat(
            "Power",
            says="What the meters of the chosen boundary measured, valid or not, and what the sites"
            " take with it: times PUE. A site whose PUE is not known is not in the second. A pool"
            " whose energy comes less than three times in the time of a rate is in neither.",
            asks=[
                Asked(
                    expr=f"sum(pool:tokenworks_power_watts:rate$window{{{HERE}}})",
                    legend="measured",
                ),
                Asked(
                    expr=f"sum(site:tokenworks_power_watts:rate$window{{{FACILITY}}})",
                    legend="sites",
                ),
            ],
            unit="watt",
        ),
        stat(
            "Tokens per joule",
            says="Of the pools whose power was valid all the while, idling included. The headline"
            " counts output; the other one counts prompts too, and is not comparable with it.",
            asks=[
                Asked(
                    expr=f"factory:tokenworks_tokens_per_joule:ratio_rate$window{{{HERE}}}",
                    legend="output",
                ),
                Asked(
                    expr=f"factory:tokenworks_total_tokens_per_joule:ratio_rate$window{{{HERE}}}",
                    legend="all",
                ),
            ],
            unit="si:tok/J",
        ),
        stat(
            "Dollars an hour",
            says="What the tokens come to at the prices in force, and what the power costs at the"
            " price that you typed above. Other currencies are not in it, and no invoice is made"
            " of these.",
            asks=[
                Asked(expr=f"3600 * {REVENUE}", legend="revenue"),
                Asked(expr=f"{PAID_WATTS} / 1000 * $usd_per_kwh", legend="power"),
            ],
            unit="currencyUSD",
        ),
        stat(
            "Revenue per MWh",
            says="US dollars per megawatt-hour that was measured, idling included, of the pools"
            " whose power was valid all the while.",
            asks=[
                Asked(
                    expr=f"factory:tokenworks_usd_per_megawatt_hour:ratio_rate$window{{{HERE}}}",
                    legend="$ per MWh",
                )
            ],
            unit="currencyUSD",
        ),
        stat(
            "Data quality",
            says="Pools whose power is valid, and tokens that have a price. Below 100 % the numbers"
            " beside it leave something out.",
            asks=[
                Asked(expr="avg(min by (pool) (tokenworks_power_valid))", legend="power valid"),
                Asked(
                    expr="1 - (sum(rate(tokenworks_unpriced_tokens_total[$window])) or vector(0))"
                    " / (sum(rate(tokenworks_tokens_total[$window])) > 0)",
                    legend="tokens priced",
                ),
            ],
            unit="percentunit",
            steps=GOOD_AT_ONE,
        ),
    ),
)

_RANKING: Final = Row(
    title="Which tier earns most with a megawatt-hour",
    heights=(9, 8),
    panels=(
        bar_gauge(
            "Revenue per MWh by tier",
            says="US dollars per megawatt-hour attributed to the tier, the best at the top. The"
            " dearest tier need not be the first: what counts is price times tokens per joule. What"
            " is sold in other currencies brings no dollars here.",
            asks=[
                Asked(
                    expr="sort_desc(tier:tokenworks_usd_per_megawatt_hour:ratio_rate$window"
                    f"{{{HERE}}})",
                    legend="{{tier}}",
                )
            ],
            unit="currencyUSD",
        ),
        bar_chart(
            "Share of power and of revenue",
            says="Each tier's share of the power attributed to tiers by pools whose power is valid,"
            " and of all revenue in US dollars. A free tier takes power for no revenue: that is"
            " what it costs to win customers.",
            asks=[
                Asked(
                    expr="sort_desc(max by (tier)"
                    f" (tier:tokenworks_power:share_rate$window{{{HERE}}}))",
                    legend="power",
                ),
                Asked(
                    expr="max by (tier) (tier:tokenworks_revenue:share_rate$window)",
                    legend="revenue",
                ),
            ],
            columns=[
                Column(field="tier", title="Tier"),
                Column(field="Value #A", title="Power"),
                Column(field="Value #B", title="Revenue"),
            ],
            unit="percentunit",
        ),
        table(
            "Tiers",
            says="The same, with what the ranking is made of.",
            asks=[
                Asked(
                    expr="max by (tier) (tier:tokenworks_usd_per_megawatt_hour:ratio_rate$window"
                    f"{{{HERE}}})",
                    legend="$ per MWh",
                ),
                Asked(
                    expr=f"sum by (tier) (tier:tokenworks_power_watts:rate$window{{{HERE}}})",
                    legend="power",
                ),
                Asked(
                    expr="max by (tier) (tier:tokenworks_tokens_per_joule:ratio_rate$window"
                    f"{{{HERE}}})",
                    legend="tokens per joule",
                ),
                Asked(
                    expr="3600 * sum by (tier)"
                    ' (rate(tokenworks_revenue_total{currency="USD"}[$window]))',
                    legend="$ an hour",
                ),
            ],
            columns=[
                Column(field="tier", title="Tier"),
                Column(field="Value #A", title="$ per MWh", unit="currencyUSD"),
                Column(field="Value #B", title="Power", unit="watt"),
                Column(field="Value #C", title="Output tok/J", unit="none", decimals=2),
                Column(field="Value #D", title="$ an hour", unit="currencyUSD"),
            ],
            width=8,
            by="$ per MWh",
        ),
        series(
            "Revenue per MWh by tier, over time",
            says="US dollars per megawatt-hour attributed to the tier. Where a line ends, no pool"
            " that served the tier had valid power.",
            asks=[
                Asked(
                    expr=f"tier:tokenworks_usd_per_megawatt_hour:ratio_rate$window{{{HERE}}}",
                    legend="{{tier}}",
                )
            ],
            unit="currencyUSD",
        ),
        series(
            "Revenue per MWh by pool, over time",
            says="US dollars per megawatt-hour that the pool drew, idling included.",
            asks=[
                Asked(
                    expr=f"pool:tokenworks_usd_per_megawatt_hour:ratio_rate$window{{{HERE}}}",
                    legend="{{pool}}",
                )
            ],
            unit="currencyUSD",
        ),
    ),
)

DASHBOARD: Final = Dashboard(
    uid="tokenworks-factory",
    title="Factory",
    description="What a token factory makes of its power: tokens, and dollars.",
    begin="now-6h",
    refresh="30s",
    variables=(
        PROMETHEUS,
        WINDOW,
        choice("boundary", label="Measured at", values=BOUNDARIES),
        number("usd_per_kwh", label="Price of power ($/kWh)", value="0.08"),
    ),
    rows=(_NOW, _RANKING, POWER, TOKENS, MONEY, CARBON),
)
