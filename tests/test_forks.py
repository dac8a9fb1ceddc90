"""Processes that are forked for the tests are as ones that start anew."""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pytest

from tests import forks
from tests.running_meter import TOKENWORKS

Started = forks.Forked | subprocess.Popen[str]


@contextmanager
def _started(*words: str, log: Path, more: Mapping[str, str]) -> Iterator[Started]:
    with log.open("wb") as stderr:
        process = forks.start(
            [str(TOKENWORKS), *words], environment=os.environ | more, stderr=stderr
        )
    assert process.stdout is not None
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


ANEW = {"PYTHONHASHSEED": "1"}


@pytest.mark.parametrize("more", [{}, ANEW], ids=["forked", "anew"])
@pytest.mark.parametrize(
    ("command", "code", "printed", "said"),
    [("version", 0, version("tokenworks"), ""), ("serve", 2, "", "TOKENWORKS_DATABASE_URL")],
)
def test_start__ends(
    command: str, *, code: int, printed: str, said: str, more: Mapping[str, str], tmp_path: Path
) -> None:
    """What a command prints, says and ends with is the same, forked or started anew."""
    log = tmp_path / "log"
    with _started(command, log=log, more=more) as process:
        assert isinstance(process, forks.Forked) == (not more)
        assert process.stdout is not None
        assert printed in process.stdout.read()
        assert process.wait(timeout=60) == code
        assert said in log.read_text()


def test_start__environment_and_folder_of_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the environment that is given and the folder of now, not those of before."""
    (tmp_path / "pepper").write_text("00", "ascii")
    monkeypatch.chdir(tmp_path)
    log = tmp_path / "log"
    settings = {"DATABASE_URL": "postgresql://x@127.0.0.1:1/x", "KEY_PEPPER_FILE": "pepper"}
    more = {f"TOKENWORKS_{name}": it for name, it in settings.items()}
    with _started("serve", log=log, more=more) as process:
        assert process.wait(timeout=60) == 1
    assert f"the key pepper in {tmp_path / 'pepper'} is shorter" in log.read_text()


def test_kill__number_stays_its_own_until_waited_for(tmp_path: Path) -> None:
    """A process that was killed says by which signal, and its number is nobody else's by then."""
    with _started("version", log=tmp_path / "log", more={}) as process:
        assert process.stdout is not None
        process.stdout.read()
        assert Path("/proc", str(process.pid)).exists()
        process.kill()
        assert process.wait(timeout=60) in {0, -signal.SIGKILL}
