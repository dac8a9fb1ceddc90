"""Waits until a meter has counted all that it acknowledged."""

import time
from collections.abc import Callable

import psycopg

COUNTED_SECONDS_MAX = 60
_POLL_SECONDS = 0.05
_UNCOUNTED = """
SELECT count(*) FROM shards s LEFT JOIN counting c USING (shard)
WHERE s.position > coalesce(c.position, 0)
"""


def wait_until_counted(database_url: str) -> None:
    """Return once usage holds the whole journal; fails after COUNTED_SECONDS_MAX."""
    with psycopg.connect(database_url, autocommit=True) as connection:

        def is_counted() -> bool:
            return connection.execute(_UNCOUNTED).fetchone() == (0,)

        wait_until(is_counted, seconds_max=COUNTED_SECONDS_MAX, what="usage holds the journal")


def wait_until(
    condition: Callable[[], bool], *, seconds_max: float, what: str | Callable[[], str]
) -> None:
    """Ask until the condition holds; fails after `seconds_max`, naming what did not happen."""
    end = time.monotonic() + seconds_max
    while not condition():
        if time.monotonic() >= end:
            told = what if isinstance(what, str) else what()
            raise AssertionError(f"not within {seconds_max} s: {told}")
        time.sleep(_POLL_SECONDS)
