"""Programs that sample functions, where they are installed: `perf` and `py-spy`."""

import re
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_HERTZ: Final = 199
_SHOWN: Final = 25
_END_SECONDS_MAX: Final = 60
# A line of perf's report: its share, who ran, in which file, and which function.
_PERF_LINE: Final = re.compile(r"\s*([\d.]+)%\s+(.+?)\s*$")
Shares = list[tuple[str, str]]


@contextmanager
def sampled(pid: int) -> Iterator[dict[str, Shares]]:
    """Sample while the block runs, a process and its children by py-spy, and all by perf.

    Filled at its end. What is not installed, or may not look, is named with nothing below it.
    """
    found: dict[str, Shares] = {}
    with tempfile.TemporaryDirectory() as name:
        perf, spy = Path(name) / "perf.data", Path(name) / "stacks"
        # perf's clock of the processor is there in virtual machines, too.
        looks = [
            "perf",
            "record",
            "-q",
            "-a",
            "-e",
            "cpu-clock",
            "-F",
            str(_HERTZ),
            "-o",
            str(perf),
        ]
        spies = ["py-spy", "record", "-p", str(pid), "-r", str(_HERTZ), "-f", "raw", "-F", "-s"]
        with _running(looks), _running([*spies, "--gil", "--threads", "-o", str(spy)]):
            yield found
        found["Functions of all programs, by perf"] = _perf_shares(perf)
        title = "Functions of the meter that hold Python's lock, by py-spy"
        found[title] = _spy_shares(spy, is_inclusive=False)
        found[f"{title}, with all that they call"] = _spy_shares(spy, is_inclusive=True)


@contextmanager
def _running(command: list[str]) -> Iterator[None]:
    if shutil.which(command[0]) is None:
        yield
        return
    # What it has against looking is on its stderr.
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(_END_SECONDS_MAX)


def _perf_shares(data: Path) -> Shares:
    if not data.exists():
        return []
    report = subprocess.run(
        ["perf", "report", "-i", str(data), "--stdio", "-F", "overhead,comm,dso,symbol"],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = map(_PERF_LINE.fullmatch, report.stdout.splitlines())
    found = [(line[1], re.sub(r"\s{2,}", "  ", line[2])) for line in lines if line]
    return [it for it in found if "swapper" not in it[1]][:_SHOWN]


def _spy_shares(stacks: Path, *, is_inclusive: bool) -> Shares:
    """Return shares of functions in the samples: where a sample was, or what led there.

    Of what led there only the meter's own modules are told, each once a sample.
    """
    if not stacks.exists():
        return []
    counts: Counter[str] = Counter()
    total = 0
    for line in stacks.read_text("utf-8").splitlines():
        stack, _, count = line.rpartition(" ")
        # The first is the thread.
        _, *frames = stack.split(";")
        total += int(count)
        own = {frame for frame in frames if "(meter/" in frame}
        for frame in own if is_inclusive else frames[-1:]:
            counts[frame] += int(count)
    return [(f"{100 * count / total:.1f}", frame) for frame, count in counts.most_common(_SHOWN)]
