"""Random factories to measure: counters and what goes wrong with them, tokens, descriptions.

Plain data, the same for a seed; nothing of the product is in it.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Final

from tests.efficiency.oracle import INTERVAL_MS, Event, Reading

BEGIN_MS: Final = 1_790_812_800_000  # 2026-10-01
ACCOUNTS: Final = ("acme", "bolt", "crux")
MODELS: Final = ("llama-4", "llama-4-mini", "kimi-k2")
TIERS: Final = ("free", "high", "ultra")
CLASSES: Final = (
    *("input", "cache_read", "cache_write_5m", "output", "reasoning"),
    *("audio_input", "audio_cache_read", "image_output"),
)
# What a board's counter may lie in a world: more than that is no energy.
WATTS_MAX: Final = 10_000
GAP_MS: Final = 240_000
GAPS_MS: Final = {"dcgm": GAP_MS, "reported": INTERVAL_MS}
_CADENCES_MS: Final = (45_000, 97_000, 180_000)
_MINUTE_MS: Final = 60_000
# No round goes on so long that a description, which is set before it, comes into force behind it.
_ROUND_MS_MAX: Final = INTERVAL_MS // 2
# What weights can be for, hardware and model; none of them takes all that comes after it.
_FOR: Final = (
    ("A", "llama-4-mini"),
    ("B", "llama-*"),
    ("", "kimi-k2"),
    ("A", ""),
    ("", "*mini"),
    ("", ""),
)
# What a counter can suffer, and how often it does.
_FAULTS: Final = ("reset", "frozen", "leap", "silence", "long silence")


@dataclass(slots=True)
class Device:
    """A counter of the world: what it is of, who reads it, and the readings, by time.

    `drawn_mj` is what it had truly drawn when it showed what each reading has. `faults` are what it
    suffers. After `range_mj` it shows 0; 0 is for one that does not wrap.
    """

    boundary: str
    name: str
    device: str
    source: str
    range_mj: int = 0
    readings: list[Reading] = field(default_factory=list)
    drawn_mj: list[int] = field(default_factory=list)
    faults: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What happens at once: rounds of readings, events that are counted, and then attribution.

    `until_ms` is up to where intervals are attributed. `description` is set before all of it.
    """

    until_ms: int
    description: str | None
    rounds: Sequence[Sequence[Reading]]
    events: Sequence[Event]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A world from its first step to its last; `interval_count` is how long it is."""

    seed: int
    interval_count: int
    devices: Sequence[Device]
    steps: Sequence[Step]

    @property
    def end_ms(self) -> int:
        """When all of it is over."""
        return BEGIN_MS + self.interval_count * INTERVAL_MS

    @property
    def descriptions(self) -> list[str]:
        """The texts of the versions in the order in which they are set."""
        return [it.description for it in self.steps if it.description is not None]

    @property
    def rounds(self) -> list[Sequence[Reading]]:
        """All rounds of readings in the order in which they come."""
        return [readings for step in self.steps for readings in step.rounds]

    @property
    def events(self) -> list[Event]:
        """All events in the order in which they are counted."""
        return [event for step in self.steps for event in step.events]


def random_world(seed: int) -> World:
    """Return the world of a seed."""
    return _Maker(seed).make()


class _Maker:
    """Makes one world."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._random = Random(f"factory {seed}")
        self._interval_count = self._random.randint(2, 4)
        self._pools = [f"pool-{it}" for it in range(self._random.randint(1, 3))]
        # When versions of the description begin: never two at a time.
        self._versions_ms: set[int] = set()

    def make(self) -> World:
        """Return the world."""
        devices = self._devices()
        edges = self._random.choices(range(1, self._interval_count), k=self._random.randint(0, 3))
        ends_ms = [BEGIN_MS + it * INTERVAL_MS for it in (*sorted(edges), self._interval_count)]
        rounds, events = self._rounds(devices), self._events(ends_ms)
        steps = []
        before_ms = BEGIN_MS
        for place, until_ms in enumerate(ends_ms):
            description = self._description(devices, begin_ms=before_ms, place=place)
            is_last = place == len(ends_ms) - 1
            steps.append(
                Step(
                    until_ms=until_ms,
                    description=description,
                    rounds=_take(rounds, until_ms=None if is_last else until_ms),
                    events=events[place],
                )
            )
            before_ms = until_ms
        return World(
            seed=self._seed,
            interval_count=self._interval_count,
            devices=devices,
            steps=steps,
        )

    def _devices(self) -> list[Device]:
        random = self._random
        devices = []
        for pool in self._pools:
            devices += [
                Device("board", pool, f"GPU-{pool}-{number}", random.choice(("dcgm", "reported")))
                for number in range(random.randint(1, 3))
            ]
            for number in range(random.choice((0, 0, 1, 2))):
                range_mj = random.choice((0, 0, 262_143_328, 10**9))
                devices.append(Device("host", pool, f"host-{pool}-{number}", "reported", range_mj))
        if random.random() < 0.4:
            devices.append(Device("facility", "oslo", "meter-oslo", "reported"))
        for device in devices:
            self._live(device)
        return [*devices, *filter(None, map(self._claim, devices))]

    def _live(self, device: Device) -> None:
        """Make the readings of a device: what it draws, seen through what goes wrong."""
        random = self._random
        if random.random() < 0.5:
            device.faults.update(random.choices(_FAULTS, k=random.randint(1, 3)))
        watts = self._watts()
        times = self._times()
        reset_ms, leap_ms = (
            random.choice(times) if fault in device.faults else None for fault in ("reset", "leap")
        )
        silences = self._silences(device, times)
        begin_mj = random.randrange(device.range_mj or 10**12)
        frozen_until_ms, shown_mj, seen_mj = 0, 0, 0
        for time_ms in times:
            drawn_mj = _drawn_mj(watts, time_ms - BEGIN_MS)
            if time_ms == reset_ms:
                # What was drawn before is gone: it began anew at 0, somewhat before it is read.
                begin_mj = random.randint(0, 20_000) - drawn_mj
            if "frozen" in device.faults and time_ms >= frozen_until_ms and random.random() < 0.2:
                frozen_until_ms = time_ms + random.choice((GAP_MS // 2, 2 * GAP_MS))
            if time_ms >= frozen_until_ms or not device.readings:
                seen_mj, shown_mj = drawn_mj, begin_mj + drawn_mj
                if device.range_mj:
                    shown_mj %= device.range_mj + 1
                elif time_ms == leap_ms:
                    shown_mj += 10**14
            if not any(begin_ms <= time_ms < end_ms for begin_ms, end_ms in silences):
                device.readings.append(_reading(device, time_ms, shown_mj))
                device.drawn_mj.append(seen_mj)

    def _claim(self, device: Device) -> Device | None:
        """Have another exporter, or another pool's, read a board too; perhaps the first one ends.

        Both see the same counter.
        """
        random = self._random
        if device.boundary != "board" or random.random() > 0.2:
            return None
        claimant = Device("board", device.name, device.device, device.source, faults={"claimed"})
        if random.random() < 0.5:
            claimant.name = random.choice(self._pools)
        if claimant.name == device.name:
            claimant.source = {"dcgm": "reported", "reported": "dcgm"}[device.source]
        first, end = sorted(random.choices(range(len(device.readings) + 1), k=2))
        later_ms = random.randint(1, 5_000)
        for reading, drawn_mj in list(zip(device.readings, device.drawn_mj, strict=True))[
            first:end
        ]:
            seen = _reading(claimant, reading.time_ms + later_ms, reading.counter_mj)
            claimant.readings.append(seen)
            claimant.drawn_mj.append(drawn_mj)
        if random.random() < 0.5:
            last = random.randint(0, len(device.readings))
            del device.readings[last:], device.drawn_mj[last:]
        device.faults.add("claimed")
        return claimant

    def _silences(self, device: Device, times: Sequence[int]) -> list[tuple[int, int]]:
        lengths_ms = {"silence": 2 * GAP_MS, "long silence": 2 * INTERVAL_MS}
        begins_ms = {it: self._random.choice(times) for it in lengths_ms if it in device.faults}
        return [(begin_ms, begin_ms + lengths_ms[it]) for it, begin_ms in begins_ms.items()]

    def _watts(self) -> list[int]:
        """Draw the watts of each minute: at rest, at work, and between."""
        random = self._random
        minutes = self._interval_count * INTERVAL_MS // _MINUTE_MS
        idle, peak = random.randint(0, 120), random.randint(300, 1_200)
        level = idle
        found = []
        for _ in range(minutes + 1):
            if random.random() < 0.2:
                level = random.choice((idle, idle, random.randint(idle, peak), peak))
            found.append(level)
        return found

    def _times(self) -> list[int]:
        """Draw when a device is read: at a cadence with jitter, and sometimes right on edges."""
        random = self._random
        cadence_ms = random.choice(_CADENCES_MS)
        end_ms = BEGIN_MS + self._interval_count * INTERVAL_MS
        times = set()
        time_ms = BEGIN_MS + random.randrange(cadence_ms)
        while time_ms < end_ms:
            times.add(time_ms)
            time_ms += random.randint(cadence_ms // 2, cadence_ms * 3 // 2)
        if random.random() < 0.5:
            times.update(range(BEGIN_MS, end_ms + 1, INTERVAL_MS))
        return sorted(times)

    def _rounds(self, devices: Sequence[Device]) -> list[list[Reading]]:
        """Put readings into rounds of one source each, some of them again, and some late."""
        random = self._random
        readings = sorted(
            (it for device in devices for it in device.readings),
            key=lambda it: (it.time_ms, it.device),
        )
        rounds: list[list[Reading]] = []
        while readings:
            end_ms = readings[0].time_ms + random.randint(1, _ROUND_MS_MAX)
            size = sum(it.time_ms < end_ms for it in readings[: random.randint(1, 60)])
            rounds.append(readings[:size])
            del readings[:size]
        for place in range(1, len(rounds)):
            if random.random() < 0.3:
                # Sent again, for the acknowledgement was lost.
                rounds[place] += random.sample(rounds[place - 1], k=1)
            if random.random() < 0.2 and len(rounds[place - 1]) > 1:
                late = rounds[place - 1].pop(random.randrange(len(rounds[place - 1])))
                rounds[place].append(late)
        apart = []
        for each in rounds:
            random.shuffle(each)
            apart += [[it for it in each if it.source == source] for source in GAPS_MS]
        return list(filter(None, apart))

    def _events(self, ends_ms: Sequence[int]) -> list[list[Event]]:
        """Draw events, and in which of the steps each is counted: soon, or late."""
        random = self._random
        steps: list[list[Event]] = [[] for _ in ends_ms]
        last = len(ends_ms) - 1
        for number in range(1, 1 + random.choice((0, 20, 60, 60))):
            names = random.sample(CLASSES, k=random.randint(1, 4))
            event = Event(
                account=random.choice(ACCOUNTS),
                pool=random.choice([*self._pools, "unmeasured"]),
                model=random.choice(MODELS),
                tier=random.choice(TIERS),
                time_ms=BEGIN_MS + random.randrange(self._interval_count * INTERVAL_MS),
                classes={name: random.choice((1, 7, 1_000, 54_321)) for name in names},
                number=number,
            )
            soon = next(place for place, end_ms in enumerate(ends_ms) if event.time_ms < end_ms)
            place = soon if random.random() < 0.8 else random.randint(soon, last)
            steps[place].append(event)
            if random.random() < 0.15:
                # Reported wrongly, and taken back: nothing is left of it.
                negative = {name: -count for name, count in event.classes.items()}
                steps[random.randint(place, last)].append(event._replace(classes=negative))
        return steps

    def _description(self, devices: Sequence[Device], *, begin_ms: int, place: int) -> str | None:
        random = self._random
        if random.random() < (0.2 if place == 0 else 0.5):
            return None
        later = random.choice((0, 0, 0, 1) if place == 0 else (1, 1, 2)) * INTERVAL_MS
        if begin_ms + later in self._versions_ms:
            return None
        self._versions_ms.add(begin_ms + later)
        start = datetime.fromtimestamp((begin_ms + later) // 1000, UTC)
        lines = [
            "format = 1",
            f"from = {start:%Y-%m-%dT%H:%M:%SZ}",
            "[sites.oslo]",
            "contracted_watts = 100_000",
        ]
        for pool in self._pools:
            boards = {it.device for it in devices if it.device.startswith(f"GPU-{pool}-")}
            lines += self._pool_lines(pool, sorted(boards))
        for hardware, model in _FOR:
            if random.random() < 0.5:
                lines += self._weight_lines(hardware, model)
        return "\n".join(lines) + "\n"

    def _pool_lines(self, pool: str, names: Sequence[str]) -> list[str]:
        random = self._random
        lines = [f"[pools.{pool}]", 'site = "oslo"', f'hardware = "{random.choice(("A", "B"))}"']
        if random.random() < 0.6:
            lines.append(f'idle_watts = "{random.choice(("0", "50", "75.5", "33.333", "900"))}"')
            lines.append(f'idle = "{random.choice(("unattributed", "proportional"))}"')
        if random.random() < 0.4:
            listed = random.sample(names, k=random.randint(1, len(names)))
            # A list of strings is the same in TOML as in JSON.
            lines.append(f"devices = {json.dumps(listed)}")
        elif random.random() < 0.4:
            lines.append(f"device_count = {random.choice((1, len(names), len(names) + 1))}")
        return lines

    def _weight_lines(self, hardware: str, model: str) -> list[str]:
        random = self._random
        lines = ["[[weights]]"]
        lines += [f'hardware = "{hardware}"'] if hardware else []
        lines += [f'model = "{model}"'] if model else []
        lines.append(f'input = "{random.choice(("0", "0.08", "1", "1"))}"')
        lines.append(f'cached_input = "{random.choice(("0", "0.003125"))}"')
        lines.append(f'output = "{random.choice(("1", "2.5", "10"))}"')
        return lines


def _take(rounds: list[list[Reading]], *, until_ms: int | None) -> list[list[Reading]]:
    """Take the rounds that have been read by a time off the list, or all of them."""
    count = 0
    while count < len(rounds) and (
        until_ms is None or min(it.time_ms for it in rounds[count]) <= until_ms
    ):
        count += 1
    taken = rounds[:count]
    del rounds[:count]
    return taken


def _reading(device: Device, time_ms: int, counter_mj: int) -> Reading:
    own = (device.boundary, device.name, device.device)
    return Reading(*own, time_ms, counter_mj, device.range_mj, device.source)


def _drawn_mj(watts: Sequence[int], passed_ms: int) -> int:
    """Return the energy of so many ms: a watt is a millijoule a millisecond."""
    minute, rest_ms = divmod(passed_ms, _MINUTE_MS)
    return sum(watts[:minute]) * _MINUTE_MS + watts[minute] * rest_ms
