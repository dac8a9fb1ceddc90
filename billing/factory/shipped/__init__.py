"""The keynote of GTC 2026 as inputs of a plan: a gigawatt in four quarters, three generations.

Tokens a second per megawatt are read off the chart by an independent reader and are no data of the
vendor's. `keynote-blackwell` has for premium what the slide's own "10x" says, 0.02 million;
`keynote-blackwell-as-read` has what was read, 0.07 million.
"""

from importlib.resources import files
from typing import Final

SHIPPED: Final = (
    "keynote-hopper",
    "keynote-blackwell-as-read",
    "keynote-blackwell",
    "keynote-rubin",
)


def read_shipped(name: str) -> str:
    """Return the text of an input that comes along."""
    assert name in SHIPPED
    return files(__name__).joinpath(f"{name}.toml").read_text("utf-8")
