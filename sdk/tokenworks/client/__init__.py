"""The client: reports token usage from the process that serves inference.

    from tokenworks.client import Meter

    meter = Meter(api_key="...")
    meter.record(account="acme", model="llama-4", tier="high", input=812, output=344)

Owns the buffer, the spool, the numbering of batches and the profiles of providers. It never counts
an event twice, never blocks its caller and never raises into it; what it cannot deliver it counts.
"""

from tokenworks.client.meter import Meter
from tokenworks.client.profiles import read_usage
from tokenworks.client.report import Details, Report, Statistics
from tokenworks.client.running import RunningReport
from tokenworks.client.spool import Fsync, SpoolUnusable, WhenFull
from tokenworks.client.usage_counts import Reading
from tokenworks.client.vocabulary import Finish, Mode, Quality, Source, State, TokenClass

__all__ = [
    "Details",
    "Finish",
    "Fsync",
    "Meter",
    "Mode",
    "Quality",
    "Reading",
    "Report",
    "RunningReport",
    "Source",
    "SpoolUnusable",
    "State",
    "Statistics",
    "TokenClass",
    "WhenFull",
    "read_usage",
]
