"""Fleets of boards under old and new names, whole and in parts, against what they truly drew.

Up to dcgm-exporter 4.8 a counter is in millijoules, from 4.9 on in joules under another name.
"""

from random import Random

import pytest

from meter.energy.counters import Counter as EnergyCounter
from meter.energy.counters import Reading, Source, take
from meter.energy.sources.dcgm import read_page
from tests.efficiency.product import BOUNDS
from tests.efficiency.worlds import BEGIN_MS
from tests.exporter import NEW_NAME, OLD_NAME

STEP_MS = 60_000
STEPS = 12
POOL = "fleet"


class Board:
    """A board as its exporter shows it: under one name or both, whole or in parts (MIG)."""

    def __init__(self, number: int, random: Random) -> None:
        self.uuid = f"GPU-{number:08x}"
        self.counter_mj = random.randrange(10**12)
        self.drawn_mj = 0
        self.names = random.choice(((OLD_NAME,), (NEW_NAME,), (OLD_NAME, NEW_NAME)))
        self.parts = random.choice((0, 0, 2, 7))
        # How the host is labelled was changed between versions, and is nothing to go by.
        self.host = random.choice(('Hostname="a"', 'hostname="b"', 'Hostname="a",hostname="b"'))
        self.label = random.choice(("UUID", "uuid"))

    def draw(self, energy_mj: int) -> None:
        """Use energy."""
        self.counter_mj += energy_mj
        self.drawn_mj += energy_mj

    @property
    def shown_mj(self) -> int:
        """What can be read off it: whole joules where that is the unit."""
        return self.counter_mj if OLD_NAME in self.names else self.counter_mj // 1_000 * 1_000

    def lines(self) -> list[str]:
        """Return its samples."""
        found = []
        for name in self.names:
            value = self.counter_mj if name == OLD_NAME else self.counter_mj // 1_000
            for part in range(self.parts or 1):
                mig = f',GPU_I_ID="{part}"' if self.parts else ""
                found.append(f'{name}{{{self.label}="{self.uuid}",{self.host}{mig}}} {value}')
        return found


@pytest.mark.parametrize("seed", range(25))
def test_fleet__is_what_it_drew(seed: int) -> None:
    """Each board counts once, in its name's unit; what is below a joule comes with the next one."""
    random = Random(seed)
    boards = [Board(number, random) for number in range(random.randint(1, 24))]
    first_mj = {board.uuid: board.shown_mj for board in boards}
    known: dict[str, EnergyCounter] = {}
    measured_mj = 0
    for step in range(STEPS + 1):
        lines = [line for board in boards for line in board.lines()]
        random.shuffle(lines)
        page = read_page("\n".join(lines) + "\n")
        assert page.unreadable_count == 0
        readings = [
            Reading(
                name=POOL,
                device=sample.device,
                time_ms=BEGIN_MS + step * STEP_MS,
                counter_mj=sample.counter_mj,
            )
            for sample in page.samples()
            if sample.counter_mj is not None
        ]
        assert len(readings) == len(boards)
        done = take(readings, source=Source.DCGM, known=known, bounds=BOUNDS)
        known.update(done.counters)
        measured_mj += sum(it.measured_mj for it in done.delta.intervals.values())
        if step < STEPS:
            for board in boards:
                board.draw(random.randrange(700 * STEP_MS))
    assert measured_mj == sum(board.shown_mj - first_mj[board.uuid] for board in boards)
    old = sum(board.drawn_mj for board in boards)
    assert abs(measured_mj - old) < 1_000 * len(boards)
    if all(OLD_NAME in board.names for board in boards):
        assert measured_mj == old
