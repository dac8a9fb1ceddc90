"""How long processes had a core, as Linux counts it: a load beside them does not change that."""

import os
from pathlib import Path
from typing import Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")
# Fields of /proc/PID/stat behind the name, which may hold spaces.
_PARENT: Final = 1
_USER_TICKS: Final = 11
_SYSTEM_TICKS: Final = 12


def processor_seconds(pid: int) -> float:
    """Return the seconds of a process and of its children that live, and of those it waited for."""
    seconds = 0.0
    for each in (pid, *_children(pid)):
        fields = _fields(Path(f"/proc/{each}/stat"))
        # Children that ended are in the two fields behind.
        seconds += sum(map(int, fields[_USER_TICKS : _SYSTEM_TICKS + 3])) / _TICKS
    return seconds


def serving_pids(pid: int) -> list[int]:
    """Return the processes that serve: a meter's workers, or the meter itself where it has none."""
    return _children(pid) or [pid]


def main_thread_seconds(pid: int) -> float:
    """Return the seconds of the first threads: a meter's event loop, or its workers'."""
    return sum(thread_seconds(each).get(each, 0.0) for each in serving_pids(pid))


def thread_seconds(pid: int) -> dict[int, float]:
    """Return the seconds of each thread of a process that lives."""
    stats = {int(task.name): _fields(task / "stat") for task in Path(f"/proc/{pid}/task").iterdir()}
    return {
        thread: sum(map(int, fields[_USER_TICKS : _SYSTEM_TICKS + 1])) / _TICKS
        for thread, fields in stats.items()
        if fields
    }


def peak_memory_bytes(pid: int) -> int:
    """Return the most memory that a process and its children each have had at a time, summed."""
    return sum(map(_peak_memory_bytes, (pid, *_children(pid))))


def _peak_memory_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text("utf-8")
    line = next(it for it in status.splitlines() if it.startswith("VmHWM:"))
    return 1024 * int(line.split()[1])


def _children(pid: int) -> list[int]:
    return [
        int(path.name)
        for path in Path("/proc").iterdir()
        if path.name.isdigit()
        and (fields := _fields(path / "stat"))
        and int(fields[_PARENT]) == pid
    ]


def _fields(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
