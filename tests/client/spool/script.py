"""A process that spools, and what it must be able to say of its spool whatever the disk does.

`Work` does what a sender does and keeps the truth beside it; `check` holds a spool that was opened
after the process ended against that truth.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tests.client.spool.disk import Disk
from tokenworks.client.columns import SealedBatch
from tokenworks.client.hold import DiskFault, SpooledBatch
from tokenworks.client.spool import Spool, SpoolOptions

PRODUCER: Final = "p"
OPTIONS: Final = SpoolOptions(
    segment_bytes_max=400, bytes_max=100_000, retain_bytes=500, cache_bytes_max=60
)
KEPT_UNSENT: Final = 6
"""The newest so many batches are not released."""


@dataclass(slots=True)
class Truth:
    """What a process knows that it has done, over all its starts."""

    returned: dict[int, bytes] = field(default_factory=dict)
    """Payloads of batches whose append returned, by local number: they may have been sent."""
    tried: set[bytes] = field(default_factory=set)
    """Payloads of batches that were ever handed over."""
    released: int = 0
    offset: int | None = None
    offsets_tried: set[int | None] = field(default_factory=lambda: {None})
    running: dict[int, bytes] = field(default_factory=dict)
    """Content of running reports, as far as an append returned."""
    uncertain: dict[int, set[bytes]] = field(default_factory=dict)
    """What an append that did not return said of running reports; empty for their end."""
    fault_count: int = 0


class Work:
    """One start of a process."""

    def __init__(self, disk: Disk, *, truth: Truth, start: int, options: SpoolOptions) -> None:
        self.truth = truth
        self.start = start
        self.spool = Spool.open(disk, producer=PRODUCER, options=options)
        self._waiting: list[SpooledBatch] = []
        self._progress: dict[int, bytes] = {}

    def run(self, step_count: int) -> None:
        """Spool, release, fix numbers, and go on after faults as a sender does."""
        for step in range(step_count):
            key = 1000 * self.start + step
            settles = (key - 2,) if step >= 2 and step % 3 == 0 else ()
            payload = f"start {self.start} step {step}".encode() * (1 + step % 4)
            batch = SealedBatch(payload=payload, event_count=step + 1)
            self._waiting.append(SpooledBatch(batch=batch, settles=settles))
            self._progress[key] = b"first of %d" % key
            if step % 5 == 4:
                self._progress[key - 3] = b""
            self._append()
            self._read_back()
            if step % 4 == 1:
                self._release()
            if step % 6 == 2:
                self._set_offset(10 * self.start + step)
        self.spool.close()

    def _append(self) -> None:
        truth = self.truth
        truth.tried.update(spooled.batch.payload for spooled in self._waiting)
        for key, payload in self._progress.items():
            truth.uncertain.setdefault(key, set()).add(payload)
        for spooled in self._waiting:
            for key in spooled.settles:
                truth.uncertain.setdefault(key, set()).add(b"")
        first = self.spool.next
        try:
            self.spool.append(self._waiting, progress=self._progress)
        except DiskFault:
            truth.fault_count += 1
            assert self.spool.next == first
            return
        for local, spooled in enumerate(self._waiting, first):
            truth.returned[local] = spooled.batch.payload
        _apply(truth.running, self._progress)
        for spooled in self._waiting:
            _apply(truth.running, dict.fromkeys(spooled.settles, b""))
        truth.uncertain.clear()
        self._waiting, self._progress = [], {}

    def _read_back(self) -> None:
        """What is not in memory any more is read from the disk, faults or not."""
        for local in range(max(self.spool.first, self.spool.next - 8), self.spool.next):
            batch = self.spool.batch(local)
            assert batch is not None
            assert batch.payload == self.truth.returned[local]

    def _release(self) -> None:
        target = self.spool.next - 1 - KEPT_UNSENT
        if target > self.spool.released:
            self.truth.released = target
            self.spool.release(target)

    def _set_offset(self, offset: int) -> None:
        self.truth.offsets_tried.add(offset)
        try:
            self.spool.set_offset(offset, first_local=self.spool.next)
        except DiskFault:
            self.truth.fault_count += 1
        else:
            self.truth.offset = offset
            self.truth.offsets_tried = {offset}


def check(spool: Spool, *, truth: Truth) -> None:
    """Hold a spool that was opened anew against the truth; nothing is sent that should not be."""
    found: dict[int, bytes] = {}
    for local in range(spool.first, spool.next):
        batch = spool.batch(local)
        if batch is not None:
            found[local] = batch.payload
    assert len(set(found.values())) == len(found), "a batch is there twice"
    assert spool.first <= truth.released + 1, "what is not durable was thrown away"
    for local, payload in truth.returned.items():
        if local >= spool.first:
            assert found.get(local) == payload, "a batch is lost, or its number has other bytes"
    extra = {payload for local, payload in found.items() if local not in truth.returned}
    assert extra <= truth.tried - set(truth.returned.values()), "a batch under another number"
    assert spool.offset in truth.offsets_tried
    assert spool.held_event_count == sum(
        spool.event_count(local) for local in range(spool.released + 1, spool.next)
    )
    assert spool.released <= truth.released
    _check_running(spool, truth=truth)


def _check_running(spool: Spool, *, truth: Truth) -> None:
    recovered = {key: batch.payload for key, batch in spool.recovered}
    for key in recovered.keys() | truth.running.keys() | truth.uncertain.keys():
        allowed = {truth.running.get(key, b"")} | truth.uncertain.get(key, set())
        assert recovered.get(key, b"") in allowed, f"report {key}"


def _apply(running: dict[int, bytes], news: Mapping[int, bytes]) -> None:
    for key, payload in news.items():
        if payload:
            running[key] = payload
        else:
            running.pop(key, None)
