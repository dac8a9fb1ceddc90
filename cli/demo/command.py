"""`tokenworks demo`: a month of a token factory in a folder, and whether it added up."""

import fcntl
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

import click
import grpc

from cli.demo.check import demand_oracle
from cli.demo.story import INSTALLATION, Story
from cli.folder_lock import hold_folder
from cli.process import CommandError, Exit

EVENTS_MIN: Final = 20_000
EVENTS_MAX: Final = 10_000_000
SEED_MAX: Final = 2**31
# What tells that a folder was made by a demo, and may be replaced by the next one.
MARK: Final = ".tokenworks-demo"


@click.command("demo")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("tokenworks-demo"),
    show_default=True,
    help="Folder of all that is kept; one of an earlier demo is replaced.",
)
@click.option(
    "--events",
    "event_count",
    type=click.IntRange(EVENTS_MIN, EVENTS_MAX),
    default=2_000_000,
    show_default=True,
    help="Requests that the servers report.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, SEED_MAX),
    default=1,
    show_default=True,
    help="Decides all that looks random.",
)
def demo(*, out: Path, event_count: int, seed: int) -> None:
    """Live through October 2026 in a simulated token factory, and check every token and cent.

    Four processes report as inference servers do, on a driven clock; the meter is killed once. Ends
    with 1 when anything was lost or doubled, or is charged otherwise than by an independent
    calculation. That one is in a checkout, not in a wheel.
    """
    demand_oracle()
    out = out.absolute()
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with _fresh_folder(out):
            adds_up = _tell(Story(out, event_count=event_count, seed=seed), logs=out / "logs")
    finally:
        signal.signal(signal.SIGTERM, before)
    if not adds_up:
        raise click.exceptions.Exit(Exit.FAILED)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """Stop as after Ctrl-C: whatever was started is ended first."""
    raise KeyboardInterrupt


def _tell(story: Story, *, logs: Path) -> bool:
    """Tell the story; returns whether it adds up. Whatever ends it early is a CommandError."""
    try:
        return story.tell()
    except CommandError as error:
        raise CommandError(f"{error.message}\nlogs are kept in {logs}") from error
    except (OSError, EOFError, subprocess.SubprocessError, grpc.RpcError) as error:
        raise CommandError(f"{error!r}\nlogs are kept in {logs}") from error


@contextmanager
def _fresh_folder(out: Path) -> Iterator[None]:
    """Make the folder, in place of an earlier demo's, and hold it for the time of the block.

    Raises CommandError for one that has anything else in it, or that a demo still works on.
    """
    mark = out / MARK
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()) and not mark.is_file():
        raise CommandError(
            f"{out} is not empty, and no demo made it: choose another with --out",
            code=Exit.REFUSED,
        )
    with mark.open("a") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CommandError(
                f"another demo runs in {out}: choose another folder with --out", code=Exit.REFUSED
            ) from error
        if (out / INSTALLATION).exists():
            # What a demo left running that was killed itself is not pulled from under its feet.
            with hold_folder(out / INSTALLATION):
                pass
        for path in out.iterdir():
            if path != mark:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        yield
