"""Looks on while others wait for locks on tables, and keeps the longest that anybody waited."""

import threading
from types import TracebackType
from typing import Final, Self

import psycopg

_LOOK_SECONDS: Final = 0.01
_WAITING: Final = """
SELECT coalesce(max(extract(epoch FROM clock_timestamp() - waitstart)), 0)::float8
FROM pg_locks WHERE NOT granted AND locktype = 'relation'
"""


class LockWatch:
    """Looks on for the time of the block; `longest_seconds` is what it saw."""

    def __init__(self, database_url: str) -> None:
        """Take the superuser's URL."""
        self._url = database_url
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.longest_seconds = 0.0
        self.look_count = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ending.set()
        self._thread.join()

    def _look(self) -> None:
        with psycopg.connect(self._url, autocommit=True, connect_timeout=10) as connection:
            while not self._ending.wait(_LOOK_SECONDS):
                row = connection.execute(_WAITING).fetchone()
                assert row is not None
                self.longest_seconds = max(self.longest_seconds, row[0])
                self.look_count += 1
