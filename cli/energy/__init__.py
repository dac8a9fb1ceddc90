"""`tokenworks energy show|sources`: what the tokens took and earned, and where that is measured."""

from cli.energy.command import energy

__all__ = ["energy"]
