"""The URL of a database as the engine wants it: one that names several hosts is taken apart."""

from typing import Final
from urllib.parse import urlsplit

from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import URL, make_url

# Of several hosts one takes writes. And one that is being restored, or was not promoted yet, takes
# none: it counts as away, rather than as one that refuses what it is given.
_WRITABLE: Final = {"target_session_attrs": "read-write"}


def engine_url(database_url: str) -> URL:
    """Return what `create_engine` takes of a URL as libpq has it.

    One may name several hosts (`postgresql://u:p@one:5432,two:5432/db`), which are asked in turn.
    Only one that takes writes is spoken to, unless `target_session_attrs` says something else.
    Raises psycopg.ProgrammingError or sqlalchemy.exc.ArgumentError when it is no such URL.
    """
    if not names_several_hosts(database_url):
        url = make_url(database_url)
        return url.update_query_dict({**_WRITABLE, **url.query})
    known = {name: str(value) for name, value in conninfo_to_dict(database_url).items()}
    user, password = known.pop("user", None), known.pop("password", None)
    database = known.pop("dbname", None)
    return URL.create(
        "postgresql",
        username=user,
        password=password,
        database=database,
        query={**_WRITABLE, **known},
    )


def names_several_hosts(database_url: str) -> bool:
    """Tell whether a URL names more than one host."""
    return "," in urlsplit(database_url).netloc.rpartition("@")[2]
