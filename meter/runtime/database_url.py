"""The URL of a database as the engine wants it: one that names several hosts is taken apart."""

from typing import Final
from urllib.parse import urlsplit

from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import URL, make_url

# Of several hosts only one takes writes: whichever does is the one to speak to.
_WRITABLE: Final = "read-write"


def engine_url(database_url: str) -> URL:
    """Return what `create_engine` takes of a URL as libpq has it.

    One may name several hosts (`postgresql://u:p@one:5432,two:5432/db`): they are asked in turn
    for the one that takes writes, unless `target_session_attrs` says something else. Raises
    psycopg.ProgrammingError or sqlalchemy.exc.ArgumentError when it is no such URL.
    """
    if not names_several_hosts(database_url):
        return make_url(database_url)
    known = {name: str(value) for name, value in conninfo_to_dict(database_url).items()}
    user, password = known.pop("user", None), known.pop("password", None)
    database = known.pop("dbname", None)
    known.setdefault("target_session_attrs", _WRITABLE)
    return URL.create(
        "postgresql", username=user, password=password, database=database, query=known
    )


def names_several_hosts(database_url: str) -> bool:
    """Tell whether a URL names more than one host."""
    return "," in urlsplit(database_url).netloc.rpartition("@")[2]
