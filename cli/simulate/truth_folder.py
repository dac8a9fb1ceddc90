"""Where a simulation writes its truth files, and what is left of it when somebody ends it."""

import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import click


@contextmanager
def truth_folder(out: Path | None) -> Iterator[Path]:
    """The folder for the truth files; one of its own does not outlive a run that was killed."""
    before = signal.signal(signal.SIGTERM, _end_at_once)
    try:
        if out is None:
            with _folder_of_its_own() as folder:
                yield folder
            return
        out.mkdir(parents=True, exist_ok=True)
        if any(out.glob("*.jsonl")):
            raise click.BadParameter(f"{out} has truth files already", param_hint="--out")
        yield out
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _folder_of_its_own() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="tokenworks-simulate-"))
    try:
        yield folder
    except (KeyboardInterrupt, SystemExit):
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        # A run that was refused has written nothing; what an ended one wrote is named and stays.
        with suppress(OSError):
            folder.rmdir()


def _end_at_once(number: int, _frame: FrameType | None) -> None:
    """End as the shell says of who was killed, once all processes of the run are ended."""
    sys.exit(128 + number)
