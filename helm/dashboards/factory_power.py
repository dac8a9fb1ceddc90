"""The part of "Factory" about power: of sites against their contracts, of tiers and of pools."""

from typing import Final

from helm.dashboards.dashboard import Row
from helm.dashboards.expressions import FACILITY, HERE, SITE_WATTS, UNATTRIBUTED
from helm.dashboards.panels import Step, bar_gauge, series, stat, table
from helm.dashboards.questions import Asked, Column

_OF_BUDGET: Final = (
    Step(value=None, color="green"),
    Step(value=0.85, color="orange"),
    Step(value=0.95, color="red"),
)
# At the boundary of the contract, as what is reserved.
_USED: Final = (
    f"sum by (site, tier) (site_tier:tokenworks_power_watts:rate$window{{{FACILITY}}})"
    f" or sum by (site, tier) (site_tier:tokenworks_power_watts:rate$window{{{HERE}}})"
)
_HEADROOM: Final = (Step(value=None, color="red"), Step(value=1, color="green"))

POWER: Final = Row(
    title="The power that there is",
    heights=(9, 9, 10),
    panels=(
        series(
            "Power against the contract",
            says="What each site takes, and, dashed, what its contract allows. Where no PUE is"
            " known, its computers alone.",
            asks=[
                Asked(expr=f"sum by (site) ({SITE_WATTS})", legend="{{site}}"),
                Asked(
                    expr="max by (site) (tokenworks_power_budget_watts)",
                    legend="{{site}}, contracted",
                ),
            ],
            unit="watt",
            dashed=", contracted$",
        ),
        bar_gauge(
            "Share of the contract in use",
            says="What each site takes of what its contract allows; of its computers alone where no"
            " PUE is known, and of its pools that are measured.",
            asks=[Asked(expr="site:tokenworks_power_budget:ratio_rate$window", legend="{{site}}")],
            unit="percentunit",
            width=6,
            steps=_OF_BUDGET,
            greatest=1,
        ),
        stat(
            "Headroom",
            says="What each site may still take. A site is left out while the power of one of its"
            " pools is not known, unless its own meter is read.",
            asks=[
                Asked(expr="site:tokenworks_power_headroom_watts:rate$window", legend="{{site}}")
            ],
            unit="watt",
            width=6,
            steps=_HEADROOM,
        ),
        series(
            "Power by tier",
            says="Measured power by the tier that it served; what served none is named for its"
            " reason. The stack is what was measured.",
            asks=[
                Asked(
                    expr=f"sum by (tier) (tier:tokenworks_power_watts:rate$window{{{HERE}}})",
                    legend="{{tier}}",
                ),
                Asked(expr=f"{UNATTRIBUTED} > 0", legend="no tier: {{reason}}"),
            ],
            unit="watt",
            stacked=True,
        ),
        series(
            "Power by pool",
            says="What the meters of the chosen boundary measured, valid or not.",
            asks=[
                Asked(expr=f"pool:tokenworks_power_watts:rate$window{{{HERE}}}", legend="{{pool}}")
            ],
            unit="watt",
            stacked=True,
        ),
        table(
            "Reserved and used",
            says="What the description of the factory keeps for a tier at a site, of its contract,"
            " and what is attributed to it there: with PUE, or of computers alone where no PUE is"
            " known.",
            asks=[
                Asked(expr=_USED, legend="used"),
                Asked(
                    expr="max by (site, tier) (tokenworks_power_reserved_watts)", legend="reserved"
                ),
            ],
            columns=[
                Column(field="site", title="Site"),
                Column(field="tier", title="Tier"),
                Column(field="Value #A", title="Used", unit="watt", bar=True),
                Column(field="Value #B", title="Reserved", unit="watt"),
            ],
            by="Used",
        ),
        series(
            "PUE",
            says="What a site takes for each watt of its computers: measured where a meter of the"
            " site is read, else as it is configured.",
            asks=[
                Asked(expr="site:tokenworks_pue:ratio_rate$window", legend="{{site}}, {{basis}}")
            ],
            unit="none",
            width=6,
            from_zero=False,
            legend="bottom",
            decimals=3,
        ),
        series(
            "Share that is attributed",
            says="Of what was measured, the share that belongs to tokens: the rest idled, had no"
            " tokens, or fell into gaps.",
            asks=[
                Asked(
                    expr=f"site:tokenworks_energy_attributed:ratio_rate$window{{{HERE}}}",
                    legend="{{site}}",
                )
            ],
            unit="percentunit",
            width=6,
            legend="bottom",
        ),
    ),
)
