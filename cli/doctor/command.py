"""`tokenworks doctor`: opens the database, looks, and says what to do."""

import json
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import click

import meter.examination
from cli.connection import load_settings
from cli.db import find_database_url, look_at_schema, newest_migration
from cli.doctor.audit import Result, run_audit, to_checks
from cli.doctor.check import Check, Mark
from cli.doctor.checks import check_health, check_login, check_role, check_schema
from cli.doctor.machine import check_certificates, check_settings
from cli.doctor.page import write_checks, write_end, write_span, write_sums
from cli.doctor.room import check_connections, check_space, check_spool, find_disk
from cli.process import CommandError, Exit, format_sandbox, report_progress
from cli.settings import Settings, find_sources, is_loopback
from meter.counting.findings import Check as Looked
from meter.domain.errors import MeterError
from meter.domain.times import to_iso, to_ms
from meter.health import Health, Login
from meter.runtime.clock import SystemClock

_RIGHTS = "see that tokenworks_service may read all tables: tokenworks db upgrade grants it"
_DATE = click.DateTime(formats=["%Y-%m-%d"])


@click.command("doctor")
@click.option("--audit", "with_audit", is_flag=True, help="Add up journal, usage and invoices too.")
@click.option("--since", type=_DATE, metavar="DATE", help="Audit from this day on, in UTC.")
@click.option("--until", type=_DATE, metavar="DATE", help="Audit until the begin of this day.")
@click.option(
    "--spool",
    "spools",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Look at a producer's spool of this machine, too; may be given often.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--config", type=click.Path(path_type=Path), help="A settings file (TOML).")
def doctor(
    *,
    with_audit: bool,
    since: datetime | None,
    until: datetime | None,
    spools: tuple[Path, ...],
    as_json: bool,
    config: Path | None,
) -> None:
    """Look at the database of TOKENWORKS_DATABASE_URL, and say what to do.

    Without it, at that of the nearest folder in which `tokenworks up` runs.
    With --audit every event of the journal is added up again and compared with usage, and usage
    with the invoices. Nothing is changed and nobody waits: it may run beside a meter at any time.
    The exit code is 1 when something failed; a warning leaves it 0.
    """
    if (since or until) and not with_audit:
        raise click.UsageError("--since and --until belong to --audit")
    settings = load_settings(config, flags={})
    database_url = find_database_url(settings)
    checks = [check_settings(settings, sources=find_sources(config))]
    checks += check_certificates(settings, now_ms=SystemClock().now_ms())
    checks += map(check_spool, spools)
    found, is_readable = _examine(settings, database_url=database_url)
    checks += found
    result = None
    if with_audit and is_readable:
        result = _audit(settings, database_url=database_url, since=since, until=until)
        checks += to_checks(result)
    elif with_audit:
        checks.append(
            Check(name="audit", mark=Mark.FAIL, says="not begun", do="see to the above first")
        )
    if as_json:
        click.echo(json.dumps(_to_json(checks, result), indent=2))
    else:
        _print(checks, result)
    if any(it.mark is Mark.FAIL for it in checks):
        raise SystemExit(Exit.FAILED)


def _examine(settings: Settings, *, database_url: str) -> tuple[list[Check], bool]:
    """Return the checks, and whether the tables are there to be read: each step needs the last."""
    try:
        login = meter.examination.look_at_login(database_url)
    except MeterError as error:
        says = f"does not answer: {error.message}"
        do = "start it, or correct TOKENWORKS_DATABASE_URL"
        return [Check(name="database", mark=Mark.FAIL, says=says, do=do)], False
    checks = [check_login(login)]
    if not login.has_service_role:
        says = "empty: it was never migrated"
        checks.append(Check(name="schema", mark=Mark.FAIL, says=says, do="tokenworks db upgrade"))
        return checks, False
    checks.append(check_role(login))
    if not login.may_serve:
        return checks, False
    try:
        schema = look_at_schema(database_url)
    except CommandError as error:
        do = "upgrade tokenworks here: an older one does not touch a newer database"
        checks.append(Check(name="schema", mark=Mark.FAIL, says=error.message, do=do))
        return checks, False
    checks.append(
        check_schema(schema.missing_pre, left=schema.missing_post, newest=newest_migration())
    )
    if schema.missing_pre:
        return checks, False
    try:
        health = meter.examination.look_at_health(
            database_url, silence_ms=settings.silence_seconds * 1000
        )
    except MeterError as error:
        checks.append(Check(name="tables", mark=Mark.FAIL, says=error.message, do=_RIGHTS))
        return checks, False
    if health.is_driven:
        report_progress(format_sandbox(to_iso(health.now_ms)))
    checks.append(_look_at_space(login, health, database_url=database_url))
    checks.append(check_connections(login.connections))
    checks += check_health(
        health,
        machine_ms=SystemClock().now_ms(),
        durable_standbys=settings.durable_standbys,
    )
    return checks, True


def _look_at_space(login: Login, health: Health, *, database_url: str) -> Check:
    """Return the check of the database's disk, which is seen where it is one of this machine."""
    host = urlsplit(database_url).hostname
    is_here = host is None or host.startswith("/") or is_loopback(f"{host}:0")
    folder = login.data_folder if is_here else None
    return check_space(
        database_bytes=health.database_bytes,
        folder=folder,
        disk=find_disk(None if folder is None else Path(folder)),
    )


def _audit(
    settings: Settings, *, database_url: str, since: datetime | None, until: datetime | None
) -> Result:
    since_ms, until_ms = (
        None if day is None else to_ms(day.replace(tzinfo=UTC)) for day in (since, until)
    )
    try:
        return run_audit(settings, database_url=database_url, since_ms=since_ms, until_ms=until_ms)
    except MeterError as error:
        raise CommandError(error.message) from error


def _print(checks: list[Check], result: Result | None) -> None:
    audited = len(checks) - (len(Looked) if result else 0)
    lines = list(write_checks(checks[:audited]))
    if result is not None:
        lines += ["", write_span(result.audit), "", *write_sums(result.audit, result.invoices), ""]
        lines += write_checks(checks[audited:])
    click.echo("\n".join(["", *lines, "", write_end(checks)]))


def _to_json(checks: list[Check], result: Result | None) -> dict[str, object]:
    shown: dict[str, object] = {
        "ok": all(it.mark is not Mark.FAIL for it in checks),
        "checks": [
            {
                "check": it.name,
                "mark": str(it.mark),
                "says": it.says,
                "do": it.do if it.mark is not Mark.OK else "",
                "facts": it.facts,
            }
            for it in checks
        ],
    }
    if result is not None:
        audit, invoices = result.audit, result.invoices
        shown["audit"] = {
            "since": to_iso(audit.since_ms),
            "until": to_iso(audit.until_ms),
            "events": audit.event_count,
            "seconds": round(result.seconds, 3),
            "journal": dict(audit.journal),
            "usage": dict(audit.usage),
            "invoices": invoices.invoice_count,
            "billed_tokens": invoices.billed_tokens,
            "used_tokens": invoices.used_tokens,
        }
    return shown
