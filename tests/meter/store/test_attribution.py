"""Attribution on a real Postgres: shared out to the last millijoule, never rewritten."""

from concurrent.futures import Future, ThreadPoolExecutor
from random import Random

import psycopg
import pytest
from sqlalchemy import Engine, event

from meter.domain.boundary import Boundary
from meter.domain.errors import Refused, StoreRefusal
from meter.domain.interval import INTERVAL_MS
from meter.store.attribution import AttributionStore
from meter.store.factories import FactoryStore
from meter.store.journal import JournalStore
from meter.store.usage import UsageStore
from tests.meter.plain_events import BEGIN_MS
from tests.meter.store.attributed import attribute_all, describe, faults_of, put_energy, shares_of
from tests.meter.store.pooled import SERVED, serve
from tests.meter.store.recording import WAIT_SECONDS_MAX, ask, ask_one, follow, wait_for_lock

NEXT_MS = BEGIN_MS + INTERVAL_MS
MEASURED = """
SELECT coalesce(sum(measured_mj), 0)::bigint FROM energy_intervals WHERE boundary <> 'facility'
"""
SHARED = "SELECT coalesce(sum(energy_mj), 0)::bigint FROM energy_shares"
APART = """
SELECT e.boundary, e.name, e.measured_mj, coalesce(sum(s.energy_mj), 0)
FROM energy_intervals e JOIN pool_intervals i
  ON i.pool = e.name AND i.interval_start = e.interval_start AND i.version = i.attributed_version
LEFT JOIN energy_shares s
  ON s.pool = e.name AND s.interval_start = e.interval_start AND s.boundary = e.boundary
WHERE e.boundary <> 'facility'
GROUP BY 1, 2, e.interval_start, 3 HAVING e.measured_mj <> coalesce(sum(s.energy_mj), 0)
"""


