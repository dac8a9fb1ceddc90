"""What doctor thinks of the facts, case by case, and how its page looks."""

from dataclasses import replace

import pytest

from cli.doctor.check import Check, Mark, format_age
from cli.doctor.checks import check_health, check_login, check_role, check_schema
from cli.doctor.page import write_checks, write_end
from meter.engine_drift import EngineDrift, TokenKind
from meter.health import (
    Connections,
    EngineHealth,
    GapHealth,
    Health,
    Login,
    ProducerHealth,
    Right,
    ShardHealth,
    Standby,
)

NOW_MS = 1_800_000_000_000
SECOND_MS, HOUR_MS, DAY_MS = 1_000, 3_600_000, 86_400_000
LOGIN = Login(
    user="meter",
    database="tokenworks",
    version=180_006,
    has_service_role=True,
    may_serve=True,
    may_migrate=False,
    is_standby=False,
    data_folder=None,
    connections=Connections(count_max=97, count=14, idle_seconds=None),
)
SHARD = ShardHealth(
    shard=0,
    position=40,
    epoch=3,
    counted_position=40,
    oldest_uncounted_ms=None,
    cut_position=30,
)
SAFE = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "synchronous_standby_names": "",
}
WELL = Health(
    is_driven=False,
    now_ms=NOW_MS,
    database_ms=NOW_MS,
    settings=SAFE,
    wrong_rights=(),
    lacking_rights=(),
    shards=(SHARD,),
    uncounted_segments=0,
    cut_count=3,
    newest_cut_ms=NOW_MS - HOUR_MS,
    producer_counts={1: 1, 2: 20, 3: 4},
    silent_count=0,
    silent=(),
    backlog_count=0,
    missing_batches=0,
    recent_gap_count=0,
    recent_gaps=(),
    held_by_outcome={},
    standbys=(),
    database_bytes=2**30,
)


def checks(
    health: Health, *, machine_ms: int = NOW_MS, durable: tuple[str, ...] = ()
) -> list[Check]:
    """Return all checks."""
    return list(check_health(health, machine_ms=machine_ms, durable_standbys=durable))


def waiting(seconds: int) -> Health:
    """Return a health whose oldest segment waits so long."""
    shard = replace(SHARD, counted_position=38, oldest_uncounted_ms=NOW_MS - seconds * SECOND_MS)
    return replace(WELL, shards=(shard,), uncounted_segments=2)


def standby(name: str = "vault", sync: str = "async") -> Standby:
    """Return a standby that streams."""
    return Standby(name=name, state="streaming", sync_state=sync, lag_bytes=1_234)


GAP = GapHealth(
    account_id="acme", producer="gpu-1", first_sequence=7, last_sequence=9, found_ms=NOW_MS
)
SILENT = ProducerHealth(
    account_id="", producer="gpu-2", seen_ms=NOW_MS - 3 * HOUR_MS, backlog_count=12
)

DRIFT = EngineDrift(
    pool="h100",
    model="m",
    kind=TokenKind.OUTPUT,
    start_ms=NOW_MS - DAY_MS,
    end_ms=NOW_MS,
    compared_ms=DAY_MS,
    engine_tokens=1_000_000,
    metered_tokens=990_000,
)
READ = replace(
    WELL,
    engine_count=3,
    engines=(EngineHealth(pool="h100", replica="http://e/metrics", read_ms=NOW_MS - HOUR_MS),),
    drifts=(DRIFT,),
)
HEARD = replace(WELL, sources_heard_ms={3: NOW_MS - 901_000, 6: NOW_MS - 4_000})


def test_check__all_well() -> None:
    """Where all is well each check says so, and none has anything to do."""
    assert {it.mark for it in checks(WELL)} == {Mark.OK}
    assert write_end(checks(WELL)) == "all well"


