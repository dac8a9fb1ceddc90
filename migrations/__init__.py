"""The schema's history: `NNNN_{pre|post}_what.py`, run by Alembic under one lock."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine


def upgrade(database_url: str) -> None:
    """Bring the database to the newest schema; a second call changes nothing."""
    command.upgrade(_config(database_url), "head")


def pending(database_url: str) -> list[str]:
    """Return the names of the migrations that the database lacks, oldest first."""
    script = ScriptDirectory.from_config(_config(database_url))
    engine = create_engine(database_url)
    try:
        with engine.connect() as connection:
            current = MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()
    missing = [
        f"{revision.revision}" for revision in script.iterate_revisions("head", current or "base")
    ]
    return missing[::-1]


def newest() -> str:
    """Return the name of the newest migration."""
    head = ScriptDirectory.from_config(_config("")).get_current_head()
    assert head is not None
    return head


def _config(database_url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("version_locations", str(Path(__file__).parent / "versions"))
    config.set_main_option("path_separator", "os")
    config.set_main_option("sqlalchemy.url", database_url.replace("%", "%%"))
    return config
