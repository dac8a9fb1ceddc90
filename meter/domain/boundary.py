"""What energy is measured of: boards, hosts with their boards, or the site with all of it."""

from enum import StrEnum


class Boundary(StrEnum):
    """Each holds the one before it, so energy of two is never added up; SQL's and metrics' words.

    Boards and hosts belong to a pool, a facility to a site.
    """

    BOARD = "board"
    HOST = "host"
    FACILITY = "facility"
