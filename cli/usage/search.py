"""Where a recorded event is looked for: who reported it, and when it ended."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import click

from cli.accounts import resolve
from cli.connection import Client, find_now_ms
from cli.usage.span import check_order, check_time, to_ms
from tokenworks.meter.v1 import meter_service_pb2 as pb

# The search reads the journal of the time in question: some 15 GB a minute.
SEARCH_SECONDS_MAX: Final = 600.0
_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What `search_options` were given: an account and times, as they were typed."""

    reporter: str | None
    since: str | None
    until: str | None

    def apply(
        self, client: Client, request: pb.CorrectUsageRequest | pb.ListObservationsRequest
    ) -> None:
        """Say in a request where to look; raises UsageError where the times are in no order."""
        if self.since is not None:
            check_order(self.since, self.until)
        if self.reporter is not None:
            request.account = resolve(client.accounts, self.reporter)
        now_ms = find_now_ms(client) if self.since or self.until else 0
        if self.since is not None:
            request.start_time.FromMilliseconds(to_ms(self.since, now_ms=now_ms))
        if self.until is not None:
            request.end_time.FromMilliseconds(to_ms(self.until, now_ms=now_ms))


def search_options(*, reporter_help: str) -> Callable[[_Command], _Command]:
    """Give a command `--reporter`, `--since` and `--until`."""
    options = (
        click.option("--reporter", metavar="ACCOUNT", help=reporter_help),
        click.option(
            "--since",
            callback=check_time,
            metavar="TIME",
            help="It ended then or later; without it, 36 days ago.",
        ),
        click.option("--until", callback=check_time, metavar="TIME", help="It ended before then."),
    )

    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate
