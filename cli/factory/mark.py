"""`tokenworks factory mark`: which software serves a pool, from when on."""

import json

import click

from cli.accounts import format_time
from cli.connection import Client, client_command, find_now_ms
from cli.usage.span import check_time, to_ms
from tokenworks.meter.v1 import energy_service_pb2 as pb


@click.command("mark", short_help="Say which software serves a pool from now on.")
@click.argument("pool")
@click.argument("software")
@click.option(
    "--at",
    "at",
    callback=check_time,
    metavar="TIME",
    help="From when on, at most 35 days ago; without it, now.",
)
@client_command
def mark(client: Client, *, pool: str, software: str, at: str | None) -> None:
    """Say that POOL has SOFTWARE, by name and version, such as "vllm 0.11.2", from a time on.

    It has it until the next mark. `tokenworks factory compare` then tells versions apart.
    """
    at_ms = find_now_ms(client) if at is None else to_ms(at, now_ms=find_now_ms(client))
    request = pb.MarkSoftwareRequest(pool=pool, software=software)
    request.time.FromMilliseconds(at_ms)
    changed = client.energy.MarkSoftware(request).changed
    if client.as_json:
        told = {
            "pool": pool,
            "software": software,
            "time": request.time.ToJsonString(),
            "changed": changed,
        }
        click.echo(json.dumps(told, indent=2))
        return
    state = "marked:" if changed else "marked already, nothing changed:"
    click.echo(f"{state} {pool} has {software} from {format_time(request.time)}")
