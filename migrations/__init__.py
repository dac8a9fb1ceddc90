"""The schema's history: `NNNN_{pre|post}_what.py`, run by Alembic under one lock.

A version's `pre` migrations come before its servers: those of the version before go on beside them.
Its `post` migrations take away what only those needed, and come when none of them runs any more.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text

from meter.runtime.database_url import engine_url
from migrations.ownership import hand_over
from migrations.waiting import retry_while_locked

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
            lambda: command.upgrade(_config(database_url), wanted[-1]),
            database_url=database_url,
            tries_max=_TRIES_MAX,
            on_wait=on_wait,
        )
    return hand_over(database_url, on_wait=on_wait)


def look(database_url: str) -> Standing:
    """Return how the database's schema stands to this version's."""
    script = ScriptDirectory.from_config(_config(database_url))
    known = [each.revision for each in script.walk_revisions()][::-1]
    engine = create_engine(engine_url(database_url))
    try:
        with engine.connect() as connection:
            current = MigrationContext.configure(connection).get_current_revision()
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
    head = ScriptDirectory.from_config(_config("")).get_current_head()
    assert head is not None
    return head


def _find_newer(connection: Connection, current: str, *, known: Sequence[str]) -> list[str]:
    """Return what was applied and is not known here; the database keeps a list since 0011."""
    if connection.execute(text("SELECT to_regclass('schema_history')")).scalar() is None:
        return [current]
    names = connection.execute(text("SELECT name FROM schema_history ORDER BY name")).scalars()
    return sorted({*names, current} - set(known))


def _count_to_newest_pre(names: Sequence[str]) -> int:
    places = [place for place, name in enumerate(names, 1) if stage_of(name) is Stage.PRE]
    return max(places, default=0)


def _config(database_url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("version_locations", str(Path(__file__).parent / "versions"))
    config.set_main_option("path_separator", "os")
    config.set_main_option("sqlalchemy.url", database_url.replace("%", "%%"))
    return config
