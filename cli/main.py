"""The command `tokenworks`: one line a noun, and its module is read only when it is called."""

import importlib
import sys

import click

from cli.process import Exit

# Noun or verb: module:attribute of its click command, and what `tokenworks --help` says of it.
COMMANDS = {
    "up": ("cli.up:up", "Run everything on this machine, Postgres included."),
    "serve": ("cli.serve:serve", "Run the meter on a migrated database, as in production."),
    "db": ("cli.db:db", "Upgrade or check the database's schema."),
    "doctor": ("cli.doctor:doctor", "Look at the database, say what to do; audit its sums."),
    "accounts": ("cli.accounts:accounts", "Create, list, show, move and close accounts."),
    "keys": ("cli.keys:keys", "Create, list, rotate and revoke API keys."),
    "producers": ("cli.producers:producers", "List, register and retire those who report."),
    "prices": ("cli.prices:prices", "Import, list, show and compare price books."),
    "contracts": ("cli.contracts:contracts", "Set, list and show contracts."),
    "usage": ("cli.usage:usage", "Show, record and export usage; the quarantine."),
    "invoices": ("cli.invoices:invoices", "Preview, show, explain, correct and pay invoices."),
    "billing": ("cli.billing:billing", "Close a month; the sandbox's clock."),
    "audit": ("cli.audit:audit", "List who changed what."),
    "energy": ("cli.energy:energy", "Show what the tokens took, and where that is measured."),
    "factory": ("cli.factory:factory", "Describe sites and pools; show what their power is for."),
    "top": ("cli.top:top", "Watch tokens/s, watts, tokens per joule and $/MWh by tier."),
    "demo": ("cli.demo:demo", "Live through a month of a simulated factory, and check it."),
    "simulate": ("cli.simulate:simulate", "Run a fleet of reporting processes."),
    "version": ("cli.version:version", "Print the version."),
}


class LazyGroup(click.Group):
    """A group that imports a command when it runs; its help needs none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 — click's signature
        """The names, in the order that a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command of this name, read now."""
        if cmd_name not in COMMANDS:
            return None
        module_name, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module_name), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of commands from the table above."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
def tokenworks() -> None:
    """Count AI tokens by account and tier, each exactly once.

    Exit codes: 0 done, 1 failed, 2 usage, 3 refused by a rule, 4 server unreachable.
    """


def main() -> None:
    """Run the command."""
    if not __debug__:
        sys.stderr.write("error: tokenworks does not run under python -O: its asserts are needed\n")
        sys.exit(Exit.FAILED)
    tokenworks(prog_name="tokenworks")
