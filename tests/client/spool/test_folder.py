"""The spool's real folder: locks, slots, processes that are killed, disks that are full."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tokenworks.client.columns import SealedBatch
from tokenworks.client.hold import DiskFault, SpooledBatch
from tokenworks.client.spool import (
    Folder,
    Fsync,
    Reason,
    Spool,
    SpoolOptions,
    SpoolUnusable,
    leftovers,
    open_slot,
)
from tokenworks.client.spool.folder import SLOTS_MAX, slot_name
from tokenworks.client.spool.manifest import MANIFEST_NAMES, RESERVE_NAME

OPTIONS: Final = SpoolOptions(segment_bytes_max=20_000, bytes_max=100_000_000)
KILLED_PROCESSES: Final = 4

SPOOL_WITHOUT_END: Final = """
import sys
from pathlib import Path
from tests.client.spool.test_folder import open_spool, spool_number

spool = open_spool(Path(sys.argv[1]))
while True:
    number = spool.next
    spool_number(spool, number)
    print(number, flush=True)
"""

HOLD_AND_FORK: Final = """
import os, sys
from pathlib import Path
from tokenworks.client.spool import Folder

folder = Folder.open(Path(sys.argv[1]))
ready, wait = os.pipe()
child = os.fork()
if child == 0:
    if sys.argv[2] == "abandons":
        folder.abandon()
    os.write(wait, b"x")
    sys.stdin.read()
    os._exit(0)
os.read(ready, 1)
if sys.argv[2] == "keeps":
    folder.close()
print("forked", flush=True)
sys.stdin.read()
"""


def open_spool(path: Path, options: SpoolOptions = OPTIONS) -> Spool:
    """Open the spool of producer p in a folder."""
    return Spool.open(Folder.open(path), producer="p", options=options)


def spool_number(spool: Spool, number: int) -> None:
    """Append a batch of which each byte is known."""
    spool.append([SpooledBatch(batch=_batch(number))], progress={})


def _batch(number: int) -> SealedBatch:
    payload = b"%08d" % number * (1 + number % 400)
    return SealedBatch(payload=payload, event_count=1 + number % 7)


@contextmanager
def _running(program: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_spool__process_is_killed(tmp_path: Path) -> None:
    """Each batch that a killed process had spooled is there, at most one more, and all in order."""
    spooled = 0
    for start in range(KILLED_PROCESSES):
        with _running(SPOOL_WITHOUT_END, tmp_path / "p") as process:
            for _ in range(3 + 20 * start):
                spooled = int(_line(process))
            process.send_signal(signal.SIGKILL)
            while line := _line(process):
                spooled = int(line)
        spool = open_spool(tmp_path / "p")
        assert spooled < spool.next <= spooled + 2
        for local in range(1, spool.next):
            assert spool.batch(local) == _batch(local)
        assert spool.lost_event_count == 0
        spool.close()


def test_folder__is_of_one_process_at_a_time(tmp_path: Path) -> None:
    """A second one is told so; when the first has closed it or died, the next may have it."""
    folder = Folder.open(tmp_path / "p")
    with pytest.raises(SpoolUnusable, match="in use") as refused:
        Folder.open(tmp_path / "p")
    assert refused.value.reason is Reason.IN_USE
    folder.close()
    folder.close()
    with _running(SPOOL_WITHOUT_END, tmp_path / "p") as process:
        _line(process)
        with pytest.raises(SpoolUnusable, match="in use"):
            Folder.open(tmp_path / "p")
    Folder.open(tmp_path / "p").close()


def test_abandon__leaves_the_lock_to_the_parent(tmp_path: Path) -> None:
    """A forked child that lets go does not unlock what its parent has."""
    with _running(HOLD_AND_FORK, tmp_path / "p", "abandons") as process:
        assert _line(process) == "forked"
        with pytest.raises(SpoolUnusable, match="in use"):
            Folder.open(tmp_path / "p")
        process.communicate()


@pytest.mark.parametrize("let_go", [Folder.close, Folder.abandon])
def test_folder__is_left_alone_once_let_go(
    tmp_path: Path, let_go: Callable[[Folder], None]
) -> None:
    """Whoever has let go of a folder changes nothing in it any more, though it may still read."""
    folder = Folder.open(tmp_path / "p")
    spool = Spool.open(folder, producer="p", options=OPTIONS)
    spool_number(spool, 1)
    let_go(folder)
    before = {file: file.read_bytes() for file in (tmp_path / "p").iterdir()}
    with pytest.raises(DiskFault, match="let go"):
        spool_number(spool, 2)
    with pytest.raises(DiskFault, match="let go"):
        spool.set_offset(1, first_local=1)
    spool.close()
    assert spool.batch(1) == _batch(1)
    assert {file: file.read_bytes() for file in (tmp_path / "p").iterdir()} == before


def test_close__unlocks_though_a_child_lives(tmp_path: Path) -> None:
    """A child that knows nothing of the folder does not keep it locked."""
    with _running(HOLD_AND_FORK, tmp_path / "p", "keeps") as process:
        assert _line(process) == "forked"
        Folder.open(tmp_path / "p").close()
        process.communicate()


def test_folder__is_for_its_owner_alone(tmp_path: Path) -> None:
    """What customers used is nobody else's to read, whatever the umask."""
    before = os.umask(0)
    try:
        spool = open_spool(tmp_path / "root" / "p")
        spool_number(spool, 1)
        spool.close()
    finally:
        os.umask(before)
    folder = tmp_path / "root" / "p"
    assert folder.stat().st_mode & 0o777 == 0o700
    files = list(folder.iterdir())
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert len(files) == 5


