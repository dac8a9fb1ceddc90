"""`tokenworks invoices`: one file a verb; what they share is in `summaries` and `forms`."""

from cli.invoices.command import invoices
from cli.invoices.summaries import print_summaries, summary_to_json

__all__ = ["invoices", "print_summaries", "summary_to_json"]
