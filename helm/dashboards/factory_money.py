"""The part of "Factory" about money, and about carbon: what the power costs."""

from typing import Final

from helm.dashboards.dashboard import Row
from helm.dashboards.expressions import PAID_WATTS, REVENUE, UNATTRIBUTED
from helm.dashboards.panels import series
from helm.dashboards.questions import Asked

_OUTPUT: Final = "sum(tier:tokenworks_output_tokens:rate$window)"
_COST: Final = f"{PAID_WATTS} / 1000 * $usd_per_kwh"

MONEY: Final = Row(
    title="Revenue and the cost of power",
    heights=(9,),
    panels=(
        series(
            "Revenue and the cost of power, an hour",
            says="What the tokens come to at the prices in force; what the power costs at the price"
            " that you typed above; and what of that was for power that served no tier.",
            asks=[
                Asked(expr=f"3600 * {REVENUE}", legend="revenue"),
                Asked(expr=_COST, legend="power"),
                Asked(
                    expr=f"sum({UNATTRIBUTED}) / 1000 * $usd_per_kwh",
                    legend="power, no tier",
                ),
            ],
            unit="currencyUSD",
        ),
        series(
            "Cost of power, of revenue",
            says="Small for a token that has a price. What power limits is how many tokens there"
            " can be: see revenue per megawatt-hour.",
            asks=[Asked(expr=f"{_COST} / (3600 * {REVENUE} > 0)", legend="cost of power")],
            unit="percentunit",
            width=6,
            legend="bottom",
        ),
        series(
            "Per million output tokens",
            says="All revenue, that of prompts included, and all cost of power, by each million"
            " output tokens.",
            asks=[
                Asked(expr=f"1e6 * {REVENUE} / ({_OUTPUT} > 0)", legend="revenue"),
                Asked(expr=f"1e6 * {_COST} / 3600 / ({_OUTPUT} > 0)", legend="power"),
            ],
            unit="currencyUSD",
            width=6,
            legend="bottom",
        ),
    ),
)

CARBON: Final = Row(
    title="Carbon",
    heights=(8,),
    panels=(
        series(
            "Grams of CO2e an hour",
            says="Of attributed energy, times PUE, at the intensity of the site's grid: by where it"
            " stands (location), and by what its operator buys (market). Never add the two.",
            asks=[
                Asked(
                    expr="3600 * sum by (method) (rate(tokenworks_carbon_grams_total[$window]))",
                    legend="{{method}}",
                )
            ],
            unit="massg",
            width=8,
            legend="bottom",
        ),
        series(
            "Grams of CO2e per million output tokens",
            says="The same for each million output tokens of all tiers.",
            asks=[
                Asked(
                    expr="1e6 * sum by (method) (rate(tokenworks_carbon_grams_total[$window]))"
                    f" / scalar({_OUTPUT} > 0)",
                    legend="{{method}}",
                )
            ],
            unit="massg",
            width=8,
            legend="bottom",
        ),
        series(
            "Intensity of the grid",
            says="Grams of CO2e a kilowatt-hour, as the description of the factory has them.",
            asks=[
                Asked(
                    expr="max by (site, method) (tokenworks_grid_carbon_grams_per_kilowatt_hour)",
                    legend="{{site}}, {{method}}",
                )
            ],
            unit="massg",
            width=8,
            legend="bottom",
        ),
    ),
)
