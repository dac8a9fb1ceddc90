"""The schema's history: `NNNN_{pre|post}_what.py`, run by Alembic under one lock.

A version's `pre` migrations come before its servers: those of the version before go on beside them.
Its `post` migrations take away what only those needed, and come when none of them runs any more.
So of a version all `pre` stand before all `post`: the first stage goes up to the newest `pre`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, create_engine, text

from meter.runtime.database_url import engine_url
from migrations.ownership import hand_over
from migrations.waiting import retry_while_locked

if TYPE_CHECKING:
    from alembic.config import Config

# A lock that is not there within half a second is asked for again after as long, for ten minutes:
# traffic queues behind whoever waits for a lock, and a report that reads for minutes holds one.
_TRIES_MAX: Final = 600


class Stage(StrEnum):
    """When a migration runs: before the servers of its version, or after those of the last."""

    PRE = "pre"
    POST = "post"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a database lacks of this version's migrations, and what a newer one has added.

    Both are names, oldest first. `newer` is what this version does not know.
    """

    missing: Sequence[str]
    newer: Sequence[str]

    @property
    def missing_pre(self) -> Sequence[str]:
        """What must be there before this version serves: all up to the newest `pre`."""
        return [*self.missing[: _count_to_newest_pre(self.missing)]]

    @property
    def missing_post(self) -> Sequence[str]:
        """What is left for when no server of the version before runs any more."""
        return [*self.missing[_count_to_newest_pre(self.missing) :]]

    @property
    def is_too_new(self) -> bool:
        """Tell whether a newer version has taken away what this one needs."""
        return any(stage_of(name) is Stage.POST for name in self.newer)


def stage_of(name: str) -> Stage:
    """Return the stage of a migration by its name."""
    return Stage(name.split("_")[1])


def upgrade(
    database_url: str,
    *,
    stage: Stage | None = None,
    on_wait: Callable[[], None] = lambda: None,
) -> str | None:
    """Bring the database to the newest schema; a second call changes nothing.

    With `Stage.PRE` only as far as this version's servers need. What was made is handed over to the
    role that owns the schema: returns None, or why that is not done, which hinders nobody else.
    `on_wait` hears of each try that found no lock; after ten minutes of them the database's refusal
    is raised.
    """
    standing = look(database_url)
    wanted = standing.missing_pre if stage is Stage.PRE else standing.missing
    if wanted:
        retry_while_locked(
            lambda: _run(database_url, until=wanted[-1]),
            database_url=database_url,
            tries_max=_TRIES_MAX,
            on_wait=on_wait,
        )
    return hand_over(database_url, on_wait=on_wait)


def look(database_url: str) -> Standing:
    """Return how the database's schema stands to this version's."""
    known = _names()
    engine = create_engine(engine_url(database_url))
    try:
        with engine.connect() as connection:
            current = _find_current(connection)
            if current is None or current in known:
                place = 0 if current is None else known.index(current) + 1
                return Standing(missing=known[place:], newer=[])
            return Standing(missing=[], newer=_find_newer(connection, current, known=known))
    finally:
        engine.dispose()


def pending(database_url: str) -> list[str]:
    """Return the names of the migrations that the database lacks, oldest first."""
    return [*look(database_url).missing]


def newest() -> str:
    """Return the name of the newest migration."""
    return _names()[-1]


def _names() -> list[str]:
    """Return the names of this version's migrations, oldest first: those of their files."""
    return sorted(it.stem for it in _versions().glob("[0-9]*.py"))


def _versions() -> Path:
    return Path(__file__).parent / "versions"


def _find_current(connection: Connection) -> str | None:
    """Return what Alembic has written down as applied last; None where it never ran."""
    if connection.execute(text("SELECT to_regclass('alembic_version')")).scalar() is None:
        return None
    current = connection.execute(text("SELECT version_num FROM alembic_version"))
    return current.scalar_one_or_none()


def _find_newer(connection: Connection, current: str, *, known: Sequence[str]) -> list[str]:
    """Return what was applied and is not known here; the database keeps a list since 0011."""
    if connection.execute(text("SELECT to_regclass('schema_history')")).scalar() is None:
        return [current]
    names = connection.execute(text("SELECT name FROM schema_history ORDER BY name")).scalars()
    return sorted({*names, current} - set(known))


def _count_to_newest_pre(names: Sequence[str]) -> int:
    places = [place for place, name in enumerate(names, 1) if stage_of(name) is Stage.PRE]
    return max(places, default=0)


def _run(database_url: str, *, until: str) -> None:
    # Slow to load, and of all that looks at the schema only this changes it.
    from alembic import command  # noqa: PLC0415

    command.upgrade(_config(database_url), until)


def _config(database_url: str) -> "Config":
    from alembic.config import Config  # noqa: PLC0415 - as above

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("version_locations", str(_versions()))
    config.set_main_option("path_separator", "os")
    config.set_main_option("sqlalchemy.url", database_url.replace("%", "%%"))
    return config