CASES = [
    (waiting(5), "counting", Mark.OK, "2 segments to count, the oldest 5 s old"),
    (waiting(61), "counting", Mark.WARN, "the oldest 61 s old: usage and previews"),
    (waiting(4_000), "counting", Mark.FAIL, "the oldest 66 min old"),
    (
        replace(WELL, shards=(replace(SHARD, counted_position=29),)),
        "shard 0",
        Mark.FAIL,
        "40 segments, epoch 3, held by nobody; counted behind the cut at 30",
    ),
    (
        replace(WELL, newest_cut_ms=NOW_MS - 49 * HOUR_MS),
        "cuts",
        Mark.WARN,
        "3, the newest at 2027-01-13T07:00:00Z, 2 days ago",
    ),
    (
        replace(WELL, shards=(replace(SHARD, owner="meter-1", lease_ms=3_200),)),
        "shard 0",
        Mark.OK,
        "40 segments, epoch 3, held by meter-1 for 3.2 s more",
    ),
    (
        replace(WELL, shards=(replace(SHARD, owner="meter-1", lease_ms=-90_000),)),
        "shard 0",
        Mark.WARN,
        "40 segments, epoch 3, let go by meter-1 90 s ago",
    ),
    (replace(WELL, newest_cut_ms=None), "cuts", Mark.OK, "none yet"),
    (replace(WELL, shards=()), "journal", Mark.OK, "empty"),
    (
        replace(WELL, silent_count=7, silent=(SILENT, replace(SILENT, seen_ms=None))),
        "producers",
        Mark.WARN,
        "4 retired; 7 silent: gpu-2 (installation) last heard 3 h ago, holds 12 batches; gpu-2",
    ),
    (
        replace(WELL, backlog_count=3),
        "producers",
        Mark.OK,
        "1 registered, 20 active, 4 retired; 3 batches announced and not here",
    ),
    (replace(WELL, producer_counts={}), "producers", Mark.OK, "none yet"),
    (
        replace(WELL, missing_batches=3, recent_gap_count=1, recent_gaps=(GAP,)),
        "gaps",
        Mark.WARN,
        "batches that never came: gpu-1 (acme) 7 to 9, found 2027-01-15T08:00:00Z",
    ),
    (
        READ,
        "engines",
        Mark.OK,
        "3 read; yesterday they counted +10,000 output tokens (+1.00 %) of m",
    ),
    (
        replace(READ, drifts=(replace(DRIFT, metered_tokens=1_020_410, model=""),)),
        "engines",
        Mark.WARN,
        "yesterday they counted -20,410 output tokens (-2.00 %) of all models in h100",
    ),
    (
        replace(READ, drifts=(replace(DRIFT, metered_tokens=0, compared_ms=DAY_MS // 2),)),
        "engines",
        Mark.OK,
        "3 read; no whole day to compare yet",
    ),
    (
        replace(READ, unread_count=1),
        "engines",
        Mark.WARN,
        "3 read; 1 not for 15 min, http://e/metrics (h100) for 60 min",
    ),
    (HEARD, "sources", Mark.WARN, "envoy 15 min ago, span 4 s ago"),
    (replace(HEARD, sources_heard_ms={99: NOW_MS}), "sources", Mark.OK, "99 0 s ago"),
    (replace(HEARD, is_driven=True), "sources", Mark.OK, "envoy 15 min ago"),
    (replace(HEARD, sources_heard_ms={3: NOW_MS - DAY_MS}), "sources", Mark.OK, "envoy 24 h ago"),
    (replace(WELL, missing_batches=3), "gaps", Mark.OK, "3 batches of long ago are missing"),
    (
        replace(WELL, held_by_outcome={12: 2, 10: 1, 250: 1}),
        "quarantine",
        Mark.WARN,
        "4 wait for a decision and are not counted: 2 ",
    ),
    (
        replace(WELL, settings=SAFE | {"synchronous_commit": "off"}),
        "disk",
        Mark.FAIL,
        "synchronous_commit off: what was acknowledged may be lost",
    ),
    (
        replace(WELL, settings=SAFE | {"synchronous_commit": "remote_apply"}),
        "disk",
        Mark.OK,
        "synchronous_commit remote_apply",
    ),
    (
        replace(
            WELL,
            wrong_rights=[Right("tokenworks_ingest", "UPDATE", "journal")],
            lacking_rights=[Right("tokenworks_billing", "SELECT", "usage")],
        ),
        "rights",
        Mark.FAIL,
        "tokenworks_ingest may UPDATE journal; tokenworks_billing may not SELECT usage",
    ),
    (
        replace(WELL, standbys=(standby(),)),
        "standbys",
        Mark.OK,
        "vault streaming (async, 1,234 bytes behind); synchronous: none",
    ),
    (
        replace(WELL, settings=SAFE | {"synchronous_standby_names": "vault"}),
        "standbys",
        Mark.FAIL,
        "none connected; synchronous: vault",
    ),
    (
        replace(
            WELL,
            settings=SAFE | {"synchronous_standby_names": "vault"},
            standbys=(standby(sync="sync"),),
        ),
        "standbys",
        Mark.OK,
        "vault streaming (sync, 1,234 bytes behind); synchronous: vault",
    ),
    (replace(WELL, is_driven=True), "clock", Mark.OK, "SANDBOX, a driven clock"),
    (replace(WELL, is_driven=None), "clock", Mark.OK, "not decided"),
]


@pytest.mark.parametrize(("health", "name", "mark", "said"), CASES)
def test_check__says(health: Health, name: str, mark: Mark, said: str) -> None:
    """Each state has its mark and sentence; what is not well says what to do."""
    (found,) = [it for it in checks(health) if it.name == name]
    assert said in found.says
    assert found.mark is mark
    assert found.do or found.mark is Mark.OK


@pytest.mark.parametrize(
    ("ahead_ms", "mark", "said"),
    [
        (5_000, Mark.OK, "real"),
        (-5_000, Mark.OK, "real"),
        (9_000, Mark.WARN, "real; this machine's is 9 s ahead of the database's"),
        (-7_200_000, Mark.WARN, "real; this machine's is 2 h behind the database's"),
    ],
)
def test_check__clock_of_this_machine(ahead_ms: int, mark: Mark, said: str) -> None:
    """Clocks that are more than five seconds apart are told."""
    found = checks(WELL, machine_ms=NOW_MS + ahead_ms)[0]
    assert (found.mark, found.says) == (mark, said)


def test_check__durable_standbys() -> None:
    """A standby that acknowledgements wait for and that is not connected is a failure."""
    health = replace(WELL, standbys=(standby("vault"),))
    names = {it.name: it for it in checks(health, durable=("vault", "far"))}
    assert names["standbys"].mark is Mark.FAIL
    assert "TOKENWORKS_DURABLE_STANDBYS waits for far" in names["standbys"].says
    assert {it.mark for it in checks(health, durable=("vault",))} == {Mark.OK}


@pytest.mark.parametrize(
    ("login", "mark", "said"),
    [
        (LOGIN, Mark.OK, "Postgres 18.6, tokenworks as meter"),
        (replace(LOGIN, version=150_000), Mark.OK, "Postgres 15.0"),
        (replace(LOGIN, version=140_011), Mark.WARN, "Postgres 14.11"),
        (replace(LOGIN, version=190_000), Mark.WARN, "Postgres 19.0"),
        (replace(LOGIN, is_standby=True), Mark.FAIL, "a standby: it can only be read"),
    ],
)
def test_check__login(login: Login, mark: Mark, said: str) -> None:
    """An untested version is worth a look, a standby is the wrong server."""
    found = check_login(login)
    assert (found.mark, said in found.says) == (mark, True)
    assert found.do or found.mark is Mark.OK


def test_check__role_and_schema() -> None:
    """A login without the role, and missing migrations, are failures that say what to run."""
    assert check_role(LOGIN).mark is Mark.OK
    assert check_role(replace(LOGIN, may_serve=False)).do.endswith('tokenworks_service TO "meter"')
    assert check_role(replace(LOGIN, may_migrate=True)).mark is Mark.WARN
    assert check_schema([], newest="0006").mark is Mark.OK
    one, two = check_schema(["0006"], newest="0006"), check_schema(["05", "06"], newest="06")
    assert (one.says, two.says) == (
        "1 migration is missing: 0006",
        "2 migrations are missing: 05 to 06",
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7_199, "119 min"),
        (7_200, "2 h"),
        (172_799, "47 h"),
        (172_800, "2 days"),
        (400 * 86_400, "400 days"),
    ],
)
def test_format_age__in_the_unit_that_fits(seconds: int, text: str) -> None:
    """A span is told in the largest unit of which it has two."""
    assert format_age(seconds) == text


def test_page__is_aligned() -> None:
    """Marks, names and sentences stand in columns; what to do stands below, behind an arrow."""
    page = [
        Check(name="disk", mark=Mark.OK, says="fsync on", do="not shown"),
        Check(name="quarantine", mark=Mark.WARN, says="4 wait", do="look"),
    ]
    assert list(write_checks(page)) == [
        "  ok    disk        fsync on",
        "  warn  quarantine  4 wait",
        "                  → look",
    ]
    assert write_end(page) == "nothing failed, 1 to look at"
    failed = replace(page[0], mark=Mark.FAIL)
    assert write_end([failed, *page]) == "1 failed, 1 to look at"
    assert write_end([failed]) == "1 failed"
