"""Whether a server may be sent new calls: what stands against it, each in words."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

# A failover that is over by then takes no server out of the Service.
DATABASE_SECONDS_MAX: Final = 5.0
# What this far behind is counted by others, or later: new producers go elsewhere.
COUNTING_SECONDS_MAX: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """What readiness is judged by.

    `database_seconds` is how long ago the database last answered, `counting_seconds` the age of the
    oldest batch that is recorded and not counted, `missing` what of the schema this version needs
    and does not find.
    """

    is_stopping: bool = False
    database_seconds: float = 0.0
    counting_seconds: float = 0.0
    missing: Sequence[str] = ()


def find_obstacles(signs: Signs) -> tuple[str, ...]:
    """Return what stands against sending calls here, a line each; nothing when it is ready."""
    found = []
    if signs.is_stopping:
        found.append("stopping: what was taken is answered, nothing more is taken")
    if signs.database_seconds > DATABASE_SECONDS_MAX:
        found.append(f"database: has not answered for {signs.database_seconds:.0f} s")
    if signs.missing:
        found.append(f"schema: this version needs {', '.join(signs.missing)}")
    if signs.counting_seconds > COUNTING_SECONDS_MAX:
        found.append(f"counting: {signs.counting_seconds:.0f} s behind")
    return tuple(found)


class SchemaLook:
    """Looks at the schema anew where it may be another one: behind new connections, or when behind.

    Whoever restores a database ends all connections to it, so that nothing is asked in between.
    """

    def __init__(
        self,
        find_missing: Callable[[], Sequence[str]],
        *,
        connection_count: Callable[[], int],
    ) -> None:
        """Take what looks, and what tells how many connections were made so far."""
        self._find_missing = find_missing
        self._connection_count = connection_count
        self._looked_at = -1
        self._missing: Sequence[str] = ()

    def __call__(self) -> Sequence[str]:
        """Return what this version needs and the schema lacks; raises Unavailable."""
        count = self._connection_count()
        if count != self._looked_at or self._missing:
            self._missing = self._find_missing()
            self._looked_at = count
        return self._missing


class Readiness:
    """Gathers the signs of a running server; any thread may ask."""

    def __init__(self, *, database_seconds: Callable[[], float]) -> None:
        """Take what tells how long ago the database last answered, in seconds."""
        self._database_seconds = database_seconds
        self._counting_seconds = 0.0
        self._missing: Sequence[str] = ()
        self._is_stopping = False

    def stop(self) -> None:
        """Say that the server ends: it is not ready from now on."""
        self._is_stopping = True

    def note_counting(self, behind_seconds: float) -> None:
        """Note the age of the oldest batch that is recorded and not counted."""
        self._counting_seconds = behind_seconds

    def note_schema(self, missing: Sequence[str]) -> None:
        """Note what this version needs and the schema lacks, such as migrations."""
        self._missing = missing

    def obstacles(self) -> tuple[str, ...]:
        """Return what stands against sending calls here now."""
        return find_obstacles(
            Signs(
                is_stopping=self._is_stopping,
                database_seconds=self._database_seconds(),
                counting_seconds=self._counting_seconds,
                missing=self._missing,
            )
        )
