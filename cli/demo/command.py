"""`tokenworks demo`: a month of a token factory in a folder, and whether it added up."""

import shutil
import signal
import subprocess
from pathlib import Path
from types import FrameType
from typing import Final

import click
import grpc

from cli.demo.story import Story
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
    out = out.absolute()
    _make_fresh(out)
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        adds_up = Story(out, event_count=event_count, seed=seed).tell()
    except CommandError as error:
        raise CommandError(f"{error.message}\nlogs are kept in {out / 'logs'}") from error
    except (OSError, EOFError, subprocess.SubprocessError, grpc.RpcError) as error:
        raise CommandError(f"{error!r}\nlogs are kept in {out / 'logs'}") from error
    finally:
        signal.signal(signal.SIGTERM, before)
    if not adds_up:
        raise click.exceptions.Exit(Exit.FAILED)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """Stop as after Ctrl-C: whatever was started is ended first."""
    raise KeyboardInterrupt


def _make_fresh(out: Path) -> None:
    """Make the folder, in place of an earlier demo's; raises CommandError for any other."""
    try:
        if out.exists() and any(out.iterdir()):
            if not (out / MARK).is_file():
                raise CommandError(
                    f"{out} is not empty, and no demo made it: choose another with --out",
                    code=Exit.REFUSED,
                )
            shutil.rmtree(out)
        out.mkdir(parents=True, exist_ok=True)
        (out / MARK).touch()
    except OSError as error:
        raise CommandError(f"{out} cannot be used: {error}", code=Exit.USAGE) from error
