"""A Dockerfile whose steps are run in a folder: what it would install, without Docker.

A folder stands for the root of the filesystem. Of it only /opt and /src are used, and every path
below those is led into the folder; what else a step names is the machine's own.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
STEP_SECONDS_MAX: Final = 300
_INSIDE: Final = re.compile(r"(?<![\w./-])/(opt|src)(?=/|\b)")
_VARIABLE: Final = re.compile(r"\$\{(\w+)\}|\$(\w+)")


@dataclass(frozen=True, slots=True)
class Step:
    """An instruction and its words."""

    instruction: str
    words: str


@dataclass(slots=True, kw_only=True)
class Image:
    """What the last stage says of the image, and the folder that stands for its root."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    """The words of USER, EXPOSE, ENTRYPOINT and the like, by instruction."""

    @property
    def programs(self) -> Path:
        """The folder of the installed programs."""
        return self.root / "opt/tokenworks/bin"


def read_steps(text: str) -> Iterator[Step]:
    """Yield the instructions of a Dockerfile, each with its lines joined."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        instruction, _, words = line.strip().partition(" ")
        yield Step(instruction, " ".join(words.split()))


class Builder:
    """Runs the steps of a Dockerfile; `folder` takes the root and, until the end, its stages."""

    def __init__(self, folder: Path) -> None:
        """Begin with nothing."""
        self._folder = folder
        self._image = Image(root=folder / "root")
        self._stages: dict[str, Path] = {}
        self._stage = ""
        self._arguments: dict[str, str] = {}
        self._place = "/"

    def build(self, text: str) -> Image:
        """Run all steps and return what they come to."""
        for step in read_steps(text):
            {
                "FROM": self._from,
                "ARG": self._argument,
                "ENV": self._env,
                "LABEL": self._label,
                "WORKDIR": self._workdir,
                "COPY": self._copy,
                "RUN": self._run,
            }.get(step.instruction, self._say)(step)
        return self._image

    def _from(self, step: Step) -> None:
        base, _, name = step.words.partition(" AS ")
        if self._stage:
            # Every stage finds its paths at the same place, as in Docker.
            self._stages[self._stage] = self._image.root.rename(self._folder / self._stage)
        self._stage = name or "last"
        self._image = Image(root=self._folder / "root", said={"FROM": self._filled(base)})
        self._image.root.mkdir()
        self._place = "/"

    def _argument(self, step: Step) -> None:
        name, _, value = step.words.partition("=")
        self._arguments[name] = value

    def _env(self, step: Step) -> None:
        for word in shlex.split(self._filled(step.words)):
            name, _, value = word.partition("=")
            self._image.environment[name] = value

    def _label(self, step: Step) -> None:
        for word in shlex.split(self._filled(step.words)):
            name, _, value = word.partition("=")
            self._image.labels[name] = value

    def _workdir(self, step: Step) -> None:
        self._place = step.words
        self._at(step.words).mkdir(parents=True, exist_ok=True)

    def _copy(self, step: Step) -> None:
        *sources, target = step.words.split()
        context = ROOT
        if sources[0].startswith("--from="):
            context = self._stages[sources.pop(0).removeprefix("--from=")]
        for source in sources:
            found = context / source.lstrip("/")
            place = self._at(target)
            place = place / found.name if target == "./" else place
            if context == ROOT:
                assert is_sent(source), f".dockerignore keeps {source} out"
            if found.is_dir():
                shutil.copytree(found, place, symlinks=True, ignore=_ignored)
            else:
                shutil.copy(found, place)

    def _run(self, step: Step) -> None:
        inside = _INSIDE.sub(rf"{self._image.root}/\1", self._filled(step.words))
        done = subprocess.run(
            ["sh", "-eu", "-c", inside],
            cwd=self._at(self._place),
            env=self._build_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=STEP_SECONDS_MAX,
            check=False,
        )
        assert done.returncode == 0, f"{step.words}\n{done.stdout}"

    def _say(self, step: Step) -> None:
        self._image.said[step.instruction] = step.words

    def _at(self, path: str) -> Path:
        return self._image.root / os.path.normpath(Path(self._place) / path).lstrip("/")

    def _filled(self, words: str) -> str:
        known: Mapping[str, str] = {"PATH": "", **self._arguments}
        return _VARIABLE.sub(lambda it: known.get(it[1] or it[2], it[0]), words)

    def _build_environment(self) -> dict[str, str]:
        # The interpreter of the base image, under the name that it has there.
        programs = self._folder / "base"
        programs.mkdir(exist_ok=True)
        python = programs / "python"
        if not python.exists():
            python.symlink_to(Path(sys.base_prefix) / "bin" / "python3")
        kept = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
        return kept | {"PATH": f"{programs}:/usr/bin:/bin"}


def is_sent(source: str) -> bool:
    """Tell whether `.dockerignore` lets a path of the context through: all but what it names."""
    first, *allowed = [
        line
        for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines()
        if line and not line.startswith(("#", "**"))
    ]
    assert first == "*"
    return f"!{Path(source).parts[0]}" in allowed


def _ignored(_folder: str, names: list[str]) -> list[str]:
    return [it for it in names if it == "__pycache__" or it.endswith(".egg-info")]
