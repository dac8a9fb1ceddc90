"""`tokenworks factory`: how the factory is described, and what its power is used for."""

from cli.factory.command import factory

__all__ = ["factory"]
