"""How a command ends: its exit codes, and what it says when it fails."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import click


class Exit(IntEnum):
    """The exit codes of every command; 0 is done."""

    FAILED = 1
    USAGE = 2
    REFUSED = 3
    UNREACHABLE = 4


class CommandError(click.ClickException):
    """Ends the command with a message on stderr and an exit code."""

    def __init__(self, message: str, *, code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        # Click reads it from the instance, though it declares it for the class.
        self.exit_code = int(code)  # type: ignore[misc]


def format_sandbox(now: str) -> str:
    """The line that everybody reads who has to do with a sandbox; `now` is ISO 8601 in UTC."""
    return f"SANDBOX: this installation lives on a driven clock, now {now}"


def report_progress(line: str) -> None:
    """Tell whoever watches what is going on; results go to stdout, this does not."""
    click.echo(line, err=True)


@contextmanager
def until_interrupted() -> Iterator[None]:
    """Run the block until it ends, or Ctrl-C or SIGTERM does: the terminal is left as it was."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        return
    finally:
        signal.signal(signal.SIGTERM, before)
