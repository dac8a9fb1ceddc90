"""`tokenworks usage export`: the intervals as CSV."""

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Final, Literal

import click
import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from cli.accounts import format_time, resolve
from cli.connection import Client, client_command, find_now_ms, find_reason
from cli.process import CommandError, report_progress
from cli.usage.query import (
    MODES,
    SUMS,
    TIMES,
    TOKEN_CLASSES,
    find_energy_mj,
    row_to_json,
    split_groups,
    to_request,
    tokens_of,
)
from cli.usage.span import Span, check_order, check_time, to_span
from meter.domain.interval import INTERVAL_MS, interval_start_ms
from meter.domain.limits import QUERY_ROWS_MAX
from tokenworks.meter.v1 import meter_service_pb2 as pb

_DAY_MS: Final = 86_400_000


@click.command("export", short_help="Usage by interval, as CSV.")
@click.argument("account", required=False)
@click.option(
    "--since", callback=check_time, required=True, metavar="TIME", help="Begin of the time."
)
@click.option(
    "--until", callback=check_time, metavar="TIME", help="End of the time; without it, now."
)
@click.option(
    "--by",
    callback=split_groups,
    default="account,model,tier",
    show_default=True,
    metavar="NAME,…",
    help="What the rows are split by beside the interval: account, model, served_model, tier, mode,"
    " region, band.",
)
@client_command
def export(
    client: Client, *, account: str | None, since: str, until: str | None, by: tuple[str, ...]
) -> None:
    """Write usage of ACCOUNT and all below it as CSV: a row for each interval of 15 minutes.

    One column for each token class, times in UTC; with --json, a line of JSON for each row. Until
    when all is counted is told on stderr.
    """
    if set(by) & set(TIMES):
        raise click.BadParameter("the interval is always there.", param_hint="--by")
    check_order(since, until)
    span = to_span(since, until, now_ms=find_now_ms(client))
    root = resolve(client.accounts, account) if account else ""
    groups = ("interval", *by)
    writer = csv.writer(sys.stdout)
    if not client.as_json:
        sums = (*TOKEN_CLASSES.values(), *SUMS, "energy_mj")
        writer.writerow(["interval_start", "interval_end", *_names(by), *sums])
    row_count, counted_until = 0, ""
    for answer in read_chunks(client, span=span, account_id=root, by=groups):
        if client.as_json:
            for row in answer.rows:
                click.echo(json.dumps(row_to_json(row, by=groups)))
        else:
            writer.writerows(_to_cells(row, by=by) for row in answer.rows)
        row_count += len(answer.rows)
        # The first answer is the oldest: of what was counted after it, some may be missing.
        counted_until = counted_until or format_time(answer.counted_until)
    report_progress(f"{row_count:,} rows, counted until {counted_until}")


def read_chunks(
    client: Client, *, span: Span, account_id: str, by: tuple[str, ...]
) -> Iterator[pb.QueryUsageResponse]:
    """Return the rows of a span in order of time, asked for in pieces that no answer cuts.

    Raises CommandError when one interval has more rows of one model at one tier than an answer.
    """
    begin_ms, length_ms = span.start_ms, _DAY_MS
    while begin_ms < span.end_ms:
        piece = Span(start_ms=begin_ms, end_ms=min(begin_ms + length_ms, span.end_ms))
        request = to_request(piece, account_id=account_id, by=by)
        length_ms = piece.end_ms - piece.start_ms
        answer = _ask(client, request)
        if answer is None and length_ms > INTERVAL_MS:
            # A question that is refused costs as much as its answer: be done with it soon.
            length_ms = max(INTERVAL_MS, interval_start_ms(length_ms // 8))
            continue
        yield from _split(client, request) if answer is None else [answer]
        begin_ms = piece.end_ms
        if answer is not None and len(answer.rows) < QUERY_ROWS_MAX // 4:
            length_ms *= 2


def _split(client: Client, request: pb.QueryUsageRequest) -> Iterator[pb.QueryUsageResponse]:
    """Return one interval's rows tier by tier, and where that is too much, model by model."""
    field: Literal["tier", "model"] = "model" if request.tier else "tier"
    parts = pb.QueryUsageRequest()
    parts.CopyFrom(request)
    parts.group_by[:] = [pb.GROUP_BY_MODEL if field == "model" else pb.GROUP_BY_TIER]
    for part in client.meter.QueryUsage(parts).rows:
        narrower = pb.QueryUsageRequest()
        narrower.CopyFrom(request)
        setattr(narrower, field, getattr(part, field))
        answer = _ask(client, narrower)
        if answer is not None:
            yield answer
        elif field == "tier":
            yield from _split(client, narrower)
        else:
            raise CommandError(
                f"the interval from {narrower.start_time.ToJsonString()} has more than"
                f" {QUERY_ROWS_MAX:,} rows of {narrower.model} at {narrower.tier}: export the"
                " accounts below one by one, or take a coarser --by"
            )


def _ask(client: Client, request: pb.QueryUsageRequest) -> pb.QueryUsageResponse | None:
    """Return the answer; None when it has more rows than one may have.

    Where the question is wrong in another way, a smaller one is too, and the smallest says so.
    """
    try:
        return client.meter.QueryUsage(request)
    except grpc.RpcError as error:
        if not _is_refused(error):
            raise
        return None


def _is_refused(error: Exception) -> bool:
    return isinstance(error, grpc.Call) and find_reason(error) == "ARGUMENT_INVALID"


def _names(by: Sequence[str]) -> Iterator[str]:
    for name in by:
        yield name
        if name == "account":
            yield "handle"


def _to_cells(row: pb.UsageRow, *, by: Sequence[str]) -> list[str | int | None]:
    end_time = Timestamp(seconds=row.start_time.seconds + INTERVAL_MS // 1000)
    tokens = tokens_of(row)
    return [
        row.start_time.ToJsonString(),
        end_time.ToJsonString(),
        *(_cell(row, name) for name in _names(by)),
        *(tokens.get(name, 0) for name in TOKEN_CLASSES.values()),
        *(getattr(row, name) for name in SUMS),
        # Written as nothing: what is not known is not 0.
        find_energy_mj(row),
    ]


def _cell(row: pb.UsageRow, name: str) -> str:
    return MODES.get(row.mode, "") if name == "mode" else str(getattr(row, name))
