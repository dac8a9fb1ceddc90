"""From the counters of accelerators to energy by pool, interval and tier, exact in millijoules."""
