"""A fleet of inference servers that report to a meter, as a customer's would.

Owns the traces, the requests made of them, and the truth files. Everything that reports imports
`tokenworks` alone, and sees the meter from outside; only the command shares its options with the
other commands. Every number comes from the seed; times of events are milliseconds since 1970, UTC.
"""

from cli.simulate.command import simulate

__all__ = ["simulate"]
