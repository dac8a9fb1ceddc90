"""The group that joins the commands of `tokenworks factory`."""

import click

from cli.factory.compare import compare
from cli.factory.mark import mark
from cli.factory.plan import plan
from cli.factory.show import show
from cli.factory.versions import list_versions, set_version


@click.group("factory")
def factory() -> None:
    """Describe the factory's sites and pools, show what their power is used for, and plan it.

    Needs an API key that is reader of the whole installation; to describe it, its operator, to mark
    software, its producer. A plan by a file needs none.
    """


for _command in (set_version, list_versions, show, mark, plan, compare):
    factory.add_command(_command)
