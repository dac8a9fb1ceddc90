"""`tokenworks factory set|list`: versions of the factory's description."""

import json
from pathlib import Path

import click

from cli.accounts import format_time, print_table
from cli.connection import Client, client_command
from cli.prices import faults_of, read_text
from tokenworks.meter.v1 import energy_service_pb2 as pb


@click.command("set", short_help="Set a version of the description.")
@click.argument("file", type=click.Path(path_type=Path))
@client_command
def set_version(client: Client, *, file: Path) -> None:
    """Set a version of the factory's description from FILE (TOML).

    It is in force from its `from` on, until the next one. The same file again changes nothing.
    """
    with faults_of(file):
        answer = client.energy.SetFactory(pb.SetFactoryRequest(toml=read_text(file)))
    if client.as_json:
        told = {**version_to_json(answer.version), "changed": answer.changed}
        click.echo(json.dumps(told, indent=2))
        return
    state = "set" if answer.changed else "there already, nothing changed:"
    version = answer.version
    click.echo(
        f"{state} version {version.version} from {format_time(version.start_time)}:"
        f" sites {len(version.sites)}, pools {len(version.pools)}, weights {len(version.weights)}"
    )


@click.command("list", short_help="List the versions of the description.")
@client_command
def list_versions(client: Client) -> None:
    """List the versions of the factory's description."""
    versions = client.energy.ListFactoryVersions(pb.ListFactoryVersionsRequest()).versions
    if client.as_json:
        click.echo(json.dumps([version_to_json(it) for it in versions], indent=2))
        return
    if not versions:
        click.echo("The factory is not described. Describe it:\n  tokenworks factory set FILE")
        return
    print_table(
        ["version", "from", "sites", "pools", "weights"],
        (
            [
                str(it.version),
                format_time(it.start_time),
                ", ".join(site.site for site in it.sites),
                ", ".join(pool.pool for pool in it.pools),
                str(len(it.weights)),
            ]
            for it in versions
        ),
    )


def version_to_json(version: pb.FactoryVersion) -> dict[str, object]:
    """Return a version in short."""
    return {
        "version": version.version,
        "from": version.start_time.ToJsonString(),
        "sites": [site.site for site in version.sites],
        "pools": [pool.pool for pool in version.pools],
        "weights_count": len(version.weights),
    }
