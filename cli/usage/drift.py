"""`tokenworks usage drift`: what engines counted themselves, beside what was metered of it."""

import json
from collections.abc import Sequence
from typing import Final

import click

from cli.accounts import print_table
from cli.connection import Client, client_command, find_now_ms
from cli.usage.span import check_order, check_time, format_edge, to_span
from tokenworks.meter.v1 import engine_service_pb2 as pb

_KINDS: Final = {
    pb.ENGINE_TOKEN_KIND_PROMPT: "prompt",
    pb.ENGINE_TOKEN_KIND_UNCACHED_PROMPT: "uncached prompt",
    pb.ENGINE_TOKEN_KIND_OUTPUT: "output",
}
# What an engine that tells no models served.
_ALL: Final = "(all)"


@click.command("drift", short_help="Compare usage with what engines counted.")
@click.option(
    "--since",
    callback=check_time,
    default="24h",
    show_default=True,
    metavar="TIME",
    help="Begin of the time.",
)
@click.option(
    "--until", callback=check_time, metavar="TIME", help="End of the time; without it, now."
)
@client_command
def drift(client: Client, *, since: str, until: str | None) -> None:
    """Show what the engines of each pool counted of each model, less what was metered of it.

    Of the time, only intervals are compared over which the engines were read. What runs just now is
    counted by its engine and not metered yet: the longer the time, the less that matters.
    """
    check_order(since, until)
    span = to_span(since, until, now_ms=find_now_ms(client))
    request = pb.QueryEngineDriftRequest()
    request.start_time.FromMilliseconds(span.start_ms)
    request.end_time.FromMilliseconds(span.end_ms)
    drifts = client.engines.QueryEngineDrift(request).drifts
    if client.as_json:
        told = {
            "start_time": request.start_time.ToJsonString(),
            "end_time": request.end_time.ToJsonString(),
            "drifts": [_to_json(it) for it in drifts],
        }
        click.echo(json.dumps(told, indent=2))
        return
    if not drifts:
        click.echo(f"No engine was read in {span}: see the setting engines.")
        return
    click.echo(str(span))
    _print_drifts(drifts)


def _to_json(it: pb.EngineDrift) -> dict[str, object]:
    """Return a drift as JSON has it."""
    return {
        "pool": it.pool,
        "model": it.model or None,
        "kind": _kind(it).replace(" ", "_"),
        "start_time": it.start_time.ToJsonString(),
        "end_time": it.end_time.ToJsonString(),
        "compared_ms": it.compared_ms,
        "engine_tokens": it.engine_tokens,
        "metered_tokens": it.metered_tokens,
        "drift_tokens": it.engine_tokens - it.metered_tokens,
        "drift_ppm": it.ppm,
        "gap_tokens": it.gap_tokens,
        "reset_count": it.reset_count,
    }


def _kind(it: pb.EngineDrift) -> str:
    return _KINDS.get(it.kind, str(it.kind))


def _print_drifts(drifts: Sequence[pb.EngineDrift]) -> None:
    print_table(
        ["pool", "model", "tokens", "engines", "metered", "drift", "ppm"],
        (
            [
                it.pool,
                it.model or _ALL,
                _kind(it),
                f"{it.engine_tokens:,}",
                f"{it.metered_tokens:,}",
                f"{it.engine_tokens - it.metered_tokens:+,}",
                f"{it.ppm:+,}",
            ]
            for it in drifts
        ),
    )
    for pool in sorted({it.pool for it in drifts}):
        for remark in _remarks([it for it in drifts if it.pool == pool]):
            click.echo(f"{pool}: {remark}")


def _remarks(drifts: Sequence[pb.EngineDrift]) -> Sequence[str]:
    """Return what somebody has to know who reads a pool's rows."""
    first = drifts[0]
    start, end = (format_edge(it.ToMilliseconds()) for it in (first.start_time, first.end_time))
    remarks = [f"compared {first.compared_ms / 3_600_000:g} h from {start} to {end} UTC"]
    gap_tokens = sum(it.gap_tokens for it in drifts)
    if gap_tokens:
        remarks.append(f"{gap_tokens:,} tokens came between reads far apart")
    reset_count = max(it.reset_count for it in drifts)
    if reset_count:
        remarks.append(
            f"an engine began anew {reset_count:,} times: what it counted right before is not known"
        )
    return remarks
