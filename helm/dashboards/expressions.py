"""What the panels of "Factory" have in common: parts of their questions to Prometheus."""

from typing import Final

HERE: Final = 'boundary="$boundary"'
FACILITY: Final = 'boundary="facility"'
# Of the whole site where its meter is read or its PUE is known, else of its computers.
SITE_WATTS: Final = "site:tokenworks_drawn_power_watts:rate$window"
# Of all sites, and of the pools that stand at none.
PAID_WATTS: Final = (
    f"sum({SITE_WATTS} or (pool:tokenworks_it_power_watts:rate$window"
    " unless on (pool) pool_site:tokenworks_pool_info:most$window))"
)
REVENUE: Final = 'sum(rate(tokenworks_revenue_total{currency="USD"}[$window]))'
# Of the pools whose power is shown over the window chosen.
UNATTRIBUTED: Final = (
    "sum by (reason) (sum by (pool, boundary, reason)"
    f" (rate(tokenworks_energy_unattributed_joules_total{{{HERE}}}[$window]))"
    " and on (pool, boundary) pool:tokenworks_measured_power_watts:rate$window)"
)
