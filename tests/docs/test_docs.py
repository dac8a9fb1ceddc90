"""The pages that people follow by hand: each command runs, and prints what stands there."""

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cli.main import tokenworks

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", "docs/start.md"]
# What a console shows is the demo's, and held against it by tests/acceptance/test_demo.py.
BLOCK = re.compile(r"^```(?!console)(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TRIES_MAX = 50
# What is other at each run: dates and times, ids, secrets, places, ports, how batches fell.
PLACEHOLDERS = {
    r"\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)?Z?": "TIME",
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}": "UUID",
    # Of what has the ids of accounts in it.
    r"\b[0-9a-f]{64}\b": "SHA256",
    r"\busage [0-9a-f]{12}$": "usage SHA256",
    r"\b(?:acc|key|tw)_\w{12,}": "ID",
    r"\S*/\.tokenworks/": "FOLDER/",
    r"127\.0\.0\.1:\d+": "ADDRESS",
    r"port \d+": "PORT",
    r"\S*/tokenworks-simulate-\w+": "FOLDER",
    r"^acknowledged\b.*": "acknowledged",
    r"^(simulate-\d+-\d+(?: \d+){4}).*": r"\1 BATCHES",
}


class Reader:
    """Somebody who types what a page says, in a folder of their own, with ports that are free."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._up: subprocess.Popen[str] | None = None
        self._target = ""
        # Stands for `make install`: the environment that it makes is the one that runs this test.
        (folder / ".venv").symlink_to(Path(sys.prefix))
        path = f"{folder / '.venv/bin'}:{os.environ['PATH']}"
        self._environment = os.environ | {"PATH": path}

    def type(self, line: str, *, expected: str | None) -> str:
        """Run a line as a shell does, and return what it printed; `expected` bears waiting for."""
        if line == "make install":
            assert re.search(r"^install:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
            return ""
        if line.endswith("tokenworks up"):
            return self._start(line)
        if line.startswith("cd "):
            self._folder /= line.removeprefix("cd ")
            return ""
        for _ in range(TRIES_MAX):
            result = subprocess.run(
                ["bash", "-c", line],
                cwd=self._folder,
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            # Counting follows recording by a moment: who asks at once may have to ask again.
            if "usage show" not in line or not expected or shape(result.stdout) in shape(expected):
                break
        assert not result.returncode or "Error: " in (expected or ""), (line, result.stdout)
        return result.stdout

    def save(self, name: str, text: str) -> None:
        """Save a file; a program with the meter's address, which the page leaves out."""
        text = text.replace("Meter(", f'Meter("{self._target}", ', 1)
        (self._folder / name).write_text(text, "utf-8")

    def stop(self) -> None:
        """Press Ctrl-C where `up` runs."""
        if self._up is not None:
            self._up.send_signal(signal.SIGINT)
            self._up.communicate()
            self._up = None

    def _start(self, line: str) -> str:
        self.stop()
        flags = "--grpc-address 127.0.0.1:0 --http-address 127.0.0.1:0"
        self._up = subprocess.Popen(
            ["bash", "-c", f"exec env {line} {flags}"],
            cwd=self._folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._up.stdout is not None
        printed = ""
        for printed_line in self._up.stdout:
            printed += printed_line
            if "accounts create" in printed_line:
                break
        credentials = json.loads((self._folder / ".tokenworks/credentials.json").read_text("utf-8"))
        self._target = credentials["target"]
        return printed


def shape(text: str) -> str:
    """What was printed, without what is other at each run, blank space and drawn lines."""
    lines = [" ".join(line.replace("─", " ").split()) for line in text.splitlines()]
    for pattern, placeholder in PLACEHOLDERS.items():
        lines = [re.sub(pattern, placeholder, line) for line in lines]
    return "\n".join(line for line in lines if line)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """A reader, whose meter is stopped at the end."""
    reader = Reader(tmp_path)
    yield reader
    reader.stop()


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("page", PAGES)
def test_page__does_what_it_says(page: str, reader: Reader) -> None:
    """Each command of the page works, and prints what the page shows."""
    text = (ROOT / page).read_text("utf-8")
    blocks = BLOCK.findall(text)
    assert "sh" in [language for language, _ in blocks]
    printed = ""
    for place, (language, content) in enumerate(blocks):
        following = blocks[place + 1] if place + 1 < len(blocks) else ("", "")
        expected = following[1] if following[0] == "text" else None
        if language == "sh":
            lines = content.replace("\\\n", " ").splitlines()
            printed = "".join(reader.type(line, expected=expected) for line in lines)
        elif language == "text":
            assert shape(printed) == shape(content)
        else:
            if language == "python":
                compile(content, page, "exec")
            else:
                assert tomllib.loads(content)
            fence = rf"```{language}\n{re.escape(content)}"
            names = re.findall(r"Save this as `(\S+)`:\n\n" + fence, text)
            for name in names:
                reader.save(name, content)


def test_link__leads_somewhere() -> None:
    """Each link between files of the tree leads to one that is there."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")]
    folders = ("benchmarks", "billing", "helm/tokenworks", "meter", "sdk")
    pages += [ROOT / name / "README.md" for name in folders]
    links = [
        (page, target)
        for page in pages
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text("utf-8"))
    ]
    assert links
    assert not [(page, target) for page, target in links if not (page.parent / target).exists()]


def test_commands__each_is_on_the_page() -> None:
    """The page of commands has each that there is, with its arguments, and no other."""
    page = (ROOT / "docs/reference/commands.md").read_text("utf-8")
    written = re.findall(r"^\| `(tokenworks .*?)` \|", page, re.MULTILINE)
    root = click.Context(tokenworks, info_name="tokenworks")
    assert sorted(line.replace("\\|", "|") for line in written) == sorted(_leaves(root))


def _leaves(context: click.Context) -> Iterator[str]:
    """Commands below a context, each with its path and its arguments."""
    command = context.command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from _leaves(click.Context(below, parent=context, info_name=name))
        return
    arguments = [word for word in command.collect_usage_pieces(context) if word != "[OPTIONS]"]
    yield " ".join([context.command_path, *arguments])
