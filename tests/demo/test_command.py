"""`tokenworks demo`: its folder, and what it does not touch."""

import fcntl
from pathlib import Path

import pytest
from click.testing import CliRunner

from cli.demo import check, command
from cli.demo.command import MARK, demo
from cli.process import CommandError


class ShortStory:
    """A story that writes a file, and ends as it is told."""

    outcome: bool | BaseException = True

    def __init__(self, out: Path, *, event_count: int, seed: int) -> None:
        self._file = out / f"{event_count}-{seed}"

    def tell(self) -> bool:
        """End."""
        self._file.touch()
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


@pytest.fixture
def story(monkeypatch: pytest.MonkeyPatch) -> type[ShortStory]:
    """The story that is told instead of the long one."""

    class Told(ShortStory):
        pass

    monkeypatch.setattr(command, "Story", Told)
    return Told


@pytest.mark.usefixtures("story")
def test_demo__replaces_an_earlier_one(tmp_path: Path) -> None:
    """A folder that a demo made is made anew, with nothing of before in it."""
    out = tmp_path / "some" / "out"
    for seed in (1, 2):
        result = CliRunner().invoke(demo, ["--out", str(out), "--seed", str(seed)])
        assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.iterdir()) == [MARK, "2000000-2"]


@pytest.mark.usefixtures("story")
def test_demo__folder_of_somebody_else(tmp_path: Path) -> None:
    """A folder that has anything else in it is refused, and left as it is."""
    (tmp_path / "thesis.tex").touch()
    result = CliRunner().invoke(demo, ["--out", str(tmp_path)])
    assert result.exit_code == 3
    assert "no demo made it" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.usefixtures("story")
@pytest.mark.parametrize("held", [MARK, "installation/lock"])
def test_demo__folder_in_use(tmp_path: Path, held: str) -> None:
    """A folder that a demo, or what it left running, still works on is refused and left alone."""
    (tmp_path / MARK).touch()
    (tmp_path / "installation").mkdir()
    with (tmp_path / held).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        result = CliRunner().invoke(demo, ["--out", str(tmp_path)])
    assert result.exit_code == 3
    assert "run" in result.output
    assert (tmp_path / "installation").is_dir()


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (False, ""),
        (CommandError("the meter is on fire"), "the meter is on fire"),
        (OSError("no space"), "no space"),
        (KeyboardInterrupt(), "Aborted"),
    ],
)
def test_demo__that_does_not_add_up(
    story: type[ShortStory], tmp_path: Path, *, outcome: bool | BaseException, said: str
) -> None:
    """Whatever goes wrong, the command fails and says why; what was written stays."""
    story.outcome = outcome
    result = CliRunner().invoke(demo, ["--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert said in result.output
    assert (tmp_path / "out" / "2000000-1").exists()


@pytest.mark.usefixtures("story")
def test_demo__without_the_oracle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the check cannot be done, as in a wheel, nothing is begun, and it says why."""
    monkeypatch.setattr(check, "ORACLE", tmp_path / "oracle.py")
    result = CliRunner().invoke(demo, ["--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "make demo" in result.output
    assert not (tmp_path / "out").exists()
