"""`tokenworks billing close`: a month's invoices, by the server or as a job on its database."""

import json
from pathlib import Path
from typing import Final

import click

import billing.app
import meter.lending
from billing.closing import CloseOrder
from billing.periods import read_month
from billing.wire.closing_messages import to_close_response
from cli.accounts import print_table, resolve
from cli.connection import connect, load_settings
from cli.invoices import summary_to_json
from cli.process import CommandError, Exit, format_sandbox, report_progress
from cli.settings import Settings
from meter.domain import errors
from meter.domain.errors import MeterError
from meter.domain.times import to_iso
from meter.options import JobOptions
from tokenworks.billing.v1 import billing_service_pb2 as pb
from tokenworks.meter.v1 import usage_pb2

PREVIOUS: Final = "previous"
_CLOSING_SECONDS_MAX: Final = 3_600.0
_HELD: Final = frozenset(
    {
        pb.CLOSE_OUTCOME_HELD_UNPRICED,
        pb.CLOSE_OUTCOME_HELD_EARLIER,
        pb.CLOSE_OUTCOME_NOT_ENDED,
    }
)
_WORDS: Final = {
    pb.CLOSE_OUTCOME_ISSUED: "issued",
    pb.CLOSE_OUTCOME_DRAFTED: "would be issued",
    pb.CLOSE_OUTCOME_ALREADY_ISSUED: "issued before",
    pb.CLOSE_OUTCOME_NO_USAGE: "no usage",
    pb.CLOSE_OUTCOME_HELD_UNPRICED: "held: no price",
    pb.CLOSE_OUTCOME_HELD_EARLIER: "held: earlier month open",
    pb.CLOSE_OUTCOME_NOT_ENDED: "not ended",
}
_REFUSALS: Final = (errors.Refused, errors.PermissionDenied)


@click.command("close")
@click.argument("month", metavar="MONTH|previous")
@click.option("--account", metavar="ACCOUNT", help="Only the contract that bills this account.")
@click.option("--dry-run", is_flag=True, help="Only say what would be issued.")
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
    as_json: bool,
    server: str | None,
    api_key: str | None,
    insecure: bool | None,
    config: Path | None,
) -> None:
    """Issue the invoices of MONTH (2026-10), or of the previous month.

    With TOKENWORKS_DATABASE_URL it works on that database itself, as a scheduled job does; else it
    asks the server. Doing it again issues nothing. What is held is named and holds nobody else up;
    the exit code is then 3.
    """
    if month != PREVIOUS:
        try:
            read_month(month)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="MONTH") from error
    flags = {"server": server, "api_key": api_key, "insecure": insecure}
    settings = load_settings(config, flags=flags)
    if settings.database_url is not None and server is None:
        answer = _close_here(settings, month=month, account=account, dry_run=dry_run)
    else:
        answer = _close_there(settings, month=month, account=account, dry_run=dry_run)
    if as_json:
        click.echo(json.dumps(_to_json(answer), indent=2))
    else:
        _print(answer)
    held = [it for it in answer.periods if it.outcome in _HELD]
    if held:
        raise CommandError(f"{len(held)} of {len(answer.periods)} wait", code=Exit.REFUSED)


def _close_there(
    settings: Settings, *, month: str, account: str | None, dry_run: bool
) -> pb.CloseMonthResponse:
    with connect(settings=settings) as client:
        request = pb.CloseMonthRequest(
            month=month,
            account=resolve(client.accounts, account) if account else "",
            dry_run=dry_run,
        )
        return client.billing.CloseMonth(request, timeout=_CLOSING_SECONDS_MAX)


def _close_here(
    settings: Settings, *, month: str, account: str | None, dry_run: bool
) -> pb.CloseMonthResponse:
    assert settings.database_url is not None
    options = JobOptions(database_url=settings.database_url, tiers=settings.tiers)
    try:
        with meter.lending.open_host(options) as host:
            if host.is_driven:
                report_progress(format_sandbox(to_iso(host.clock.now_ms())))
            closing = billing.app.make_closing(host)
            account_id = None
            if account is not None:
                now_ms = host.clock.now_ms()
                tree = host.tree()
                found = tree.find_by_path(account.removeprefix("/"), at_ms=now_ms)
                account_id = (found or tree.get(account.removeprefix("id:"))).account_id
            wanted = closing.previous_month() if month == PREVIOUS else read_month(month)
            order = CloseOrder(month=wanted, account_id=account_id, dry_run=dry_run)
            result = closing.close(order)
            return to_close_response(result)
    except MeterError as error:
        code = Exit.REFUSED if isinstance(error, _REFUSALS) else Exit.FAILED
        raise CommandError(f"{error.message} ({error.reason})", code=code) from error


def _print(answer: pb.CloseMonthResponse) -> None:
    rows = [
        [
            it.invoice.number or "-",
            it.invoice.contract,
            it.invoice.account,
            f"{it.invoice.total} {it.invoice.currency}" if it.invoice.currency else "-",
            _WORDS[it.outcome],
        ]
        for it in answer.periods
    ]
    if rows:
        print_table(["number", "contract", "account", "total", answer.month], rows)
    else:
        click.echo(f"{answer.month}: no contract is in force")
    for period in answer.periods:
        for it in period.unpriced:
            click.echo(
                f"{period.invoice.contract}: no price for {it.token_count:,} tokens of"
                f" {it.model}, tier {it.tier}, {_class_name(it)}, prompts {it.band},"
                f" first at {it.first_time.ToJsonString()}"
            )
        if period.earlier_month:
            click.echo(
                f"{period.invoice.contract}: close {period.earlier_month} first, it has usage:"
                f" tokenworks billing close {period.earlier_month}"
            )
    if answer.uncovered:
        click.echo(f"no contract bills the usage of: {', '.join(answer.uncovered)}")


def _class_name(unpriced: pb.Unpriced) -> str:
    return usage_pb2.TokenClass.Name(unpriced.token_class).removeprefix("TOKEN_CLASS_").lower()


def _to_json(answer: pb.CloseMonthResponse) -> dict[str, object]:
    return {
        "month": answer.month,
        "cut_id": answer.cut_id or None,
        "periods": [
            {
                "outcome": pb.CloseOutcome.Name(it.outcome).removeprefix("CLOSE_OUTCOME_"),
                "invoice": summary_to_json(it.invoice),
                "unpriced": [
                    {
                        "model": each.model,
                        "tier": each.tier,
                        "token_class": _class_name(each),
                        "band": each.band,
                        "tokens": each.token_count,
                        "first_time": each.first_time.ToJsonString(),
                    }
                    for each in it.unpriced
                ],
                "earlier_month": it.earlier_month or None,
            }
            for it in answer.periods
        ],
        "uncovered": list(answer.uncovered),
    }
