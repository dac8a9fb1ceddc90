"""`tokenworks energy sources`: where energy is read, and whether power is known."""

import json

import click
from google.protobuf.timestamp_pb2 import Timestamp

from cli.accounts import format_time, print_table
from cli.connection import Client, client_command
from tokenworks.meter.v1 import energy_service_pb2 as pb


@click.command("sources", short_help="Where energy is read, and whether power is known.")
@client_command
def sources(client: Client) -> None:
    """List where energy is read, how well each pool's power is known, and silent devices."""
    answer = client.energy.ListEnergySources(pb.ListEnergySourcesRequest())
    if client.as_json:
        click.echo(json.dumps(_sources_to_json(answer), indent=2))
        return
    if answer.sources:
        print_table(
            ["pool", "source", "devices", "last read", "state"],
            (
                [each.pool, each.url, str(each.device_count), *_read_state(each)]
                for each in answer.sources
            ),
        )
    else:
        click.echo(
            "No energy source is read: TOKENWORKS_ENERGY_SOURCES names them, as pool=URL or"
            " pool=nvml."
        )
    if answer.pools:
        print_table(
            ["pool", "power", "devices", "fresh", "gauge/counter", "last sample"],
            (
                [
                    each.pool,
                    "valid" if each.valid else f"not valid: {', '.join(_faults_of(each))}",
                    str(each.device_count),
                    str(each.fresh_count),
                    f"{each.cross_check_ratio:.3f}" if each.HasField("cross_check_ratio") else "-",
                    format_time(each.last_sample_time),
                ]
                for each in answer.pools
            ),
        )
    if answer.silent_devices:
        print_table(
            ["silent device", "pool", "read by", "last sample"],
            (
                [each.device, each.pool, each.source, format_time(each.last_sample_time)]
                for each in answer.silent_devices
            ),
        )


def time_to_json(time: Timestamp, *, is_there: bool) -> str | None:
    """Return a time as JSON has it; null where there is none."""
    return time.ToJsonString() if is_there else None


def _faults_of(power: pb.PoolPower) -> list[str]:
    """Return why power is not valid, in the words of `tokenworks_power_fault`."""
    return [
        pb.PowerFault.Name(fault).removeprefix("POWER_FAULT_").lower() for fault in power.faults
    ]


def _read_state(source: pb.EnergySource) -> tuple[str, str]:
    read = format_time(source.read_time) if source.HasField("read_time") else "never"
    return read, source.failure or ("ok" if source.HasField("read_time") else "not read yet")


def _sources_to_json(answer: pb.ListEnergySourcesResponse) -> dict[str, object]:
    return {
        "sources": [
            {
                "pool": each.pool,
                "url": each.url,
                "read_time": time_to_json(each.read_time, is_there=each.HasField("read_time")),
                "device_count": each.device_count,
                "failure": each.failure or None,
            }
            for each in answer.sources
        ],
        "pools": [
            {
                "pool": each.pool,
                "valid": each.valid,
                "faults": _faults_of(each),
                "cross_check_ratio": (
                    each.cross_check_ratio if each.HasField("cross_check_ratio") else None
                ),
                "device_count": each.device_count,
                "fresh_count": each.fresh_count,
                "last_sample_time": each.last_sample_time.ToJsonString(),
            }
            for each in answer.pools
        ],
        "silent_devices": [
            {
                "pool": each.pool,
                "device": each.device,
                "source": each.source,
                "last_sample_time": each.last_sample_time.ToJsonString(),
            }
            for each in answer.silent_devices
        ],
    }
