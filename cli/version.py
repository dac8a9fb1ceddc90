"""`tokenworks version`."""

import json
from importlib.metadata import version as version_of

import click


@click.command("version")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def version(*, as_json: bool) -> None:
    """Print the version."""
    number = version_of("tokenworks")
    click.echo(json.dumps({"version": number}) if as_json else number)