def test_folder__is_made_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss of power cannot take a new folder away: each one above it is synced."""
    synced: list[int] = []
    sync = os.fsync

    def note(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    path = tmp_path / "root" / "p"
    Folder.open(path).close()
    assert set(synced) == {tmp_path.stat().st_ino, path.parent.stat().st_ino}
    synced.clear()
    Folder.open(path).close()
    assert synced == []


def test_close__leaves_no_descriptor_open(tmp_path: Path) -> None:
    """A spool that was opened, filled, read and closed leaves nothing behind in the process."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    options = SpoolOptions(segment_bytes_max=5_000, bytes_max=10_000_000, cache_bytes_max=0)
    spool = open_spool(tmp_path / "p", options)
    for number in range(1, 100):
        spool_number(spool, number)
    assert all(spool.batch(local) == _batch(local) for local in range(1, 100))
    assert len(list(Path("/proc/self/fd").iterdir())) < before + 10
    spool.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(
    ("producer", "slot", "name"),
    [
        ("p", 0, "p"),
        ("p", 1, "p.1"),
        ("p", 64, "p.64"),
        ("x" * 64, 0, "x" * 64),
        ("x" * 64, 7, "x" * 62 + ".7"),
        ("x" * 64, 64, "x" * 61 + ".64"),
    ],
)
def test_slot_name__is_a_producers(producer: str, slot: int, name: str) -> None:
    """Each slot has a name that the meter takes for a producer's."""
    assert slot_name(producer, slot=slot) == name


def test_open_slot__takes_the_first_free_one(tmp_path: Path) -> None:
    """Processes that run at the same time get slots of their own, the same after a restart."""
    opened = [open_slot(tmp_path, "p") for _ in range(SLOTS_MAX + 1)]
    assert [name for _, name in opened][:3] == ["p", "p.1", "p.2"]
    with pytest.raises(SpoolUnusable, match="65 processes") as refused:
        open_slot(tmp_path, "p")
    assert refused.value.reason is Reason.IN_USE
    opened[1][0].close()
    folder, name = open_slot(tmp_path, "p")
    assert name == "p.1"
    for each in (folder, *(folder for folder, _ in opened)):
        each.close()


