"""The commands of pages about operation, run as they stand there."""

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.faults.plant import TOKENWORKS

_PAGES: Final = Path(__file__).parents[2] / "docs" / "operating"
_BLOCK: Final = re.compile(r"^```sh ([a-z-]+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_SECONDS_MAX: Final = 120


class Steps:
    """The named blocks of some pages, with what the capitals in them stand for."""

    def __init__(
        self, *pages: str, programs: Path, environment: Mapping[str, str], log: Path
    ) -> None:
        """Read the pages; `programs` is the folder of Postgres' programs, `log` takes output."""
        self._blocks = {
            name: text
            for page in pages
            for name, text in _BLOCK.findall((_PAGES / page).read_text("utf-8"))
        }
        self._path = f"{programs}:{TOKENWORKS.parent}:{os.environ.get('PATH', os.defpath)}"
        self._environment = dict(environment)
        self._log = log

    def set(self, name: str, value: str) -> None:
        """Say what a word in capitals stands for from now on."""
        self._environment[name] = value

    def run(self, name: str) -> None:
        """Run a block to its end; raises subprocess.CalledProcessError when it fails."""
        with self._log.open("ab") as log:
            subprocess.run(
                self._command(name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._all(),
                check=True,
                timeout=_SECONDS_MAX,
            )

    def start(self, name: str) -> "subprocess.Popen[bytes]":
        """Start a block that goes on until it is ended."""
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._command(name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._all(),
            )

    def _command(self, name: str) -> list[str]:
        return ["bash", "-euo", "pipefail", "-c", self._blocks[name]]

    def _all(self) -> dict[str, str]:
        return os.environ | self._environment | {"PATH": self._path}
