"""`tokenworks usage show|record|export|void|…`: usage asked for, reported by hand and corrected.

Owns how times, token classes and sums are written for people, for JSON and for CSV. All of it
goes through the meter's own calls; times are UTC, spans half-open and on 15-minute edges.
"""

from cli.usage.command import usage

__all__ = ["usage"]
