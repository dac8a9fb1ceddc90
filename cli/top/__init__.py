"""`tokenworks top`: tokens/s, watts, tokens per joule and $/MWh by tier, as they are now.

Reads the meter's metrics page again and again, without an API key, and knows nothing else of it.
"""

from cli.top.command import top

__all__ = ["top"]
