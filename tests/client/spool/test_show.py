"""The command that says what lies in a spool."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.client.spool.test_folder import open_spool, spool_number
from tokenworks.client.spool import SpoolOptions
from tokenworks.client.spool.__main__ import main
from tokenworks.client.spool.manifest import MANIFEST_NAMES

OPTIONS = SpoolOptions(segment_bytes_max=2_000, bytes_max=100_000)
FIRST = f"{1:020d}.spool"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A spool with 1 to 3 in one file, 4 in the next, and only a running report in the last."""
    path = tmp_path / "p"
    spool = open_spool(path, OPTIONS)
    for number in (1, 2, 3, 300):
        spool_number(spool, number)
    spool.append([], progress={1: b"running"})
    spool.set_offset(6, first_local=1)
    spool.release(1)
    spool.close()
    return path


def test_show__says_what_is_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Segments, numbers, events and bytes are told, and nothing is touched."""
    before = {file: file.read_bytes() for file in folder.iterdir()}
    assert main([str(folder), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    segments = report.pop("segments")
    assert report == {
        "producer": "p",
        "offsets": [[1, 6]],
        "is_manifest_damaged": False,
        "next": 5,
        "released": 1,
        "size_bytes": sum(file.stat().st_size for file in folder.glob("*.spool")),
        "held_batch_count": 3,
        "held_event_count": 3 + 4 + 7,
        "running_report_count": 1,
        "damaged_batch_count": 0,
        "damaged_event_count": 0,
        "damaged_report_count": 0,
        "damaged_header_count": 0,
        "torn_bytes": 0,
    }
    assert [(s["first"], s["next"], s["first_sequence"]) for s in segments] == [
        (1, 4, 7),
        (4, 5, 10),
        (5, 5, 11),
    ]
    assert [(s["batch_count"], s["event_count"]) for s in segments] == [(3, 9), (1, 7), (0, 0)]
    assert main([str(folder)]) == 0
    page = capsys.readouterr().out
    assert "14 events in 3 batches" in page
    assert "1 to 3 (sent as 7 on)" in page
    assert {file: file.read_bytes() for file in folder.iterdir()} == before


def test_show__says_what_is_damaged(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A batch that has rotted, and a manifest's copy, are named, and the status is 1."""
    data = bytearray((folder / FIRST).read_bytes())
    data[data.index(b"00000002")] ^= 1
    (folder / FIRST).write_bytes(data)
    (folder / MANIFEST_NAMES[1]).unlink()
    assert main([str(folder)]) == 1
    page = capsys.readouterr().out
    assert "1 to 3 (sent as 7 on), 1 damaged" in page
    assert "1 batches, 3 events" in page
    assert "one copy is damaged" in page


@pytest.mark.parametrize("name", ["nothing", "empty"])
def test_show__there_is_no_spool(tmp_path: Path, name: str) -> None:
    """A folder that is no spool ends with a sentence and status 2, and stays as it is."""
    (tmp_path / "empty").mkdir()
    program = [sys.executable, "-m", "tokenworks.client.spool", str(tmp_path / name)]
    shown = subprocess.run(program, check=False, capture_output=True, text=True)
    assert (shown.returncode, shown.stdout) == (2, "")
    assert "no spool there" in shown.stderr
    assert not list((tmp_path / "empty").iterdir())
