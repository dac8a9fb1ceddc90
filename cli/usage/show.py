"""`tokenworks usage show`."""

import json
from collections.abc import Sequence
from itertools import groupby

import click

from cli.accounts import resolve
from cli.connection import Client, client_command, find_now_ms
from cli.process import report_progress
from cli.usage.query import (
    MODES,
    find_energy_mj,
    row_to_json,
    split_groups,
    to_request,
    tokens_of,
)
from cli.usage.span import Span, check_order, check_time, to_span
from cli.usage.table import UsageLine, print_usage
from tokenworks.meter.v1 import account_service_pb2, meter_service_pb2
from tokenworks.meter.v1.account_service_pb2_grpc import AccountServiceStub

PATHS_MAX = 10_000


@click.command("show", short_help="What was used, by model, tier, account or time.")
@click.argument("account", required=False)
@click.option(
    "--by",
    callback=split_groups,
    default="model,tier",
    show_default=True,
    metavar="NAME,…",
    help="What the rows are split by: account, model, served_model, tier, mode, region, band,"
    " interval, day.",
)
@click.option(
    "--since",
    callback=check_time,
    default="1d",
    show_default=True,
    metavar="TIME",
    help="Begin of the time.",
)
@click.option(
    "--until", callback=check_time, metavar="TIME", help="End of the time; without it, now."
)
@click.option("--model", default="", metavar="NAME", help="Only this model, as it was asked for.")
@click.option("--tier", default="", metavar="NAME", help="Only this tier.")
@client_command
def show(
    client: Client,
    *,
    account: str | None,
    by: tuple[str, ...],
    since: str,
    until: str | None,
    model: str,
    tier: str,
) -> None:
    """Show what ACCOUNT and all below it used; without ACCOUNT, what everyone did.

    Usage is kept by quarters of an hour: the times are widened to their edges.
    """
    check_order(since, until)
    span = to_span(since, until, now_ms=find_now_ms(client))
    root = resolve(client.accounts, account) if account else ""
    answer = client.meter.QueryUsage(
        to_request(span, account_id=root, by=by, model=model, tier=tier)
    )
    _tell_of_silence(answer)
    if client.as_json:
        click.echo(json.dumps(_to_json(answer, span=span, by=by), indent=2))
        return
    click.echo(f"usage of {account or 'all accounts'}, {span}")
    if answer.rows:
        paths = _find_paths(client.accounts, answer.rows, root=root) if "account" in by else {}
        lines = [_to_line(row, by=by, paths=paths) for row in answer.rows]
        print_usage(by, _sort_by_path(lines, by=by) if "account" in by else lines)
    else:
        click.echo(_advise_on_nothing(account, narrowed=bool(model or tier)))
    click.echo(f"counted until {answer.counted_until.ToDatetime():%Y-%m-%d %H:%M:%S} UTC")


def _tell_of_silence(answer: meter_service_pb2.QueryUsageResponse) -> None:
    """Say on stderr whose usage is not in the sums, so that an outage is not taken for zero."""
    count = answer.silent_producer_count
    if count:
        who = "1 producer is" if count == 1 else f"{count} producers are"
        since = f"{answer.heard_until.ToDatetime():%Y-%m-%d %H:%M:%S} UTC"
        report_progress(
            f"{who} silent: usage since {since} is unknown, not zero"
            " (`tokenworks producers list --silent`)"
        )


def _to_line(
    row: meter_service_pb2.UsageRow, *, by: tuple[str, ...], paths: dict[str, str]
) -> UsageLine:
    day = row.start_time.ToDatetime().strftime("%Y-%m-%d")
    values = {
        "account": paths.get(row.account) or row.account,
        "model": row.model,
        "served_model": row.served_model,
        "tier": row.tier,
        "mode": MODES.get(row.mode, str(row.mode)),
        "region": row.region,
        "band": row.band,
        "interval": row.start_time.ToDatetime().strftime("%Y-%m-%d %H:%M"),
        "day": day,
    }
    return UsageLine(
        keys=tuple(values[name] or "-" for name in by),
        tokens=tokens_of(row),
        request_count=row.request_count,
        unfinished_count=row.unfinished_count,
        estimated_count=row.estimated_count,
        energy_mj=find_energy_mj(row),
    )


def _sort_by_path(lines: list[UsageLine], *, by: tuple[str, ...]) -> list[UsageLine]:
    """Return the lines in the order of paths, where they came in the order of account ids."""
    place = by.index("account")
    return [
        line
        for _, group in groupby(lines, key=lambda line: line.keys[:place])
        for line in sorted(group, key=lambda line: line.keys[place])
    ]


def _to_json(
    answer: meter_service_pb2.QueryUsageResponse, *, span: Span, by: tuple[str, ...]
) -> dict[str, object]:
    question = to_request(span, account_id="", by=by)
    return {
        "start_time": question.start_time.ToJsonString(),
        "end_time": question.end_time.ToJsonString(),
        "counted_until": answer.counted_until.ToJsonString(),
        "heard_until": answer.heard_until.ToJsonString()
        if answer.HasField("heard_until")
        else None,
        "silent_producer_count": answer.silent_producer_count,
        "rows": [row_to_json(row, by=by) for row in answer.rows],
    }


def _find_paths(
    stub: AccountServiceStub, rows: Sequence[meter_service_pb2.UsageRow], *, root: str
) -> dict[str, str]:
    """Return the paths of the rows' accounts; a handle where the account has moved elsewhere."""
    paths = {row.account: f"{row.handle} ({row.account})" for row in rows if row.handle}
    request = account_service_pb2.ListAccountsRequest(account=root, page_size=PATHS_MAX)
    while True:
        answer = stub.ListAccounts(request)
        paths.update((each.account, each.path) for each in answer.accounts)
        if not answer.next_page_token:
            return paths
        request.page_token = answer.next_page_token


def _advise_on_nothing(account: str | None, *, narrowed: bool) -> str:
    wider = " ".join(["tokenworks usage show", *([account] if account else []), "--since 35d"])
    advice = {
        wider: "as far back as late events may lie",
        "tokenworks usage quarantine list": "what was reported and set aside",
        "tokenworks usage record --help": "one event by hand",
    }
    width = max(map(len, advice))
    what = "Nothing of this model or tier" if narrowed else "Nothing"
    lines = [f"  {command:<{width}}   {meaning}" for command, meaning in advice.items()]
    return "\n".join([f"\n{what} was counted in this time. Next:", *lines, ""])
