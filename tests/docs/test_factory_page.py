"""The page of plans: each command of it prints what stands there, each number is worked out."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.cli.factory_meter import BEGIN_MS, END_MS, UPDATE_MS, running_factory
from tests.cli.shell import Shell, to_iso
from tests.docs.test_docs import BLOCK, ROOT, shape
from tests.postgres import Cluster

PAGE: Final = (ROOT / "docs/factory.md").read_text("utf-8")
FILE: Final = re.compile(r"Save this as `(\S+)`:\n\n```toml\n(.*?)^```", re.DOTALL | re.MULTILINE)
# The half hour of the page stands for that of the meter.
TIMES: Final = {
    "2026-11-02T09:00": to_iso(BEGIN_MS),
    "2026-11-02T09:15": to_iso(UPDATE_MS),
    "2026-11-02T09:30": to_iso(END_MS),
}


@pytest.fixture(scope="module")
def shell(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A shell whose meter lived through what the page tells."""
    with running_factory(cluster, tmp_path_factory.mktemp("factory")) as meter:
        yield Shell(meter.target, meter.api_key)


def test_page__prints_what_it_shows(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command of the page works, and what it prints is on the page, figure by figure."""
    monkeypatch.chdir(tmp_path)
    for name, text in FILE.findall(PAGE):
        (tmp_path / name).write_text(text, "utf-8")
    printed, shown_count = "", 0
    for language, content in BLOCK.findall(PAGE):
        if language == "sh":
            line = re.sub("|".join(TIMES), lambda found: TIMES[found[0]], content)
            printed = shell.run(*shlex.split(line)[1:]).stdout
        elif language == "text":
            assert shape(printed) == shape(content)
            shown_count += 1
    assert shown_count == 4


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ("a megawatt of that pool earned $17.2 million", 140_000 * 3.9 * 31.536e-6),
        ("and now $123.0 million", 1_000_000 * 3.9 * 31.536e-6),
        ("the second side earns $104.1 million", 1_000_000 * 3.3 * 31.536e-6),
        ("tokens a second of 5 kW are 0.14 a joule", 700 / 5_000),
        ("7.14 times", 5_000 / 700),
        ("Rubin needs 466 of the 1,000", 100 / 1.65 + 300 / 1.6 + 100 / 0.7 + 15 / 0.2),
        ("and earns $68.591 billion", (900 + 600 + 675) * 31.536e-3),
        ("both come out 5.4 % lower", 100 - 28.3824 / 30 * 100),
        ("Rubin earns 5.000 times", (4.8 + 4.2 + 9) / (1.8 + 0.9 + 0.9)),
    ],
)
def test_page__numbers_of_its_prose(words: str, value: float) -> None:
    """Each number in a sentence is what its own formula gives."""
    assert words in PAGE
    number = re.search(r"([\d,]+\.?\d*)(?= million| billion| a joule| times| of the| %)", words)
    assert number is not None
    decimals = len(number[1].partition(".")[2])
    assert f"{value:,.{decimals}f}" == number[1]
