"""What the panels of "Factory" have in common: parts of their questions to Prometheus."""

from typing import Final

HERE: Final = 'boundary="$boundary"'
FACILITY: Final = 'boundary="facility"'
# Of the whole site where its meter is read or its PUE is known, else of its computers.
SITE_WATTS: Final = "site:tokenworks_drawn_power_watts:rate$window"
# Of all sites; where no pool has a site, of all pools.
PAID_WATTS: Final = f"(sum({SITE_WATTS}) or sum(pool:tokenworks_it_power_watts:rate$window))"
REVENUE: Final = 'sum(rate(tokenworks_revenue_total{currency="USD"}[$window]))'
UNATTRIBUTED: Final = (
    f"sum by (reason) (rate(tokenworks_energy_unattributed_joules_total{{{HERE}}}[$window]))"
)
