"""The guide for any language: its commands are run as they stand, and answer what stands there."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.running_meter import TOKENWORKS, RunningMeter

PAGE = (Path(__file__).parents[2] / "docs/guides/any-language.md").read_text("utf-8")


def blocks(kind: str) -> list[str]:
    """Return the page's blocks of a kind."""
    found: list[str] = re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return found


def run(meter: RunningMeter, script: str) -> str:
    """Run a script as a reader does, of whom the commands are known; return what it prints."""
    path = f"{TOKENWORKS.parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", script.replace("127.0.0.1:7412", meter.http)],
        env=meter.environment | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def setup() -> str:
    """What the page begins with: an account and its key."""
    (text,) = blocks("sh setup")
    return text


def test_page__reports_by_curl(running_meter: RunningMeter, setup: str) -> None:
    """Each command records what it sends, with a key of one account, and says so."""
    commands, answers = blocks("sh curl"), blocks("text curl")
    assert len(commands) == len(answers) == 2
    printed = run(running_meter, "\n".join([setup, *commands, commands[0]]))
    told = [line.strip() for line in printed.splitlines()]
    for line in {line for answer in answers for line in answer.splitlines()}:
        assert told.count(line) >= len(commands)
    assert told.count("tokenworks-outcomes: DUPLICATE=1") == 1


def test_page__tells_of_each_field() -> None:
    """What stands in the table are the fields that are read, each of them."""
    source = (Path(__file__).parents[2] / "meter/sources/cloud_events.py").read_text("utf-8")
    read = set(re.findall(r'\(data, "(\w+)"', source)) | {"tokens", "usage"}
    table = PAGE[PAGE.index("| field |") : PAGE.index("Nothing else of `data`")]
    assert read <= {*re.findall(r"`(?:data)?\.(\w+)`", table), "account"}
