"""The command as a whole."""

import subprocess
import sys
from importlib.metadata import version

import click
import pytest
from click.testing import CliRunner

from cli.main import COMMANDS, tokenworks
from tests.running_meter import TOKENWORKS


def test_help__without_reading_commands() -> None:
    """Help names every command, and reads no module of any."""
    code = (
        "import sys, click.testing, cli.main;"
        "print(click.testing.CliRunner().invoke(cli.main.tokenworks, ['--help']).stdout);"
        "print('read:', [name for name in sys.modules if name in"
        " {place.partition(':')[0] for place, _ in cli.main.COMMANDS.values()}])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name, (_, summary) in COMMANDS.items():
        assert f"  {name} " in shown.stdout
        assert summary.split()[0] in shown.stdout
    assert "read: []" in shown.stdout


@pytest.mark.parametrize(
    ("modules", "spared"),
    [
        ("cli.usage, cli.accounts, cli.keys, cli.invoices, cli.top", ("sqlalchemy", "psycopg")),
        ("cli.serve, cli.up, cli.doctor, cli.billing.close", ("alembic", "mako", "pygments")),
    ],
    ids=["asks a server", "looks at the schema"],
)
def test_command__loads_only_what_it_needs(modules: str, spared: tuple[str, ...]) -> None:
    """Who asks a server loads no database's driver, and who only looks at the schema no Alembic."""
    code = f"import sys, {modules}; print([it for it in {spared} if it in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_help__of_each_command(name: str) -> None:
    """Each line of the table leads to a command of that name, which can explain itself."""
    result = CliRunner().invoke(tokenworks, [name, "--help"])
    assert result.exit_code == 0, result.output
    command = tokenworks.get_command(click.Context(tokenworks), name)
    assert command is not None
    assert command.name == name


def test_command__unknown() -> None:
    """A word that is no command is a usage error."""
    result = CliRunner().invoke(tokenworks, ["downn"])
    assert (result.exit_code, "downn" in result.stderr) == (2, True)


def test_version__installed() -> None:
    """The version is that of the installed distribution, as text and as JSON."""
    number = version("tokenworks")
    assert CliRunner().invoke(tokenworks, ["version"]).stdout == f"{number}\n"
    assert (
        CliRunner().invoke(tokenworks, ["version", "--json"]).stdout
        == f'{{"version": "{number}"}}\n'
    )


def test_main__without_asserts() -> None:
    """Under python -O, which drops the asserts, nothing starts."""
    refused = subprocess.run(
        [sys.executable, "-O", TOKENWORKS, "version"], capture_output=True, text=True, check=False
    )
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "python -O" in refused.stderr
