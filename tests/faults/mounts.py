"""Small file systems that can be full, where the machine and its rights allow them."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.faults.row import Skipped
from tests.faults.site import Site

_COMMAND_SECONDS_MAX: Final = 30
_BLOCK: Final = 4096


def mount_small(site: Site, *, name: str, mebibytes: int) -> Path:
    """Mount a new ext4 of a loop file for the time of the row; raises Skipped with the reason."""
    image, place = site.folder / f"{name}.ext4", site.folder / name
    with image.open("wb") as file:
        file.truncate(mebibytes * 1024 * 1024)
    place.mkdir()
    _run(["mkfs.ext4", "-q", "-m", "0", str(image)])
    _run(["mount", "-o", "loop", str(image), str(place)])
    # What still has a file open there keeps the file system, not the name.
    site.later(lambda: subprocess.run(["umount", "--lazy", str(place)], check=True))
    inside = place / "inside"
    inside.mkdir()
    return inside


def fill(place: Path) -> Path:
    """Take all that is left of a file system; returns the file to remove again."""
    filler = place.parent / "filler"
    size = _BLOCK * 256
    with filler.open("wb", buffering=0) as file:
        while size >= _BLOCK:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2
    return filler


def move_onto(folder: Path, *, place: Path) -> None:
    """Move a folder to another file system; a link stays behind."""
    target = place / folder.name
    shutil.copytree(folder, target, symlinks=True)
    # The mode of Postgres' own folders matters to it.
    shutil.copystat(folder, target)
    shutil.rmtree(folder)
    folder.symlink_to(target)


def _run(command: Sequence[str]) -> None:
    if shutil.which(command[0]) is None:
        raise Skipped(f"there is no {command[0]} here")
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=_COMMAND_SECONDS_MAX
    )
    if done.returncode:
        raise Skipped(f"{command[0]} is refused: {done.stderr.strip()}")
