"""The spool's promise at every point at which a process can die or a disk can fail."""

import errno
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from random import Random
from typing import Final

import pytest

from tests.client.spool.disk import Crash, Disk, Fault
from tests.client.spool.script import OPTIONS, PRODUCER, Truth, Work, check
from tokenworks.client.spool import Fsync, Spool, SpoolUnusable

STEP_COUNT: Final = 24
TORN: Final = (0, 1, 9, 30, 1_000_000)


def _kill(disk: Disk, _: Random) -> Disk:
    return disk.after_kill()


def _cut_power(disk: Disk, random: Random) -> Disk:
    return disk.after_power_loss(random)


ENDINGS: Final = (_kill, _cut_power)
Ending = Callable[[Disk, Random], Disk]


def _change_count() -> int:
    disk = Disk()
    Work(disk, truth=Truth(), start=1, options=OPTIONS).run(STEP_COUNT)
    return disk.change_count


@pytest.mark.parametrize(
    ("ending", "fsync"),
    [(_kill, Fsync.BATCH), (_cut_power, Fsync.BATCH), (_kill, Fsync.NEVER)],
)
def test_spool__process_dies_at_every_change_of_the_disk(ending: Ending, fsync: Fsync) -> None:
    """Wherever it dies, what had been spooled is there once, under its number, and no more."""
    for crash_at in range(_change_count()):
        _live_and_die(crash_at, ending=ending, seed=crash_at, fault=lambda _: None, fsync=fsync)


@pytest.mark.parametrize(
    ("code", "length", "step"),
    [(errno.EIO, 1, 1), (errno.EIO, 7, 2), (errno.EIO, 10_000, 3), (errno.ENOSPC, 2, 1)],
)
def test_spool__disk_fails_at_every_change(code: int, length: int, step: int) -> None:
    """Whichever change fails, and however long, nothing comes back twice or as something else."""
    for first in range(0, _change_count(), step):
        failing = frozenset(range(first, first + length))
        _live_and_die(
            first + 40,
            ending=ENDINGS[first // step % 2],
            seed=first,
            fault=_failing(failing, code=code),
        )


@pytest.mark.stacks
@pytest.mark.parametrize("seed", range(4))
def test_spool__thousands_of_random_lives(seed: int) -> None:
    """Two starts one after the other, each with faults of its own, keep the promise."""
    random = Random(seed)
    for _ in range(1_000):
        rate = random.choice((0.0, 0.02, 0.2))
        ending = random.choice(ENDINGS)
        failing = frozenset(n for n in range(600) if random.random() < rate)
        code = random.choice((errno.EIO, errno.ENOSPC))
        _live_and_die(
            random.randrange(250),
            ending=ending,
            fsync=random.choice(list(Fsync)) if ending is _kill else Fsync.BATCH,
            seed=random.randrange(2**32),
            fault=_failing(failing, code=code),
        )


def _failing(changes: frozenset[int], *, code: int) -> Fault:
    return lambda number: code if number in changes else None


def _live_and_die(
    crash_at: int, *, ending: Ending, seed: int, fault: Fault, fsync: Fsync = Fsync.BATCH
) -> None:
    """Run two starts, each up to a crash, and check what is found after each."""
    random = Random(seed)
    options = replace(OPTIONS, fsync=fsync)
    truth = Truth()
    disk = Disk()
    for start in (1, 2):
        disk.crash_at = crash_at if start == 1 else random.randrange(100)
        disk.torn_bytes = random.choice(TORN)
        disk.fault = fault
        with suppress(Crash, SpoolUnusable):
            Work(disk, truth=truth, start=start, options=options).run(STEP_COUNT)
        disk = ending(disk, random)
        check(Spool.open(disk.after_kill(), producer=PRODUCER, options=OPTIONS), truth=truth)
        _adopt_what_is_found(disk, truth=truth)


def _adopt_what_is_found(disk: Disk, *, truth: Truth) -> None:
    """What the next start finds it will send: from then on it is the truth."""
    spool = Spool.open(disk.after_kill(), producer=PRODUCER, options=OPTIONS)
    for local in range(spool.first, spool.next):
        batch = spool.batch(local)
        if batch is not None:
            truth.returned[local] = batch.payload
    truth.running = {key: batch.payload for key, batch in spool.recovered}
    truth.uncertain.clear()
    truth.offset = spool.offset
    truth.offsets_tried = {spool.offset}
