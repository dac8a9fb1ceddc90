"""`tokenworks doctor`: how an installation stands, what to do, and whether its sums agree."""

from cli.doctor.command import doctor

__all__ = ["doctor"]
