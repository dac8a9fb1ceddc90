"""`tokenworks billing close`: a month's invoices, by the server or as a job on its database."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

import billing.app
import meter.lending
from billing.closing import CloseOrder, Closing
from billing.periods import read_month
from billing.wire.closing_messages import to_close_response
from cli.accounts import resolve
from cli.billing.closed import DUE, print_answer, to_json, waits
from cli.closers import make_closers
from cli.connection import connect, load_settings
from cli.process import CommandError, Exit, format_sandbox, report_progress
from cli.settings import Settings
from cli.traces import tracing
from meter.domain import errors
from meter.domain.errors import MeterError
from meter.domain.times import to_iso
from meter.hosting import Host
from meter.options import JobOptions
from tokenworks.billing.v1 import billing_service_pb2 as pb

PREVIOUS: Final = "previous"
_CLOSING_SECONDS_MAX: Final = 3_600.0
_REFUSALS: Final = (errors.Refused, errors.PermissionDenied)
# Between two lines of progress.
_TOLD_EVERY: Final = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What the command is asked for; `month` may be a word."""

    month: str
    account: str | None
    dry_run: bool
    early: bool
    job_count: int


@click.command("close")
@click.argument("month", metavar="MONTH|previous|due")
@click.option("--account", metavar="ACCOUNT", help="Only the contracts that bill this account.")
@click.option("--dry-run", is_flag=True, help="Only say what would be issued.")
@click.option(
    "--early", is_flag=True, help="Close what has ended, although usage may still come for it."
)
@click.option(
    "--jobs",
    "job_count",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="How many processes share the work.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--server", metavar="HOST:PORT", help="The server that is to close it.")
@click.option("--api-key", metavar="KEY", help="The API key to use.")
@click.option("--insecure", is_flag=True, default=None, help="Without TLS to another machine.")
@click.option("--config", type=click.Path(path_type=Path), help="A settings file (TOML).")
def close(
    *,
    month: str,
    account: str | None,
    dry_run: bool,
    early: bool,
    job_count: int,
    as_json: bool,
    server: str | None,
    api_key: str | None,
    insecure: bool | None,
    config: Path | None,
) -> None:
    """Issue the invoices of MONTH (2026-10), of the previous month, or of all that is due.

    A month is due once its usage was collected: 72 hours after its end, where the contract says
    nothing, and when all that reported for it were heard; on the fifth day whoever was. With
    TOKENWORKS_DATABASE_URL it works on that database itself, as a scheduled job does; else it asks
    the server. Doing it again issues nothing. What is held is named and holds nobody else up; the
    exit code is then 3.
    """
    if month not in (PREVIOUS, DUE):
        try:
            read_month(month)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="MONTH") from error
    flags = {"server": server, "api_key": api_key, "insecure": insecure}
    settings = load_settings(config, flags=flags)
    wanted = _Wanted(
        month=month, account=account, dry_run=dry_run, early=early, job_count=job_count
    )
    is_job = settings.database_url is not None and server is None
    answer = _close_here(settings, wanted) if is_job else _close_there(settings, wanted)
    if as_json:
        click.echo(json.dumps(to_json(answer), indent=2))
    else:
        print_answer(answer)
    waiting, count = waits(answer)
    if waiting:
        raise CommandError(f"waiting: {waiting:,} of {count:,} periods", code=Exit.REFUSED)


def _close_there(settings: Settings, wanted: _Wanted) -> pb.CloseMonthResponse:
    with connect(settings=settings) as client:
        request = pb.CloseMonthRequest(
            month=wanted.month,
            account=resolve(client.accounts, wanted.account) if wanted.account else "",
            dry_run=wanted.dry_run,
            early=wanted.early,
            job_count=wanted.job_count,
        )
        return client.billing.CloseMonth(request, timeout=_CLOSING_SECONDS_MAX)


def _close_here(settings: Settings, wanted: _Wanted) -> pb.CloseMonthResponse:
    with _closing(settings) as (host, closing):
        account_id = None
        if wanted.account is not None:
            account_id = _find_account(host, wanted.account)
        month = None
        if wanted.month == PREVIOUS:
            month = closing.previous_month()
        elif wanted.month != DUE:
            month = read_month(wanted.month)
        order = CloseOrder(
            month=month,
            account_id=account_id,
            dry_run=wanted.dry_run,
            early=wanted.early,
            job_count=wanted.job_count,
        )
        answer = to_close_response(closing.close(order, on_progress=_Progress("periods")))
        if not wanted.dry_run:
            # After all is issued, and again with the next close if this one is stopped.
            _make_papers(host)
        return answer


def _make_papers(host: Host) -> None:
    made = billing.app.make_press(host).make_missing(on_progress=_Progress("papers"))
    for number, characters in sorted(made.unshown.items()):
        report_progress(f"{number}: no font on this machine shows {characters}")
    for number, why in sorted(made.failed.items()):
        report_progress(f"{number}: cannot be printed: {why}")


@contextmanager
def _closing(settings: Settings) -> Iterator[tuple[Host, Closing]]:
    """Open the database, and say how it fails."""
    assert settings.database_url is not None
    options = JobOptions(
        database_url=settings.database_url,
        tiers=settings.tiers,
        archive_folder=settings.archive_folder,
        otlp_traces_endpoint=settings.otlp_traces_endpoint,
        engine_drift_hold_ppm=settings.engine_drift_hold_ppm,
    )
    try:
        with tracing(options.otlp_traces_endpoint), meter.lending.open_host(options) as host:
            if host.is_driven:
                report_progress(format_sandbox(to_iso(host.clock.now_ms())))
            yield host, billing.app.make_closing(host, make_closers=make_closers(options))
    except MeterError as error:
        code = Exit.REFUSED if isinstance(error, _REFUSALS) else Exit.FAILED
        raise CommandError(f"{error.message} ({error.reason})", code=code) from error


def _find_account(host: Host, account: str) -> str:
    tree = host.tree()
    found = tree.find_by_path(account.removeprefix("/"), at_ms=host.clock.now_ms())
    return (found or tree.get(account.removeprefix("id:"))).account_id


class _Progress:
    """Says how many are done, now and then."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._told = 0

    def __call__(self, count: int) -> None:
        if count - self._told >= _TOLD_EVERY:
            self._told = count
            report_progress(f"{count:,} {self._what}")