def test_attribute__by_output_tokens(
    engine: Engine, usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """Each pool's energy goes to the tiers that it served, in each interval by itself."""
    put_energy(database_url, 1_000)
    put_energy(database_url, 70, start_ms=NEXT_MS)
    put_energy(database_url, 11, pool="h200")
    serve(journal, 0, output=1, others=10_000)
    serve(journal, 1, output=2)
    serve(journal, 0, output=9, end_ms=NEXT_MS)
    follow(usage).count_once()
    assert attribute_all(engine) == 3
    assert shares_of(database_url) == {
        ("h100", "free"): 333 + 70,
        ("h100", "high"): 667,
        ("h200", "no_tokens"): 11,
    }
    assert attribute_all(engine) == 0
    assert ask(database_url, "SELECT DISTINCT factory_version FROM energy_shares") == [(0,)]
    owners = ask(database_url, "SELECT DISTINCT account_id FROM energy_shares ORDER BY 1")
    assert owners == [("",), ("acme",)]


def test_attribute__each_boundary_by_itself(
    engine: Engine, usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """Boards and hosts are shared out apart, each to its own sum; a site's meter is nobody's."""
    put_energy(database_url, 100)
    put_energy(database_url, 150, boundary=Boundary.HOST)
    put_energy(database_url, 999, boundary=Boundary.FACILITY)
    serve(journal, 0, output=3)
    serve(journal, 1, output=1)
    follow(usage).count_once()
    attribute_all(engine)
    assert shares_of(database_url) == {("h100", "free"): 75, ("h100", "high"): 25}
    of_hosts = shares_of(database_url, boundary=Boundary.HOST)
    assert of_hosts == {("h100", "free"): 113, ("h100", "high"): 37}


def test_attribute__as_it_is_described(
    engine: Engine, usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """Prompts weigh what the description says, idling is apart, and rows carry its number."""
    describe(engine, start_ms=NEXT_MS, pool='idle_watts = "0.1"\nidle = "proportional"')
    for start_ms in (BEGIN_MS, NEXT_MS):
        put_energy(database_url, 1_000_000, start_ms=start_ms, gap_mj=5, unmapped_mj=10)
        serve(journal, 0, output=1, others=90, end_ms=start_ms)
        serve(journal, 1, output=10, end_ms=start_ms)
    follow(usage).count_once()
    attribute_all(engine)
    before = ask(
        database_url, "SELECT reason, energy_mj FROM energy_shares WHERE factory_version = 0"
    )
    assert sorted(before) == [("", 90_908), ("", 909_077), ("gap", 5), ("unmapped", 10)]
    # 0.1 W for 900 s are 90 J; the prompt of 90 tokens weighs as 9 of the output.
    after = ask(
        database_url,
        "SELECT coalesce(tier, ''), reason, energy_mj FROM energy_shares"
        " LEFT JOIN skus USING (sku_id) WHERE factory_version = 1 ORDER BY 2, 1",
    )
    assert after == [
        ("free", "", 454_993),
        ("high", "", 454_992),
        ("", "gap", 5),
        ("free", "idle", 45_000),
        ("high", "idle", 45_000),
        ("", "unmapped", 10),
    ]


def test_attribute__says_why_a_ratio_makes_no_sense(engine: Engine, database_url: str) -> None:
    """An interval whose samples do not cover it has the word for that; once they do, none."""
    describe(engine, pool="device_count = 2")
    put_energy(database_url, 100)
    attribute_all(engine)
    assert faults_of(database_url) == {("h100", 0): "stale"}
    put_energy(database_url, 100)
    attribute_all(engine)
    assert faults_of(database_url) == {("h100", 0): ""}


def test_attribute__tokens_without_energy_have_no_sample(
    engine: Engine, usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """Where tokens were served and nothing was measured, nothing is shared out and it is said."""
    serve(journal, 0, output=3)
    follow(usage).count_once()
    assert attribute_all(engine) == 1
    assert shares_of(database_url) == {}
    assert faults_of(database_url) == {("h100", 0): "no_sample"}


def test_attribute__only_what_has_ended(engine: Engine, database_url: str) -> None:
    """Intervals from a time on are left alone, and so many are done at a time."""
    store = AttributionStore(engine, factories=FactoryStore(engine))
    for place in range(3):
        put_energy(database_url, 10, start_ms=BEGIN_MS + place * INTERVAL_MS)
    until_ms = BEGIN_MS + 2 * INTERVAL_MS
    assert store.attribute(end_ms=BEGIN_MS, intervals_max=9) == 0
    assert store.attribute(end_ms=until_ms, intervals_max=1) == 1
    assert store.attribute(end_ms=until_ms, intervals_max=9) == 1
    assert ask_one(database_url, SHARED) == 20


def test_attribute__new_ones_alone(engine: Engine, database_url: str) -> None:
    """Asked for new intervals alone, those that were attributed before stay due."""
    store = AttributionStore(engine, factories=FactoryStore(engine))
    put_energy(database_url, 10)
    attribute_all(engine)
    put_energy(database_url, 5)
    put_energy(database_url, 7, start_ms=NEXT_MS)
    end_ms = NEXT_MS + INTERVAL_MS
    assert store.attribute(end_ms=end_ms, intervals_max=9, new_only=True) == 1
    assert ask_one(database_url, SHARED) == 17
    assert store.attribute(end_ms=end_ms, intervals_max=9) == 1
    assert ask_one(database_url, SHARED) == 22


def test_attribute__no_more_usage_at_a_time(
    engine: Engine,
    usage: UsageStore,
    journal: JournalStore,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One transaction takes as many intervals as have not too much usage together, at least one."""
    monkeypatch.setattr("meter.store.attribution.ATTRIBUTE_USAGE_MAX", 3)
    for place in range(3):
        start_ms = BEGIN_MS + place * INTERVAL_MS
        put_energy(database_url, 10, start_ms=start_ms)
        serve(journal, 0, output=1, end_ms=start_ms)
        serve(journal, 1, output=1, end_ms=start_ms)
    follow(usage).count_once()
    assert [attribute_all(engine) for _ in range(4)] == [1, 1, 1, 0]
    monkeypatch.setattr("meter.store.attribution.ATTRIBUTE_USAGE_MAX", 0)
    put_energy(database_url, 10)
    assert attribute_all(engine) == 1
    assert ask_one(database_url, SHARED) == 40


def test_attribute__late_tokens_are_a_revision(
    engine: Engine, usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """What is counted or measured later is a new revision of differences; nothing is rewritten."""
    revision = "SELECT sku_id, reason, revision, energy_mj FROM energy_shares ORDER BY 3, 2, 1"
    put_energy(database_url, 100)
    attribute_all(engine)
    first = ask(database_url, revision)
    assert [row[1:] for row in first] == [("no_tokens", 1, 100)]
    serve(journal, 0, output=3)
    follow(usage).count_once()
    attribute_all(engine)
    second = ask(database_url, revision)
    assert [row[1:] for row in second[1:]] == [("", 2, 100), ("no_tokens", 2, -100)]
    serve(journal, 1, output=1)
    follow(usage).count_once()
    put_energy(database_url, 20)
    attribute_all(engine)
    assert ask(database_url, revision)[:3] == [*first, *second[1:]]
    assert shares_of(database_url) == {("h100", "free"): 90, ("h100", "high"): 30}


def test_attribute__correction_takes_tokens_back(
    engine: Engine, usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """Tokens that were taken back have no energy; those of a key below 0 count as none."""
    put_energy(database_url, 100)
    serve(journal, 0, output=3)
    serve(journal, 1, output=1)
    serve(journal, 0, output=-3)
    follow(usage).count_once()
    attribute_all(engine)
    assert shares_of(database_url) == {("h100", "high"): 100}
    serve(journal, 1, output=-2)
    follow(usage).count_once()
    attribute_all(engine)
    assert shares_of(database_url) == {("h100", "no_tokens"): 100}


def test_attribute__tokens_counted_meanwhile_are_not_lost(
    engine: Engine, usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """Tokens that are counted while their interval is attributed make it due again."""
    put_energy(database_url, 100)
    serve(journal, 0, output=3)
    counting: list[Future[int]] = []

    def act(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "FROM pool_intervals" in statement and "FOR UPDATE" in statement and not counting:
            counting.append(pool.submit(follow(usage).count_once))
            wait_for_lock(database_url)

    event.listen(engine, "after_cursor_execute", act)
    with ThreadPoolExecutor(1) as pool:
        assert attribute_all(engine) == 1
        assert [it.result(WAIT_SECONDS_MAX) for it in counting] == [1]
    event.remove(engine, "after_cursor_execute", act)
    assert shares_of(database_url) == {("h100", "no_tokens"): 100}
    attribute_all(engine)
    assert shares_of(database_url) == {("h100", "free"): 100}


def test_attribute__waits_for_tokens_that_are_being_counted(
    engine: Engine, usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """Whoever attributes once tokens have marked their interval waits for these, and sees them."""
    put_energy(database_url, 120)
    serve(journal, 0, output=3)
    begun: list[Future[int]] = []

    def act(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "INSERT INTO pool_intervals" in statement:
            begun.append(pool.submit(attribute_all, engine))
            wait_for_lock(database_url)

    event.listen(engine, "after_cursor_execute", act)
    with ThreadPoolExecutor(1) as pool:
        follow(usage).count_once()
        assert [it.result(WAIT_SECONDS_MAX) for it in begun] == [1]
    event.remove(engine, "after_cursor_execute", act)
    assert shares_of(database_url) == {("h100", "free"): 120}


def test_attribute__shares_that_the_database_refuses(
    engine: Engine, usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """What is refused under the driver's own writing is no fault that ends the meter."""
    put_energy(database_url, 100)
    serve(journal, 0, output=3)
    follow(usage).count_once()
    with psycopg.connect(database_url) as connection:
        connection.execute("REVOKE INSERT ON energy_shares FROM tokenworks_ingest")
    with pytest.raises(StoreRefusal, match="refuses energy"):
        attribute_all(engine)
    with psycopg.connect(database_url) as connection:
        connection.execute("GRANT INSERT ON energy_shares TO tokenworks_ingest")
    assert attribute_all(engine) == 1
    assert shares_of(database_url) == {("h100", "free"): 100}


def test_attribute__no_description_slips_below(engine: Engine, database_url: str) -> None:
    """A description that is set while its interval is being attributed comes after it: refused."""
    put_energy(database_url, 100)
    setting: list[Future[None]] = []

    def act(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "FOR UPDATE" in statement and not setting:
            setting.append(pool.submit(describe, engine))
            wait_for_lock(database_url)

    event.listen(engine, "after_cursor_execute", act)
    with ThreadPoolExecutor(1) as pool:
        assert attribute_all(engine) == 1
        with pytest.raises(Refused):
            setting[0].result(WAIT_SECONDS_MAX)
    event.remove(engine, "after_cursor_execute", act)
    assert ask(database_url, "SELECT factory_version FROM energy_shares") == [(0,)]


@pytest.mark.parametrize("seed", range(2))
def test_attribute__adds_up_at_each_step(
    *, engine: Engine, usage: UsageStore, journal: JournalStore, database_url: str, seed: int
) -> None:
    """However energy, tokens, descriptions and attribution come together, it adds up each time."""
    random = Random(seed)
    described = 0
    for _ in range(40):
        place = random.randrange(3)
        start_ms = BEGIN_MS + random.randrange(2) * INTERVAL_MS
        match random.choice(["energy", "energy", "tokens", "tokens", "attribute", "describe"]):
            case "energy":
                parts = {name: random.randrange(10**5) for name in ("gap_mj", "unmapped_mj")}
                put_energy(
                    database_url,
                    random.randrange(10**6) + sum(parts.values()),
                    pool=SERVED[place][0],
                    boundary=random.choice([Boundary.BOARD, Boundary.HOST]),
                    start_ms=start_ms,
                    **parts,
                )
            case "tokens":
                serve(journal, place, output=random.randrange(-20, 99), end_ms=start_ms)
                follow(usage).count_once()
            case "attribute":
                attribute_all(engine)
            case _ if not described:
                idle = random.choice(["unattributed", "proportional"])
                pool = f'idle_watts = "0.{random.randrange(10)}"\nidle = "{idle}"'
                if not ask_one(database_url, "SELECT count(*) FROM energy_shares"):
                    describe(engine, pool=pool)
                    described = 1
        assert ask(database_url, APART) == []
    attribute_all(engine)
    assert ask(database_url, APART) == []
    assert ask_one(database_url, SHARED) == ask_one(database_url, MEASURED)
