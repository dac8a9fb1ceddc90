"""A world out of a seed: what may happen happens, then all heals, and the sums have to be right.

Truth is what the producers recorded, noted before anything was sent. In the end each event lies in
the journal once, or in quarantine, or is excused: by a crash before it was on disk, a drop because
the spool was full, a spool that was deleted. Nothing lies in the journal twice, ever.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from meter.domain.outcome import Outcome
from tests.simulation.disk import SimulatedFolder
from tests.simulation.meter import Connection, SimulatedMeter
from tests.simulation.producer import SimulatedProducer
from tests.simulation.store import SimulatedStore
from tokenworks.client.spool import Fsync, SpoolOptions, SpoolUnusable
from tokenworks.meter.v1.meter_service_pb2 import StreamUsageRequest

_STEPS = 80
_RUNNING_MAX = 4
# A spool above this keeps all that a world brings.
_ALL_BYTES_MAX = 50_000
_HEALING_STEPS_MAX = 4_000


class Broken(AssertionError):
    """A sum is wrong; the seed is in the message."""


@dataclass(slots=True, eq=False)
class _Home:
    """Where a producer lives: its folder stays when the process goes."""

    name: str
    folder: SimulatedFolder | None
    process: SimulatedProducer | None = None
    truth: set[bytes] = field(default_factory=set)
    """What was recorded here, or in the folder that this one is a copy of."""
    is_copy: bool = False


class World:
    """Producers, a meter, its store, and what may happen to them."""

    def __init__(self, seed: int, *, reached: Counter[str]) -> None:
        """Make the world of a seed."""
        self.seed = seed
        self._reached = reached
        self._random = random = Random(seed)
        self._now = 0.0
        self._keys = [0]
        self._truth: set[bytes] = set()
        self._excused: set[bytes] = set()
        self._ambiguous: set[bytes] = set()
        self._rolled_back: set[bytes] = set()
        self._has_copies = self._has_failed = self._has_rolled_back = False
        self._connections: list[Connection] = []
        self._has_standby = random.random() < 0.5
        self._store = SimulatedStore(random, reached=reached)
        self._meter = SimulatedMeter(
            self._store, random, standby=self._has_standby, reached=reached
        )
        self._options = SpoolOptions(
            fsync=random.choice([Fsync.BATCH, Fsync.BATCH, Fsync.NEVER]),
            bytes_max=random.choice([4_000, 100_000]),
            retain_bytes=random.choice([0, 100_000]),
            segment_bytes_max=random.choice([300, 600]),
        )
        self._keeps_all = min(self._options.retain_bytes, self._options.bytes_max) > _ALL_BYTES_MAX
        names = [f"p{number}" for number in range(random.randint(1, 3))]
        self._homes = [
            _Home(
                name,
                None if random.random() < 0.25 else SimulatedFolder(random, reached=reached),
            )
            for name in names
        ]
        self._events = self._draw_events()

    def run(self) -> None:
        """Live through it; raises Broken."""
        for _ in range(_STEPS):
            self._step()
        self._heal()
        self._check()

    def _draw_events(self) -> list[tuple[Callable[[], None], float]]:
        """Choose what happens in this world and how often: rare things are common in some."""
        random = self._random
        faults: list[tuple[Callable[[], None], float]] = [
            (self._crash_meter, 0.02),
            (self._crash_producer, 0.03),
            (self._lose_power, 0.02),
            (self._cut, 0.04),
            (self._toggle_store, 0.03),
            (self._toggle_disk, 0.03),
            (self._roll_back, 0.015),
            (self._clone, 0.01),
            (self._delete_spool, 0.003),
            (self._swap, 0.01),
        ]
        return [(act, chance * random.choice([0, 0, 2, 4])) for act, chance in faults]

    def _step(self) -> None:
        random = self._random
        self._now += random.choice([0.05, 0.1, 0.3, 1.0])
        for act, chance in self._events:
            if random.random() < chance:
                act()
        for home in self._homes:
            if home.process is None and random.random() < 0.5:
                self._start(home)
            if home.process is not None:
                self._report(home.process)
        self._pass_messages()
        if random.random() < 0.3:
            self._meter.mark()
        if random.random() < 0.3:
            self._meter.look()
        if self._has_standby and random.random() < 0.3:
            behind = self._store.commit_number - self._meter.standby_position
            self._meter.standby_position += random.randint(0, max(behind, 0))
        if random.random() < 0.5:
            self._meter.look_at_standby()

    def _report(self, process: SimulatedProducer) -> None:
        random = self._random
        for _ in range(random.choice([0, 0, 1, 2])):
            process.record()
        if random.random() < 0.05 and len(process.running) < _RUNNING_MAX:
            process.begin()
        if random.random() < 0.05:
            process.finish()

    def _pass_messages(self) -> None:
        """Let everybody act, and deliver some of what is under way."""
        random = self._random
        for process in self._processes():
            process.advance(self._now)
            if process.is_connecting and process.connection is not None:
                process.is_connecting = False
                self._connections.append(process.connection)
                self._meter.connections.append(process.connection)
        random.shuffle(self._connections)
        for connection in self._connections:
            for _ in range(random.randint(0, 4)):
                if connection.to_meter and connection.is_open:
                    self._meter.read(connection)
        if random.random() < 0.7:
            self._meter.commit()
        for process in self._processes():
            for _ in range(random.randint(0, 4)):
                process.hear(self._now)
        self._connections = [each for each in self._connections if each.is_open]
        self._meter.connections = [each for each in self._meter.connections if each.is_open]

    def _processes(self) -> list[SimulatedProducer]:
        return [home.process for home in self._homes if home.process is not None]

    def _start(self, home: _Home) -> None:
        try:
            home.process = SimulatedProducer(
                home.name,
                folder=home.folder,
                options=self._options,
                random=self._random,
                now=self._now,
                keys=self._keys,
                reached=self._reached,
            )
        except SpoolUnusable:
            self._reached["spools unusable for now"] += 1
            return
        if home.is_copy:
            # What ran when the copy was made is finished by one and found unfinished by the other.
            self._ambiguous |= home.process.recovered

    def _end(self, home: _Home, excused: set[bytes]) -> None:
        assert home.process is not None
        if home.process.is_forked:
            # It holds what only a person can decide about.
            excused = {*excused, *home.process.truth, *home.truth}
        self._truth.update(home.process.truth)
        home.truth.update(home.process.truth)
        self._excused |= excused | home.process.dropped
        home.process = None

    def _any_home(self) -> _Home | None:
        living = [home for home in self._homes if home.process is not None]
        return self._random.choice(living) if living else None

    def _crash_meter(self) -> None:
        self._meter.crash()

    def _crash_producer(self) -> None:
        home = self._any_home()
        if home is not None and home.process is not None:
            self._reached["producer crashes"] += 1
            self._end(home, home.process.die())

    def _lose_power(self) -> None:
        home = self._any_home()
        if home is not None and home.process is not None:
            self._reached["power losses"] += 1
            process = home.process
            self._end(home, process.die())
            if home.folder is not None:
                home.folder.lose_power()
                if self._options.fsync is Fsync.NEVER:
                    self._excuse_all_of(home)

    def _excuse_all_of(self, home: _Home) -> None:
        """Excuse what a folder may have held: nobody keeps it any more."""
        self._excused |= home.truth

    def _cut(self) -> None:
        if self._connections:
            self._reached["connections cut"] += 1
            connection = self._random.choice(self._connections)
            if self._random.random() < 0.5:
                connection.to_producer.clear()
            connection.end()

    def _swap(self) -> None:
        """Exchange two messages under way, as no transport should."""
        longer = [each for each in self._connections if len(each.to_meter) > 2]
        if longer:
            self._reached["messages swapped"] += 1
            pipe = self._random.choice(longer).to_meter
            pipe[-1], pipe[-2] = pipe[-2], pipe[-1]

    def _toggle_store(self) -> None:
        self._store.fault_chance = 0.0 if self._store.fault_chance else 0.4

    def _toggle_disk(self) -> None:
        folders = [home.folder for home in self._homes if home.folder is not None]
        if folders:
            self._has_failed = True
            folder = self._random.choice(folders)
            if self._random.random() < 0.5:
                folder.is_full = not folder.is_full
                # A full disk takes what is kept only for a database that may be restored.
                self._keeps_all = False
            else:
                folder.fault_chance = 0.0 if folder.fault_chance else 0.2

    def _roll_back(self) -> None:
        """Restore the database, or promote the standby, which has all that is called durable."""
        store = self._store
        self._has_rolled_back = True
        before, aside = self._recorded(), self._set_aside()
        commits_max = 20
        if self._has_standby:
            commits_max = store.commit_number - self._meter.standby_position
        store.roll_back(commits_max=commits_max)
        self._meter.line += 1
        self._meter.standby_position = store.commit_number
        # Copies are told apart by what is kept of either: not while the database forgets it.
        self._excused |= aside - self._set_aside()
        lost = before - self._recorded()
        if not self._has_standby:
            safe = {event for process in self._processes() for event in process.safe}
            self._excused |= lost - safe - self._spooled
            self._rolled_back |= lost

    def _recorded(self) -> set[bytes]:
        """Return what the database has, counted or kept aside."""
        return {*self._store.counted(), *self._set_aside()}

    def _set_aside(self) -> set[bytes]:
        kept = (item.payload for _, item in self._store.contents.set_aside)
        return {event for raw in kept for event in _event_ids(raw)}

    @property
    def _spooled(self) -> set[bytes]:
        """Events of processes that are gone and that were on disk."""
        return self._truth - self._excused

    def _clone(self) -> None:
        """Start a copy of a producer from a copy of its folder; both go on for a while."""
        home = self._any_home()
        if home is None or home.folder is None or len(self._homes) > 4:
            return
        assert home.process is not None
        if home.process.hold.offset is None or self._options.fsync is Fsync.NEVER:
            # Copies of what was never sent, or not on disk first, cannot be told apart.
            return
        self._reached["clones"] += 1
        self._has_copies = True
        copied = {*home.truth, *home.process.truth}
        self._homes.append(_Home(home.name, home.folder.copied(), truth=copied, is_copy=True))

    def _delete_spool(self) -> None:
        homes = [home for home in self._homes if home.process is None and home.folder is not None]
        if homes:
            self._reached["spools deleted"] += 1
            home = self._random.choice(homes)
            self._excuse_all_of(home)
            home.folder = SimulatedFolder(self._random, reached=self._reached)

    def _heal(self) -> None:
        """Mend everything; then every producer in turn sends what it has, clones one by one."""
        self._store.fault_chance = 0.0
        self._events = []
        for home in self._homes:
            if home.folder is not None:
                home.folder.is_full, home.folder.fault_chance = False, 0.0
            if home.process is not None:
                home.process.finish_all()
        self._settle()
        self._close_all()
        for _ in range(2):
            for home in self._homes:
                if home.folder is not None:
                    self._start(home)
                    self._settle()
                    self._close_all()

    def _close_all(self) -> None:
        for home in self._homes:
            if home.process is not None:
                self._end(home, home.process.close())

    def _settle(self) -> None:
        """Run until nobody has anything left to send."""
        for _ in range(_HEALING_STEPS_MAX):
            if all(each.is_drained or each.session.is_stopped for each in self._processes()):
                return
            self._now += 0.3
            self._pass_messages()
            self._meter.mark()
            self._meter.look()
            if self._has_standby:
                self._meter.standby_position = self._store.commit_number
                self._meter.look_at_standby()
        states = [
            (
                each.name,
                each.session.state.value,
                each.hold.held_event_count,
                each.hold.first,
                each.hold.next,
                each.hold.released,
                each.hold.offset,
            )
            for each in self._processes()
        ]
        raise Broken(f"seed {self.seed}: not drained: {states}")

    def _check(self) -> None:
        counted = self._store.counted()
        doubled = {event for event, count in counted.items() if count > 1} - self._ambiguous
        if doubled:
            raise Broken(f"seed {self.seed}: {len(doubled)} events counted more than once")
        doubtful, changed = set[bytes](), set[bytes]()
        for _, item in self._store.contents.set_aside:
            is_doubtful = item.outcome == Outcome.BATCH_DOUBTFUL
            (doubtful if is_doubtful else changed).update(_event_ids(item.payload))
        kept = doubtful | changed
        # What is doubtful may well be counted: a person looks before releasing it.
        # A copy whose disk failed may find numbers of its own on it after all; and what was once
        # doubtful differs from the same batch without that mark.
        is_expected = bool(doubtful) or (self._has_copies and self._has_failed)
        if (changed & counted.keys()) - self._ambiguous and not is_expected:
            raise Broken(f"seed {self.seed}: {len(changed & counted.keys())} kept and counted")
        lost = self._truth - counted.keys() - kept
        if not self._keeps_all:
            self._excused |= self._rolled_back
        if self._has_copies and self._has_rolled_back:
            # Copies that took turns around a restored database cannot all be told apart: what one
            # of them has may be taken for the other's. Nothing counts twice all the same.
            self._reached["worlds held to doubles alone"] += 1
            self._excused |= self._truth
        self._reached["events"] += len(self._truth)
        self._reached["events excused"] += len(lost)
        if lost - self._excused:
            raise Broken(f"seed {self.seed}: {len(lost - self._excused)} events lost")
        if counted.keys() - self._truth:
            raise Broken(f"seed {self.seed}: events that nobody recorded")


def _event_ids(raw: bytes) -> list[bytes]:
    ids = StreamUsageRequest.FromString(raw).batch.columns.event_ids
    return [ids[place : place + 16] for place in range(0, len(ids), 16)]
