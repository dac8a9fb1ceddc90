"""A whole site: what a token factory of so many megawatts reports in some minutes, all at once.

Owns the producers that seal their batches themselves, the counters of energy beside them, the truth
of both, and the check that the meter has just that: tokens, joules and dollars. Imports the client
and numpy; the meter is seen from outside, over its contract. Times are milliseconds since 1970,
UTC; energy is whole millijoules.
"""

from cli.simulate.site.command import SiteOptions, simulate_site

__all__ = ["SiteOptions", "simulate_site"]
