"""The page of the simulated site: its commands run, its sizes and options are those of the code."""

import re
import subprocess
from pathlib import Path

import click

from cli.main import tokenworks
from cli.simulate.site.size import TIERS, parse_size
from tests.docs.test_docs import ROOT
from tests.running_meter import TOKENWORKS, RunningMeter

PAGE = (ROOT / "docs/site.md").read_text("utf-8")
SIZE = re.compile(r"^\| (\d+(?:kW|MW|GW)) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|$", re.MULTILINE)
NUMBER = re.compile(r"[\d,]+(?:\.\d+)?(?:e-\d+)?")


def test_page__sizes_are_those_of_the_code() -> None:
    """Servers, requests and accounts of each size are what the command makes of it."""
    rows = SIZE.findall(PAGE)
    assert len(rows) == 4
    for text, *numbers in rows:
        size = parse_size(text)
        events = sum(size.server_events(tier) * size.pool_server_count for tier in TIERS)
        told = [int(number.replace(",", "")) for number in numbers]
        assert told == [size.server_count, events, size.account_count]


def test_page__options_are_those_of_the_command() -> None:
    """Each option that the page explains is one of the command."""
    options = re.findall(r"^\| `(--[a-z]+)", PAGE, re.MULTILINE)
    command = tokenworks.get_command(click.Context(tokenworks), "simulate")
    assert command is not None
    assert options
    assert set(options) <= {name for param in command.params for name in param.opts}


def test_page__does_what_it_says(running_meter: RunningMeter, tmp_path: Path) -> None:
    """The small site runs as it is typed there, and prints what the page shows, but for numbers."""
    (command,) = re.findall(r"^```sh\ntokenworks (simulate .*)\n```$", PAGE, re.MULTILINE)
    done = subprocess.run(
        [TOKENWORKS, *command.split()],
        cwd=tmp_path,
        env=running_meter.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (shown,) = re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert {*_shape(done.stdout)} | {*_shape(done.stderr)} >= {*_shape(shown)}
    assert (tmp_path / "small.png").is_file()


def _shape(text: str) -> list[str]:
    """Return lines without numbers, folders, blank space and drawn lines."""
    lines = [re.sub(r" /\S*/", " ", line).replace("─", " ") for line in text.splitlines()]
    return [" ".join(NUMBER.sub("N", line).split()) for line in lines if line.strip("─ ")]
