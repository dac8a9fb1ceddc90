"""The group that joins the commands of `tokenworks factory`."""

import click

from cli.factory.show import show
from cli.factory.versions import list_versions, set_version


@click.group("factory")
def factory() -> None:
    """Describe the factory's sites and pools, and show what their power is used for.

    Needs an API key that may read the whole installation; to change anything, one that may
    administer it.
    """


for _command in (set_version, list_versions, show):
    factory.add_command(_command)
