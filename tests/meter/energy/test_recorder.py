"""The recorder with a real database and exporters over real HTTP: whatever these do, it goes on."""

import pytest
from sqlalchemy import Engine, event

from meter.domain.errors import Unavailable
from meter.domain.interval import INTERVAL_MS
from meter.energy.live import Served
from meter.energy.sources.port import SourceFailure
from meter.energy.validity import PowerFault
from meter.store.facts import FactStore
from tests.exporter import NEW_NAME, Exporter, running_exporter, sample, saying
from tests.meter.energy.hall import SCRAPE_MS, Hall, TickingClock, hall_of, measured_mj
from tests.meter.plain_events import BEGIN_MS
from tests.meter.store.attributed import faults_of
from tests.meter.store.pooled import serve, shares_of
from tests.meter.store.recording import (
    ask,
    counting_of,
    end_connections,
    follow,
    owner,
)


def test_read__energy_between_two_reads(hall: Hall, exporter: Exporter, engine: Engine) -> None:
    """The first read says where counters stand; from then on what they gain is energy."""
    hall.read_after(0)
    assert measured_mj(engine) == 0
    exporter.boards["GPU-1"] += 700 * SCRAPE_MS
    hall.read_after(SCRAPE_MS)
    assert measured_mj(engine) == 700 * SCRAPE_MS
    assert hall.show("energy_joules_total", pool="h100", source="dcgm") == 10_500
    assert hall.show("power_valid", pool="h100") == 1
    last_seconds = hall.show("energy_last_sample_timestamp_seconds", pool="h100")
    assert last_seconds == (BEGIN_MS + SCRAPE_MS) / 1000


def test_read__by_what_other_servers_counted(hall: Hall, exporter: Exporter) -> None:
    """Energy that this server reads is shared out by the tokens of all servers."""
    hall.read_after(0)
    hall.serve(30, tier="high")
    hall.elsewhere = [Served(pool="h100", tier="free", model="m", output_tokens=10)]
    exporter.boards["GPU-1"] += 400 * SCRAPE_MS
    hall.read_after(SCRAPE_MS)
    shown = [hall.show("energy_attributed_joules_total", tier=it) for it in ("high", "free")]
    assert shown == [4_500, 1_500]


def test_read__exporter_vanishes_and_comes_back(
    hall: Hall, exporter: Exporter, engine: Engine
) -> None:
    """While it is away power is not valid; when it is back its energy is there, as a gap."""
    hall.read_after(0)
    exporter.vanish()
    for _ in range(5):
        hall.read_after(SCRAPE_MS)
    assert hall.failures == [SourceFailure.UNREACHABLE]
    assert hall.show("energy_scrapes_failed_total", reason="unreachable") == 5
    assert hall.show("power_valid", pool="h100") == 0
    exporter.open()
    exporter.boards["GPU-1"] += 90_000
    hall.read_after(SCRAPE_MS)
    assert hall.failures == [None]
    assert hall.show("power_valid", pool="h100") == 1
    assert hall.show("energy_gap_seconds_total") == 90
    assert hall.show("energy_unattributed_joules_total", reason="gap") == 90
    assert measured_mj(engine) == 90_000


def test_read__counters_begin_anew(hall: Hall, exporter: Exporter, engine: Engine) -> None:
    """A driver that was loaded anew loses nothing but what was used before it, and is noted."""
    hall.read_after(0)
    exporter.boards["GPU-1"] = 2_500
    hall.read_after(SCRAPE_MS)
    assert hall.show("energy_counter_resets_total", pool="h100") == 1
    assert measured_mj(engine) == 2_500


def test_read__board_in_parts_counts_once(hall: Hall, exporter: Exporter, engine: Engine) -> None:
    """A board that repeats its counter for each of its parts (MIG) is measured once."""
    for value in (1_000_000, 1_007_000):
        parts = [sample("GPU-1", value, part=str(part)) for part in range(7)]
        exporter.answer = saying("\n".join(parts))
        hall.read_after(SCRAPE_MS)
    assert measured_mj(engine) == 7_000
    (state,) = hall.recorder.source_states()
    assert state.device_count == 1


