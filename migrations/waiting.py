"""Locks that are not there: given up soon, for the traffic behind, and asked for again."""

from collections.abc import Callable
from typing import Final

from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from meter.runtime.database_url import engine_url

# Any constant does; it must only be the same in every release. Whoever changes the schema holds it.
MIGRATION_LOCK: Final = 7_411
# How long a lock is waited for: traffic queues behind whoever waits for one.
LOCK_MS_MAX: Final = 500
_PAUSE_SECONDS: Final = 0.5
# A lock that was waited for too long, and two that wait for each other.
_LOCK_STATES: Final = frozenset({"55P03", "40P01"})


def state_of(error: DBAPIError) -> str | None:
    """Return SQL's five characters for what went wrong, None for what is not the database's."""
    state: str | None = getattr(error.orig, "sqlstate", None)
    return state


def is_locked(error: DBAPIError) -> bool:
    """Tell whether a lock was not there in time."""
    return state_of(error) in _LOCK_STATES


def retry_while_locked(
    act: Callable[[], None], *, database_url: str, tries_max: int, on_wait: Callable[[], None]
) -> None:
    """Do it again, half a second later, as often as a lock is not there.

    `on_wait` hears of each try that found none. After the last one the database's refusal is
    raised; any other at once.
    """
    for tries_left in range(tries_max - 1, -1, -1):
        try:
            act()
            return
        except DBAPIError as error:
            if not is_locked(error) or not tries_left:
                raise
        on_wait()
        _pause(database_url)


def _pause(database_url: str) -> None:
    engine = create_engine(engine_url(database_url))
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": _PAUSE_SECONDS})
    finally:
        engine.dispose()