def test_leftovers__are_those_with_something_unsent(tmp_path: Path) -> None:
    """Folders of processes that have ended are found where the meter lacks something of them."""
    for slot, (appended, released) in enumerate([(0, 0), (3, 3), (3, 2), (2, 0)]):
        spool = Spool.open(
            Folder.open(tmp_path / slot_name("p", slot=slot)),
            producer=slot_name("p", slot=slot),
            options=OPTIONS,
        )
        for number in range(appended):
            spool_number(spool, number)
        spool.release(released)
        spool.close()
    (tmp_path / "p.9").mkdir()
    busy = Folder.open(tmp_path / "p.3")
    spoilt = Folder.open(tmp_path / "p.4")
    spoilt.append(MANIFEST_NAMES[0], b"{")
    spoilt.close()
    found = list(leftovers(tmp_path, "p"))
    assert [name for _, name in found] == ["p.2"]
    with pytest.raises(SpoolUnusable, match="in use"):
        Folder.open(tmp_path / "p.2")
    for folder in (busy, found[0][0]):
        folder.close()
    assert list(leftovers(tmp_path / "nowhere", "p")) == []


def _file_in_its_place(path: Path) -> None:
    path.write_text("a file")


def _file_above(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("a file")


@pytest.mark.parametrize("spoil", [_file_in_its_place, _file_above])
def test_folder__there_is_a_file(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    """A path that leads to a file is refused with what to do."""
    path = tmp_path / "root" / "p"
    path.parent.mkdir()
    spoil(path)
    with pytest.raises(SpoolUnusable, match="name a folder") as refused:
        Folder.open(path)
    assert refused.value.reason is Reason.FOREIGN


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1 MiB."""
    path = tmp_path / "small"
    path.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", path], check=False, capture_output=True
    )
    if made.returncode:
        pytest.skip("mounting a file system takes root")
    yield path
    subprocess.run(["umount", "-l", path], check=True)


def test_folder__is_read_only(small_disk: Path) -> None:
    """A folder that cannot be written is refused with what to do."""
    spool = open_spool(small_disk / "p")
    spool.close()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for name in ("p", "q"):
        with pytest.raises(SpoolUnusable, match="cannot be written") as refused:
            Folder.open(small_disk / name)
        assert refused.value.reason is Reason.READ_ONLY


@pytest.mark.parametrize("fsync", [Fsync.BATCH, Fsync.NEVER])
def test_append__disk_is_full(small_disk: Path, fsync: Fsync) -> None:
    """On a full disk a spool keeps what it has, can fix numbers, and goes on when there is room."""
    (small_disk / "other").write_bytes(bytes(400_000))
    options = SpoolOptions(segment_bytes_max=20_000, bytes_max=100_000_000, fsync=fsync)
    spool = open_spool(small_disk / "p", options)
    with pytest.raises(DiskFault, match="No space left"):
        for number in range(1, 10_000):
            spool_number(spool, number)
    full = spool.next
    with pytest.raises(DiskFault, match="No space left"):
        spool_number(spool, 399)
    spool.set_offset(3, first_local=1)
    assert not (small_disk / "p" / RESERVE_NAME).exists()
    (small_disk / "other").unlink()
    spool_number(spool, full)
    assert (small_disk / "p" / RESERVE_NAME).exists()
    spool.close()
    again = open_spool(small_disk / "p", options)
    assert (again.next, again.offset, again.lost_event_count) == (full + 1, 3, 0)
    assert all(again.batch(local) == _batch(local) for local in range(1, full + 1))
    again.close()


def test_open__disk_is_full(small_disk: Path) -> None:
    """A new spool is not made on a full disk, and the error says what to do."""
    with pytest.raises(OSError, match="No space"):
        (small_disk / "other").write_bytes(bytes(2 * 1024**2))
    with pytest.raises(SpoolUnusable, match="make room") as refused:
        open_spool(small_disk / "p")
    assert refused.value.reason is Reason.NO_SPACE
