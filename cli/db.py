"""`tokenworks db`: the schema, which nothing else changes but `tokenworks up`, and the totals."""

import json
from pathlib import Path

import click
from sqlalchemy.exc import DBAPIError

import meter.examination
import migrations
from cli.connection import load_settings
from cli.postgres.errors import PostgresError
from cli.postgres.nearest import find_nearest_url
from cli.process import CommandError, Exit, report_progress
from cli.settings import Settings
from meter.domain.errors import MeterError, Refused
from meter.domain.times import to_iso
from meter.runtime.sessions import refuse_shared_sessions
from migrations import Stage, Standing, stage_of

_in_stage = click.option(
    "--stage",
    type=click.Choice([it.value for it in Stage]),
    help="pre: what this version's servers need. post: what is left when no older one runs.",
)


@click.group("db")
def db() -> None:
    """Upgrade or check the schema of the database of TOKENWORKS_DATABASE_URL, or recount."""


@db.command("upgrade")
@_in_stage
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--config", type=click.Path(path_type=Path), help="A settings file (TOML).")
def upgrade(*, stage: str | None, as_json: bool, config: Path | None) -> None:
    """Bring the schema to this version's; doing it again changes nothing.

    --stage pre may run while servers of the version before go on, and must before those of this
    one start. --stage post, or none, takes away what only the older ones needed.
    """
    applied = upgrade_schema(
        get_database_url(load_settings(config, flags={})), stage=_to_stage(stage)
    )
    if as_json:
        click.echo(json.dumps({"applied": applied}))
    else:
        click.echo("\n".join(f"applied {name}" for name in applied) or "nothing to do")


@db.command("check")
@_in_stage
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--config", type=click.Path(path_type=Path), help="A settings file (TOML).")
def check(*, stage: str | None, as_json: bool, config: Path | None) -> None:
    """Exit 0 when the schema is this version's, 1 when migrations are missing.

    With --stage pre: 0 when this version's servers can start.
    """
    standing = look_at_schema(get_database_url(load_settings(config, flags={})))
    missing = _of_stage(standing, _to_stage(stage))
    if as_json:
        click.echo(json.dumps({"missing": missing, "newer": [*standing.newer]}))
    elif standing.newer:
        click.echo(f"a newer version's, with which this one serves: {standing.newer[-1]}")
    else:
        lines = [f"missing {name}{_when(name, standing)}" for name in missing]
        click.echo("\n".join(lines) or "the schema is up to date")
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


@db.command("grant-reader")
@click.argument("login")
@click.option("--account", metavar="ID", help="See only this account and what is below it.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--config", type=click.Path(path_type=Path), help="A settings file (TOML).")
def grant_reader(*, login: str, account: str | None, as_json: bool, config: Path | None) -> None:
    """Let LOGIN, which the database has, read the SQL views: for dashboards and reports.

    Needs a login that migrates and may grant roles. Doing it again for another account sets that
    one in its place.
    """
    database_url = get_database_url(load_settings(config, flags={}))
    try:
        meter.examination.grant_reader(database_url, login, account_id=account)
    except Refused as error:
        raise CommandError(error.message, code=Exit.REFUSED) from error
    except MeterError as error:
        raise CommandError(error.message) from error
    if as_json:
        click.echo(json.dumps({"login": login, "account": account}))
    else:
        click.echo(f"{login} reads {account or 'everything'}")


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


def upgrade_schema(database_url: str, *, stage: Stage | None = None) -> list[str]:
    """Apply the missing migrations, up to a stage; returns their names. Raises CommandError.

    What they made is handed over to the role that owns the schema; what hinders that is reported,
    and ends nothing.
    """
    missing = _of_stage(look_at_schema(database_url), stage)
    try:
        if missing:
            # The lock of one who migrates is its session's.
            refuse_shared_sessions(database_url)
        hindrance = migrations.upgrade(
            database_url,
            stage=stage,
            on_wait=lambda: report_progress("waits for a lock that somebody holds"),
        )
    except DBAPIError as error:
        raise CommandError(f"the schema cannot be upgraded: {error.orig}") from error
    except MeterError as error:
        raise CommandError(error.message) from error
    if hindrance is not None:
        report_progress(f"warning: {hindrance}")
    return missing


def is_schema_behind(database_url: str) -> bool:
    """Whether migrations are missing without which this version's servers do not start.

    What only older servers needed may still be there, and what a newer version added. Raises
    CommandError.
    """
    return bool(look_at_schema(database_url).missing_pre)


def look_at_schema(database_url: str) -> Standing:
    """How the schema stands to this version's.

    Raises CommandError when nobody answers, or when a newer version has taken away what this one
    needs.
    """
    try:
        standing = migrations.look(database_url)
    except DBAPIError as error:
        raise CommandError(f"the database does not answer: {error.orig}") from error
    if standing.is_too_new:
        raise CommandError(
            f"the database is of a newer version of Tokenworks: {', '.join(standing.newer)}"
        )
    return standing


def _to_stage(name: str | None) -> Stage | None:
    return None if name is None else Stage(name)


def _of_stage(standing: Standing, stage: Stage | None) -> list[str]:
    return [*(standing.missing_pre if stage is Stage.PRE else standing.missing)]


def _when(name: str, standing: Standing) -> str:
    if stage_of(name) is Stage.POST and name in standing.missing_post:
        return ": for when no server of an older version runs any more"
    return ""


def newest_migration() -> str:
    """The name of the migration that this version's schema ends with."""
    return migrations.newest()