@pytest.mark.parametrize(
    ("page", "failure"),
    [
        ("<html>Sign in</html>", SourceFailure.NO_COUNTERS),
        (b"\xff", SourceFailure.UNREADABLE),
        (sample("GPU-1", "NaN"), SourceFailure.UNREADABLE),
        (sample("GPU-1", "-5"), SourceFailure.UNREADABLE),
        (sample("GPU-1", 9223372036854775794), SourceFailure.UNREADABLE),
    ],
)
def test_read__garbage_is_counted_and_harms_nothing(
    *, hall: Hall, exporter: Exporter, engine: Engine, page: str | bytes, failure: SourceFailure
) -> None:
    """What makes no sense is counted by what it is; no energy comes of it and none is lost."""
    hall.read_after(0)
    exporter.answer = saying(page)
    hall.read_after(SCRAPE_MS)
    assert hall.failures == [failure]
    assert hall.show("energy_scrapes_failed_total", reason=failure) == 1
    assert measured_mj(engine) == 0
    exporter.answer = None
    exporter.boards["GPU-1"] += 123
    hall.read_after(SCRAPE_MS)
    assert measured_mj(engine) == 123
    assert hall.show("energy_counter_resets_total") == 0


def test_read__counter_of_something_else(hall: Hall, exporter: Exporter, engine: Engine) -> None:
    """A leap that no board can have used is no energy, there and back, and its time is a gap."""
    lifetime_mj = 10**12
    for value in (lifetime_mj, 10**15, lifetime_mj + 300, lifetime_mj + 400):
        exporter.boards["GPU-1"] = value
        hall.read_after(SCRAPE_MS)
    assert hall.show("energy_counter_resets_total") == 2
    assert hall.show("energy_gap_seconds_total") == 30
    assert measured_mj(engine) == 100


def test_read__one_exporter_harms_no_other(engine: Engine, exporter: Exporter) -> None:
    """Two nodes of a pool: while one is away the other is measured, and power is not valid."""
    with running_exporter() as other, hall_of(engine, exporter, other) as hall:
        other.boards["GPU-2"] = 5
        hall.read_after(0)
        other.vanish()
        for _ in range(5):
            exporter.boards["GPU-1"] += 100
            hall.read_after(SCRAPE_MS)
        assert hall.failures == [None, SourceFailure.UNREACHABLE]
        assert measured_mj(engine) == 500
        assert hall.show("power_valid", pool="h100") == 0
        assert [it.device for it in hall.recorder.silent()] == ["GPU-2"]
        assert hall.power().faults == (PowerFault.STALE,)


def test_read__two_exporters_of_one_board(engine: Engine, exporter: Exporter) -> None:
    """A board that two exporters see, one of them a moment behind, is measured once."""
    clock = TickingClock(BEGIN_MS)
    with running_exporter() as other, hall_of(engine, exporter, other, clock=clock) as hall:
        for value in (10**6, 10**6 + 700, 10**6 + 1_500):
            exporter.boards["GPU-1"], other.boards["GPU-1"] = value, value - 300
            hall.read_after(SCRAPE_MS)
        assert measured_mj(engine) == 1_500
        assert hall.show("energy_counter_resets_total") == 0


