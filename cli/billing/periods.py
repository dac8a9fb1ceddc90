"""`tokenworks billing periods|reopen`: where months stand, and one that is opened again."""

import json
from collections.abc import Iterator, Sequence
from typing import Final

import click

from cli.accounts import format_time, print_table
from cli.billing.closed import OUTCOME_WORDS, outcome_name
from cli.connection import Client, client_command
from cli.process import report_progress
from tokenworks.billing.v1 import billing_service_pb2 as pb

_STATES: Final = {
    pb.PeriodState.Name(number).removeprefix("PERIOD_STATE_").lower(): number
    for number in pb.PeriodState.values()
    if number
}
_NAMES: Final = {number: name for name, number in _STATES.items()}
_PAGE_SIZE: Final = 1_000
_COLUMNS: Final = (
    *("contract", "month", "from", "until", "state", "collected", "at the latest"),
    *("outcome", "number", "exception"),
)


@click.command("periods")
@click.argument("month", required=False)
@click.option("--contract", metavar="CONTRACT", help="Only those of a contract.")
@click.option("--state", type=click.Choice(list(_STATES)), help="Only those that stand there.")
@client_command
def periods(client: Client, *, month: str | None, contract: str | None, state: str | None) -> None:
    """List the periods that contracts are billed by, of MONTH or of all months.

    A period is open, then collects usage that comes late, then is due, and then closed. It is due
    when it is `collected` and all who reported for it were heard, or `at the latest`.
    """
    request = pb.ListPeriodsRequest(
        month=month or "",
        contract=contract or "",
        state=_STATES[state] if state else pb.PERIOD_STATE_UNSPECIFIED,
        page_size=_PAGE_SIZE,
    )
    found = list(_pages(client, request))
    if client.as_json:
        click.echo(json.dumps({"periods": [_to_json(it) for it in found]}, indent=2))
    else:
        _print(found)


@click.command("reopen")
@click.argument("contract")
@click.argument("month")
@click.option("--reason", required=True, help="Why; it stands in the audit log.")
@client_command
def reopen(client: Client, *, contract: str, month: str, reason: str) -> None:
    """Open MONTH of CONTRACT again, which was closed without a document.

    What was billed is not opened again: credit it, or void the invoice.
    """
    request = pb.ReopenPeriodRequest(contract=contract, month=month, reason=reason)
    found = client.billing.ReopenPeriod(request).periods
    if client.as_json:
        click.echo(json.dumps({"periods": [_to_json(it) for it in found]}, indent=2))
    else:
        _print(found)


def _pages(client: Client, request: pb.ListPeriodsRequest) -> Iterator[pb.Period]:
    while True:
        answer = client.billing.ListPeriods(request)
        if not request.page_token and len(answer.counts) > 1 and not client.as_json:
            told = (f"{it.count:,} {_NAMES[it.state]}" for it in answer.counts)
            report_progress(", ".join(told))
        yield from answer.periods
        if not answer.next_page_token:
            return
        request.page_token = answer.next_page_token


def _print(found: Sequence[pb.Period]) -> None:
    rows = [
        [
            it.contract,
            it.month,
            format_time(it.start_time),
            format_time(it.end_time),
            _NAMES[it.state],
            format_time(it.collected_time),
            format_time(it.due_time),
            OUTCOME_WORDS[it.outcome],
            it.number or "-",
            it.exception or "-",
        ]
        for it in found
    ]
    if rows:
        print_table(list(_COLUMNS), rows)
    else:
        report_progress("no periods")


def _to_json(period: pb.Period) -> dict[str, object]:
    is_closed = period.HasField("close_time")
    return {
        "contract": period.contract,
        "month": period.month,
        "start_time": period.start_time.ToJsonString(),
        "end_time": period.end_time.ToJsonString(),
        "zone": period.zone,
        "tzdata": period.tzdata or None,
        "state": _NAMES[period.state],
        "collected_time": period.collected_time.ToJsonString(),
        "due_time": period.due_time.ToJsonString(),
        "outcome": outcome_name(period.outcome) if is_closed else None,
        "close_time": period.close_time.ToJsonString() if is_closed else None,
        "cut_id": period.cut_id or None,
        "exception": period.exception or None,
        "number": period.number or None,
    }
