"""`tokenworks prices`: one file a verb; what they share is in `versions`."""

from cli.prices.command import prices
from cli.prices.diff import compare
from cli.prices.versions import faults_of, read_text, to_timestamp

__all__ = ["compare", "faults_of", "prices", "read_text", "to_timestamp"]
