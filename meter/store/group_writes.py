"""What all parts of a group's transaction write by."""

from sqlalchemy import Connection

from meter.leases import Lease
from meter.runtime.trips import Trips


class GroupWrites:
    """How to speak in the open transaction of a group, and what holds the shard it is written to.

    What each commit says goes by `_trips`, the rest by `_connection`: in the order it was said.
    """

    def __init__(self, trips: Trips, *, lease: Lease) -> None:
        """Take both."""
        self._trips = trips
        self._lease = lease

    @property
    def _connection(self) -> Connection:
        return self._trips.connection
