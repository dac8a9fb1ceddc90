"""What the database said when it did not do as told: which fate it has, and why, in words.

Never with the values of a statement: they may be anybody's, and the words go to the log.
"""

from typing import Final

import psycopg
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from meter.domain.errors import Reason, Unavailable

# Codes of Postgres, by their beginnings: the session is over, or could not begin.
_LOST: Final = ("08", "57P")
# No disk, no memory, no connections left; or the disk fails.
_WITHOUT_ROOM: Final = ("53", "58")
# Others were in the way: a deadlock, a lock that was not given, a statement that was cancelled.
_HELD_UP: Final = ("40", "55P03", "57014")
_CHARS_MAX: Final = 300


def find_unavailable(error: DBAPIError | PoolTimeoutError) -> Unavailable | None:
    """Return the error for a fault that passes by itself, with its cause; None for all others.

    Such a fault is nobody's who sent something: nothing was recorded, and the same may be sent
    again. What is wrong with what was sent is none.
    """
    if isinstance(error, PoolTimeoutError):
        words = "All connections to the database are in use; nothing was recorded. Send again."
        return _unavailable(words, cause="no connection of the pool was free in time")
    code = getattr(error.orig, "sqlstate", None) or ""
    is_speechless = not code and isinstance(error, (InterfaceError, OperationalError))
    if error.connection_invalidated or is_speechless or code.startswith(_LOST):
        words = "The database is away; nothing was recorded. Send again."
    elif code.startswith(_WITHOUT_ROOM):
        words = "The database has no room left; nothing was recorded. Send again."
    elif code.startswith(_HELD_UP):
        words = "The database was held up; nothing was recorded. Send again."
    else:
        return None
    return _unavailable(words, cause=cause_of(error))


def cause_of(error: DBAPIError) -> str:
    """Return the code and the first words of what the database said."""
    orig = error.orig
    code = getattr(orig, "sqlstate", None) or type(orig).__name__
    words = orig.diag.message_primary if isinstance(orig, psycopg.Error) else None
    # Of a connection that was not made, there is only what the driver says.
    first = (words or str(orig)).strip().partition("\n")[0]
    return f"{code} {first}"[:_CHARS_MAX]


def _unavailable(words: str, *, cause: str) -> Unavailable:
    error = Unavailable(Reason.STORE_UNAVAILABLE, words)
    error.cause = cause
    return error
