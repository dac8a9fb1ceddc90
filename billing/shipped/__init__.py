"""The price books that come along, as TOML to import, or to copy and change."""

from importlib.resources import files
from typing import Final

SHIPPED: Final = ("keynote", "retail")


def read_shipped(name: str) -> str:
    """Return the text of a book that comes along."""
    assert name in SHIPPED
    return files(__name__).joinpath(f"{name}.toml").read_text("utf-8")
