"""Clocks that jump."""

import json
import struct
import time
from pathlib import Path

import psycopg

from tests.faults.release import release_all
from tests.faults.row import Seen, row
from tests.faults.shims import build
from tests.faults.site import Site

_HOUR = 3_600
_FUTURE_MS_MAX = 5 * 60 * 1000
# docs/internals/journal.md
_HEAD = "<BI"
_RECEIVED_MS = 5
_NAMED_ONCE = 3


class Clock:
    """The wall clock of a process that is started with `environment`."""

    def __init__(self, site: Site, *, name: str = "clock") -> None:
        """Build the library; the clock is right at first. `name` is that of its file."""
        self._file = site.folder / name
        self.set(0)
        library = build("clock_jump", folder=site.folder)
        self.environment = {"LD_PRELOAD": str(library), "FAULTS_CLOCK": str(self._file)}

    def set(self, seconds: int) -> None:
        """Let it be wrong by some seconds from now on."""
        # In place: the process has the file in its memory.
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("<q", seconds))


@row(
    "producer-clock-ahead",
    fault="a producer's clock jumps an hour ahead, and back after a while",
    how="a library loaded first shifts its wall clock",
    expected="events from the future go to quarantine, each of them; all others are counted once",
)
def producer_clock_ahead(site: Site) -> Seen:
    """Let events come from the future."""
    clock = Clock(site)
    site.report("east", environment=clock.environment)
    site.report("west")
    site.call("unary")
    site.load()
    clock.set(_HOUR)
    site.load()
    clock.set(0)
    site.load()
    site.hold()
    ahead = _count_ahead(site.folder / "truth" / "east.jsonl")
    return Seen(
        count=ahead,
        what="events from more than five minutes ahead",
        set_aside_min=ahead,
        set_aside_max=ahead,
    )


@row(
    "producer-clock-behind",
    fault="a producer's clock jumps an hour back, and ahead again after a while",
    how="a library loaded first shifts its wall clock",
    expected="events are counted where their time says; each once",
)
def producer_clock_behind(site: Site) -> Seen:
    """Let events come late."""
    clock = Clock(site)
    site.report("east", environment=clock.environment)
    site.report("west")
    site.call("unary")
    site.load()
    clock.set(-_HOUR)
    site.load()
    clock.set(0)
    site.load()
    site.hold()
    behind = _count_behind(site.folder / "truth" / "east.jsonl")
    return Seen(count=behind, what="events with times of an hour ago")


@row(
    "meter-clock-ahead",
    fault="the meter's clock jumps an hour ahead, and back after a while",
    how="a library loaded first shifts its wall clock",
    expected="events are late for a while; counted once, and counting goes on after the way back",
    starts_itself=True,
)
def meter_clock_ahead(site: Site) -> Seen:
    """Let the meter live an hour ahead."""
    clock = Clock(site)
    site.start(meter_environment=clock.environment)
    site.start_fleet()
    site.load()
    clock.set(_HOUR)
    site.load()
    clock.set(0)
    site.load()
    return Seen(
        count=_received_ahead(site), what="batches received an hour ahead, as the meter saw"
    )


@row(
    "meter-clock-behind",
    fault="the meter's clock jumps an hour back, and ahead again after a while",
    how="a library loaded first shifts its wall clock; what was set aside is released afterwards",
    expected="events seem to come from the future and are kept; released, each counts once",
    starts_itself=True,
)
def meter_clock_behind(site: Site) -> Seen:
    """Let the meter live an hour ago."""
    clock = Clock(site)
    site.start(meter_environment=clock.environment)
    site.report("east", rate=100)
    site.call("unary", rate=20)
    site.load()
    clock.set(-_HOUR)
    site.load()
    clock.set(0)
    site.load()
    wrong = site.drain()
    released = release_all(site)
    return Seen(count=released, what="events kept and released", wrong=wrong)


def _received_ahead(site: Site) -> int:
    """Count the batches whose receipt the journal dates half an hour ahead or more."""
    limit_ms = time.time_ns() // 1_000_000 + _HOUR * 500
    count = 0
    with psycopg.connect(site.database.url) as connection:
        for (body,) in connection.execute("SELECT body FROM journal"):
            version, size = struct.unpack_from(_HEAD, body)
            begin = struct.calcsize(_HEAD)
            header = json.loads(body[begin : begin + size])
            if version == _NAMED_ONCE:
                first_ms = header["first_received_ms"]
                received_ms = [first_ms + offset_ms for _, _, offset_ms, _ in header["batches"]]
            else:
                received_ms = [batch[_RECEIVED_MS] for batch in header["batches"]]
            count += sum(1 for it in received_ms if it > limit_ms)
    return count


def _count_ahead(truth: Path) -> int:
    limit_ms = time.time_ns() // 1_000_000 + _FUTURE_MS_MAX
    return sum(1 for end_ms in _ends_ms(truth) if end_ms > limit_ms)


def _count_behind(truth: Path) -> int:
    limit_ms = time.time_ns() // 1_000_000 - _HOUR * 500
    return sum(1 for end_ms in _ends_ms(truth) if end_ms < limit_ms)


def _ends_ms(truth: Path) -> list[int]:
    lines = truth.read_text("utf-8").splitlines()
    return [int(line.split('"end_time_ms":')[1].split(",")[0]) for line in lines]