def test_read__mixed_fleet_is_the_ground_truth(engine: Engine) -> None:
    """Old and new names, in mJ and J, in parts and by two exporters: each board once, as it is."""
    truth = {f"GPU-{number}": number * 10**9 for number in range(1, 5)}
    with (
        running_exporter() as old,
        running_exporter() as new,
        hall_of(engine, old, new) as hall,
    ):
        for step in range(4):
            joules = {device: value // 1_000 for device, value in truth.items()}
            parts = [sample("GPU-1", truth["GPU-1"], part=str(part)) for part in range(7)]
            old.answer = saying("\n".join([*parts, sample("GPU-2", truth["GPU-2"])]))
            lines = [sample(device, joules[device], name=NEW_NAME) for device in truth]
            hosts = [line.replace('Hostname="node-1"', 'hostname="rack"') for line in lines[1:]]
            new.answer = saying("\n".join(hosts))
            hall.read_after(SCRAPE_MS)
            if step < 3:
                truth = {
                    device: value + (500_000 + step * 1_000) * place
                    for place, (device, value) in enumerate(truth.items(), start=1)
                }
        assert measured_mj(engine) == 10 * (3 * 500_000 + 3_000)
        assert hall.power().device_count == 4
        assert hall.power().is_valid


def test_read__database_away_loses_no_energy(
    hall: Hall, exporter: Exporter, engine: Engine, database_url: str
) -> None:
    """What cannot be recorded is not lost: the counters keep it until the next read."""
    hall.read_after(0)

    def lose(*_: object) -> None:
        end_connections(database_url)

    exporter.boards["GPU-1"] += 100
    event.listen(engine, "before_cursor_execute", lose)
    with pytest.raises(Unavailable):
        hall.read_after(SCRAPE_MS)
    event.remove(engine, "before_cursor_execute", lose)
    exporter.boards["GPU-1"] += 11
    hall.read_after(SCRAPE_MS)
    assert measured_mj(engine) == 111
    assert hall.show("energy_joules_total") == 0.111


def test_read__at_edges_alone_is_no_gap(
    engine: Engine, exporter: Exporter, database_url: str
) -> None:
    """Where the clock is driven from edge to edge, a read at each is all that is expected."""
    with hall_of(engine, exporter, cadence_ms=INTERVAL_MS) as hall:
        hall.read_after(0)
        for _ in range(4):
            exporter.boards["GPU-1"] += 700 * INTERVAL_MS
            hall.read_after(INTERVAL_MS)
        assert hall.show("power_valid", pool="h100") == 1
        assert hall.show("energy_gap_seconds_total") == 0
        assert hall.show("energy_unattributed_joules_total", reason="no_tokens") == 4 * 630_000
        question = "SELECT measured_mj, gap_mj FROM energy_intervals"
        assert ask(database_url, question) == [(630_000_000, 0)] * 4
        hall.recorder.attribute_due()
    assert faults_of(database_url) == {("h100", place): "" for place in range(4)}


def test_attribute__meter_that_begins_amid_an_interval(
    engine: Engine, exporter: Exporter, database_url: str
) -> None:
    """What was seen of an interval in part gives no ratio, however many boards there are."""
    exporter.boards["GPU-2"] = 1_000_000
    with hall_of(engine, exporter, cadence_ms=INTERVAL_MS) as hall:
        for passed_ms in (INTERVAL_MS // 2, INTERVAL_MS // 2, INTERVAL_MS):
            hall.read_after(passed_ms)
            for board in exporter.boards:
                exporter.boards[board] += 1_000
        hall.recorder.attribute_due()
    assert faults_of(database_url) == {("h100", 0): "stale", ("h100", 1): ""}


def test_attribute__once_counted_past_the_end(
    hall: Hall, exporter: Exporter, engine: Engine, database_url: str
) -> None:
    """An interval is attributed when it has ended and what was recorded until then is counted."""
    journal, usage = owner(engine), counting_of(engine)
    hall.recorder.attribute_due()
    assert hall.recorder.attributed_until_ms == BEGIN_MS
    hall.read_after(0)
    exporter.boards["GPU-1"] += 10_000
    hall.read_after(60_000)
    serve(journal, 0, output=5)
    hall.recorder.attribute_due()
    assert shares_of(database_url) == {}
    # It has ended, but not all of it is counted.
    hall.clock.now = BEGIN_MS + INTERVAL_MS
    hall.recorder.attribute_due()
    hall.recorder.attribute_due()
    assert hall.recorder.attributed_until_ms == BEGIN_MS
    assert shares_of(database_url) == {}
    follow(usage).count_once()
    hall.recorder.attribute_due()
    hall.recorder.attribute_due()
    assert hall.recorder.attributed_until_ms == BEGIN_MS + INTERVAL_MS
    assert shares_of(database_url) == {("h100", "free"): 10_000}


def test_attribute__goes_on_while_there_is_always_more_to_count(hall: Hall, engine: Engine) -> None:
    """Under load something is always uncounted: what counts is what had been recorded by then."""
    journal, usage = owner(engine), counting_of(engine)
    serve(journal, 0, output=1)
    hall.recorder.attribute_due()
    for place in range(1, 4):
        with usage.counting() as step:
            step.read(events_max=1)
            step.advance()
        serve(journal, 0, output=1)
        hall.clock.now = BEGIN_MS + place * INTERVAL_MS
        hall.recorder.attribute_due()
    assert hall.recorder.attributed_until_ms == BEGIN_MS + 2 * INTERVAL_MS
    assert not FactStore(engine).is_counted(FactStore(engine).recorded_up_to())


def test_forget__after_a_week_of_silence(hall: Hall, engine: Engine, database_url: str) -> None:
    """A counter that was silent for a week is forgotten, and begins anew when it comes back."""
    hall.read_after(0)
    hall.clock.now += 7 * 24 * 3_600_000
    hall.recorder.forget()
    assert len(ask(database_url, "SELECT * FROM energy_counters")) == 1
    hall.clock.now += 1
    hall.recorder.forget()
    assert ask(database_url, "SELECT * FROM energy_counters") == []
    assert measured_mj(engine) == 0
