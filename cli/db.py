"""`tokenworks db`: the schema, which nothing else changes but `tokenworks up`, and the totals."""

import json
from pathlib import Path

import click
from alembic.script.revision import RevisionError
from sqlalchemy.exc import DBAPIError

import meter.examination
import migrations
from cli.connection import load_settings
from cli.postgres.errors import PostgresError
from cli.postgres.nearest import find_nearest_url
from cli.process import CommandError, Exit, report_progress
from cli.settings import Settings
from meter.domain.errors import MeterError
from meter.domain.times import to_iso


@click.group("db")
def db() -> None:
    """Upgrade or check the schema of the database of TOKENWORKS_DATABASE_URL, or recount."""


@db.command("upgrade")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--config", type=click.Path(path_type=Path), help="A settings file (TOML).")
def upgrade(*, as_json: bool, config: Path | None) -> None:
    """Bring the schema to this version's; doing it again changes nothing."""
    applied = upgrade_schema(get_database_url(load_settings(config, flags={})))
    if as_json:
        click.echo(json.dumps({"applied": applied}))
    else:
        click.echo("\n".join(f"applied {name}" for name in applied) or "nothing to do")


@db.command("check")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--config", type=click.Path(path_type=Path), help="A settings file (TOML).")
def check(*, as_json: bool, config: Path | None) -> None:
    """Exit 0 when the schema is this version's, 1 when migrations are missing."""
    missing = find_missing_migrations(get_database_url(load_settings(config, flags={})))
    if as_json:
        click.echo(json.dumps({"missing": missing}))
    else:
        click.echo("\n".join(f"missing {name}" for name in missing) or "the schema is up to date")
    if missing:
        raise SystemExit(Exit.FAILED)


@db.command("recount")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--config", type=click.Path(path_type=Path), help="A settings file (TOML).")
def recount(*, as_json: bool, config: Path | None) -> None:
    """Add usage up anew for the months, after somebody has changed it by hand.

    What closes and previews read is rebuilt; usage itself, and what was issued, stay as they are.
    The meter may run on. The audit log tells of it.
    """
    database_url = get_database_url(load_settings(config, flags={}))
    try:
        until_ms = meter.examination.recount(
            database_url, on_progress=lambda it: report_progress(f"added up until {to_iso(it)}")
        )
    except MeterError as error:
        raise CommandError(error.message) from error
    if as_json:
        click.echo(json.dumps({"until": to_iso(until_ms)}))
    else:
        click.echo(f"usage is added up until {to_iso(until_ms)}")


def get_database_url(settings: Settings) -> str:
    """The database of the settings, or the end of the command."""
    if settings.database_url is None:
        raise CommandError(
            "no database is named: set TOKENWORKS_DATABASE_URL"
            " (on your own machine, `tokenworks up` brings one)",
            code=Exit.USAGE,
        )
    return settings.database_url


def find_database_url(settings: Settings) -> str:
    """The database of the settings, else that of the nearest folder in which `up` runs.

    For what only looks. Ends the command when there is none.
    """
    if settings.database_url is None:
        try:
            nearest = find_nearest_url(pg_bin=settings.pg_bin)
        except PostgresError as error:
            raise CommandError(str(error)) from error
        if nearest is not None:
            return nearest
    return get_database_url(settings)


def upgrade_schema(database_url: str) -> list[str]:
    """Apply the missing migrations; returns their names. Raises CommandError."""
    missing = find_missing_migrations(database_url)
    if missing:
        try:
            migrations.upgrade(database_url)
        except DBAPIError as error:
            raise CommandError(f"the schema cannot be upgraded: {error.orig}") from error
    return missing


def find_missing_migrations(database_url: str) -> list[str]:
    """The names of the migrations that the database lacks, oldest first. Raises CommandError."""
    try:
        return migrations.pending(database_url)
    except DBAPIError as error:
        raise CommandError(f"the database does not answer: {error.orig}") from error
    except RevisionError as error:
        raise CommandError(f"the database is of a newer version of Tokenworks: {error}") from error


def newest_migration() -> str:
    """The name of the migration that this version's schema ends with."""
    return migrations.newest()
