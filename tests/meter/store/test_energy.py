"""Energy on a real Postgres: taken once, whoever else takes it at the same time."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from psycopg import errors
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import ProgrammingError

from meter.domain.boundary import Boundary
from meter.domain.errors import StoreRefusal, Unavailable
from meter.energy.counters import Bounds, Estimate, Reading, Source
from meter.store.energy import EnergyStore
from meter.store.factories import FactoryStore
from tests.meter.plain_events import BEGIN_MS
from tests.meter.store.pooled import BOUNDS, GAP_MS, read, reading
from tests.meter.store.recording import (
    WAIT_SECONDS_MAX,
    administrator,
    ask,
    ask_one,
    end_connections,
    wait_for_lock,
)

MEASURED = "SELECT coalesce(sum(measured_mj), 0)::bigint FROM energy_intervals"
STATE = "SELECT device, counter_mj, source FROM energy_counters ORDER BY device"
ROUND = [reading(500, time_ms=BEGIN_MS + 60_000), reading(70, time_ms=BEGIN_MS, device="GPU-2")]


def store_of(engine: Engine) -> EnergyStore:
    """Return a store, as a server has it."""
    return EnergyStore(engine, factories=FactoryStore(engine))


@pytest.fixture
def energy(engine: Engine) -> EnergyStore:
    """Records energy."""
    return store_of(engine)


def test_record__a_restart_goes_on(energy: EnergyStore, engine: Engine, database_url: str) -> None:
    """What a counter showed is known after a restart; the same readings again add nothing."""
    read(energy, reading(100))
    read(energy, *ROUND)
    again = store_of(engine)
    assert read(again, *ROUND, *ROUND).advance_count == 0
    assert ask_one(database_url, MEASURED) == 400
    assert read(again, reading(650, time_ms=BEGIN_MS + 90_000)).advance_count == 1
    assert ask_one(database_url, MEASURED) == 550
    assert ask(database_url, STATE) == [("GPU-1", 650, "dcgm"), ("GPU-2", 70, "dcgm")]


def test_record__says_who_read_it(energy: EnergyStore, database_url: str) -> None:
    """A device that nobody reads any more is of whoever reads it, and counts on its own."""
    read(energy, reading(100))
    for time_ms, advance_count in ((GAP_MS, 0), (GAP_MS + 1, 1)):
        later = reading(150, time_ms=BEGIN_MS + time_ms)
        done = energy.record([later], source=Source.REPORTED, bounds=BOUNDS)
        assert (done.advance_count, len(done.conflicts)) == (advance_count, 1 - advance_count)
    assert ask(database_url, STATE) == [("GPU-1", 150, "reported")]
    assert ask_one(database_url, MEASURED) == 0


def test_record__places_are_apart(energy: EnergyStore, database_url: str) -> None:
    """Boards, hosts and sites have sums of their own; only pools are attributed anew."""
    for boundary in Boundary:
        for step in range(2):
            each = Reading(
                boundary=boundary,
                name="oslo",
                device=boundary.value,
                time_ms=BEGIN_MS + step * 60_000,
                counter_mj=step * 10,
                range_mj=100,
            )
            energy.record([each], source=Source.REPORTED, bounds=BOUNDS)
    question = "SELECT boundary, name, measured_mj, covered_ms FROM energy_intervals ORDER BY 1"
    assert ask(database_url, question) == [
        (boundary, "oslo", 10, 60_000) for boundary in ("board", "facility", "host")
    ]
    assert ask(database_url, "SELECT pool, version FROM pool_intervals") == [("oslo", 2)]


def test_record__all_that_is_known_of_an_interval(energy: EnergyStore, database_url: str) -> None:
    """Each sum of an interval grows by what a round adds to it."""
    gap_ms = GAP_MS // 4

    def estimate(since_ms: int) -> Estimate:
        return Estimate(
            name="h100",
            device="GPU-2",
            since_ms=BEGIN_MS + since_ms,
            time_ms=BEGIN_MS + since_ms + 10_000,
            energy_mj=7,
        )

    bounds = Bounds(watts_max=BOUNDS.watts_max, gaps_ms=dict.fromkeys(Source, gap_ms - 1))
    rounds: list[list[Reading | Estimate]] = [
        [reading(0)],
        [reading(100, time_ms=BEGIN_MS + 60_000), estimate(0)],
        [reading(3, time_ms=BEGIN_MS + 70_000), estimate(20_000)],
    ]
    for each in rounds:
        energy.record(each, source=Source.NVML, bounds=bounds)
    columns = "measured_mj, estimated_mj, gap_mj, unmapped_mj, covered_ms, gap_ms, reset_count"
    question = f"SELECT {columns} FROM energy_intervals"
    assert ask(database_url, question) == [(117, 14, 0, 0, 90_000, 10_000, 1)]


class CrashedError(Exception):
    """Stands for a process that ends."""


@pytest.mark.parametrize(
    "after",
    [
        "SELECT device",
        "UPDATE energy_counters",
        "INSERT INTO energy_counters",
        "INSERT INTO energy_intervals",
        "INSERT INTO pool_intervals",
    ],
)
def test_record__crash_between_statements_adds_once(
    energy: EnergyStore, engine: Engine, database_url: str, after: str
) -> None:
    """Whichever statement was the last before a crash, the same round again adds it once."""
    read(energy, reading(100))

    def crash(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.strip().startswith(after):
            raise CrashedError

    event.listen(engine, "after_cursor_execute", crash)
    with pytest.raises(CrashedError):
        read(energy, *ROUND)
    event.remove(engine, "after_cursor_execute", crash)
    assert ask(database_url, STATE) == [("GPU-1", 100, "dcgm")]
    assert ask_one(database_url, MEASURED) == 0
    assert read(energy, *ROUND).advance_count == 2
    assert ask_one(database_url, MEASURED) == 400


def test_record__database_away(energy: EnergyStore, engine: Engine, database_url: str) -> None:
    """A lost connection is said to be one, and the next round brings the energy."""
    read(energy, reading(100))

    def lose(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.strip().startswith("UPDATE energy_counters"):
            end_connections(database_url)

    event.listen(engine, "after_cursor_execute", lose)
    with pytest.raises(Unavailable):
        read(energy, *ROUND)
    event.remove(engine, "after_cursor_execute", lose)
    read(energy, reading(900, time_ms=BEGIN_MS + 120_000))
    assert ask_one(database_url, MEASURED) == 800


def test_record__what_the_database_refuses_is_said(energy: EnergyStore, database_url: str) -> None:
    """A fault of the database has a name, and ends nothing but the round."""
    with administrator(database_url) as connection:
        connection.execute("ALTER TABLE energy_counters RENAME TO elsewhere")
        with pytest.raises(StoreRefusal):
            read(energy, reading(100))
        connection.execute("ALTER TABLE elsewhere RENAME TO energy_counters")
    assert read(energy, reading(100)).advance_count == 1


def test_record__two_servers_at_once_count_once(engine: Engine, database_url: str) -> None:
    """Two servers that read the same devices, new ones too, at once: each energy is in it once."""
    stores = [store_of(engine), store_of(engine)]
    together = Barrier(2)
    devices = [f"GPU-{number}" for number in range(20)]

    def work(store: EnergyStore) -> None:
        for step in range(10):
            together.wait(WAIT_SECONDS_MAX)
            time_ms = BEGIN_MS + step * 60_000
            read(store, *(reading(step * 7, time_ms=time_ms, device=name) for name in devices))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, stores))
    assert ask_one(database_url, MEASURED) == 20 * 9 * 7


def test_record__device_that_another_server_just_met(
    energy: EnergyStore, database_url: str
) -> None:
    """A device that another server wrote first, in between, is read again from what that wrote."""
    with administrator(database_url) as other, ThreadPoolExecutor(1) as pool:
        with other.transaction():
            other.execute(
                "INSERT INTO energy_counters (device, name, source, counter_mj, sample_time)"
                " VALUES ('GPU-1', 'h100', 'dcgm', 100, to_timestamp(%s))",
                (BEGIN_MS / 1000,),
            )
            waiting = pool.submit(read, energy, reading(150, time_ms=BEGIN_MS + 60_000))
            wait_for_lock(database_url)
        assert waiting.result(WAIT_SECONDS_MAX).advance_count == 1
    assert ask_one(database_url, MEASURED) == 50


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE energy_shares SET energy_mj = 1",
        "DELETE FROM energy_shares",
        "DELETE FROM energy_intervals",
        "DELETE FROM pool_intervals",
        "DELETE FROM pool_usage",
        "TRUNCATE energy_counters",
    ],
)
def test_role__service_cannot_undo_energy(engine: Engine, statement: str) -> None:
    """The service's own role may not change what was attributed, nor delete what was measured."""
    with pytest.raises(ProgrammingError) as failure, engine.begin() as connection:
        connection.execute(text(statement))
    assert isinstance(failure.value.orig, errors.InsufficientPrivilege)


def test_forget_counters__only_what_is_silent_for_long(
    energy: EnergyStore, database_url: str
) -> None:
    """A counter that has not moved for too long is forgotten; its energy stays."""
    read(energy, reading(0), reading(5, time_ms=BEGIN_MS + 1))
    read(energy, reading(7, time_ms=BEGIN_MS + 2, device="GPU-2"))
    energy.forget_counters(before_ms=BEGIN_MS + 2)
    assert ask(database_url, STATE) == [("GPU-2", 7, "dcgm")]
    assert ask_one(database_url, MEASURED) == 5
