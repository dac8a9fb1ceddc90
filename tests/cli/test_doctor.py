"""`tokenworks doctor` as people run it: on a meter that runs, and on databases that are wrong."""

import itertools
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from cli.main import tokenworks
from tests.acceptance.counted import wait_until_counted
from tests.cli.shell import shell_of
from tests.engine_page import running_replica
from tests.meter.store.recording import ask_one
from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on
from tests.wire.session import Session, columns, event, opening, to_columns
from tests.wire.talk import wait_until
from tokenworks.meter.v1 import meter_service_pb2, usage_pb2

NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"
AUDITED = ("segments", "numbers", "sums", "totals", "event ids", "energy", "invoices")


def doctor(*words: str, url: str | None, **settings: str) -> Result:
    """Run the command with nothing set but the database."""
    named = {f"TOKENWORKS_{name.upper()}": value for name, value in settings.items()}
    if url is not None:
        named["TOKENWORKS_DATABASE_URL"] = url
    result = CliRunner().invoke(tokenworks, ["doctor", *words], env=named)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


def marks(*words: str, url: str, **settings: str) -> dict[str, Any]:
    """Return the checks of `doctor --json` by name."""
    found = json.loads(doctor(*words, "--json", url=url, **settings).stdout)
    return {it["check"]: it for it in found["checks"]}


def execute(url: str, *statements: str) -> None:
    """Do it as the superuser, constraints off."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        for statement in statements:
            connection.execute(statement.encode())


def keep_safe(cluster: Cluster) -> None:
    """Make a cluster of the tests as safe as one of production."""
    with psycopg.connect(cluster.url(), autocommit=True) as connection:
        for name in ("fsync", "full_page_writes"):
            connection.execute(f"ALTER SYSTEM SET {name} = on".encode())
        connection.execute("SELECT pg_reload_conf()")


def test_doctor__all_well(private_cluster: Cluster, tmp_path: Path) -> None:
    """On an installation that is well each line says so, and the exit code is 0."""
    keep_safe(private_cluster)
    with (
        private_cluster.database() as url,
        running_meter_on(url, folder=tmp_path) as running,
    ):
        shell = shell_of(running)
        shell.record("--input", "800", "--output", "200")
        wait_until_counted(url)
        page = doctor("--audit", url=url)
        assert (page.exit_code, page.stderr) == (0, "")
        lines = page.stdout.splitlines()
        assert lines[-1] == "all well"
        checks = [line.split(maxsplit=1) for line in lines if line.startswith("  ok ")]
        assert len(checks) == 23
        assert not [line for line in lines if line.startswith(("  warn", "  fail"))]
        assert re.search(r"^  input +800 +800$", page.stdout, re.MULTILINE)
        # Aligned: what is said begins in one column.
        above = page.stdout.split("\naudit")[0]
        heads = re.findall(r"^  ok    \S+(?: \S+)? +", above, re.MULTILINE)
        begins = {len(head) for head in heads}
        assert len(begins) == 1
        told = json.loads(doctor("--audit", "--json", url=url).stdout)
    assert (told["ok"], told["audit"]["events"]) == (True, 1)
    assert told["audit"]["journal"] == told["audit"]["usage"]
    assert [it["mark"] for it in told["checks"]] == ["ok"] * 23


def test_doctor__engines_and_sources(cluster: Cluster, tmp_path: Path) -> None:
    """Where engines are read and sources report, it says when that was."""
    with (
        cluster.database() as url,
        running_replica() as replica,
        running_meter_on(url, folder=tmp_path, settings={"engines": f"h100={replica.url}"}) as it,
    ):
        session = Session(it)
        session.create_account("acme")
        request = meter_service_pb2.RecordUsageRequest(
            events=[event(end_ms=time.time_ns() // 10**6, request_id="r-1")],
            source=usage_pb2.SOURCE_PROXY,
        )
        session.call("RecordUsage", request)
        wait_until(lambda: ask_one(url, "SELECT count(*) FROM engine_replicas") == 1)
        found = marks(url=url)
        execute(
            url,
            "UPDATE engine_replicas SET first_time = first_time - interval '9 days',"
            " read_time = read_time - interval '20 minutes'",
            "UPDATE event_claims SET claim_time = claim_time - interval '16 minutes'",
        )
        later = marks(url=url)
    assert (found["engines"]["mark"], found["engines"]["facts"]["read"]) == ("ok", 1)
    assert re.fullmatch(r"proxy \d+ s ago", found["sources"]["says"])
    says = f"1 read; 1 not for 15 min, {replica.url} (h100) for 20 min; no whole day to compare yet"
    assert (later["engines"]["mark"], later["engines"]["says"]) == ("warn", says)
    assert "sources" not in later


def test_doctor__unsafe_disk(database_url: str) -> None:
    """A Postgres that may lose what it committed is a failure, with what to set."""
    page = doctor(url=database_url)
    assert page.exit_code == 1
    assert "  fail  disk" in page.stdout
    assert "→ ALTER SYSTEM SET fsync = on; ALTER SYSTEM SET full_page_writes = on" in page.stdout
    assert page.stdout.splitlines()[-1] == "1 failed"


def test_doctor__no_postgres() -> None:
    """A database that does not answer ends with 1 and a sentence, with and without an audit."""
    for words in ((), ("--audit",)):
        page = doctor(*words, url=NOWHERE)
        assert page.exit_code == 1
        assert "  fail  database  does not answer: " in page.stdout
        assert "Connection refused" in page.stdout
        assert "→ start it, or correct TOKENWORKS_DATABASE_URL" in page.stdout
        assert page.stderr == ""


def test_doctor__none_named() -> None:
    """Without a database the setting to set is named; spans belong to an audit."""
    page = doctor(url=None)
    assert (page.exit_code, "TOKENWORKS_DATABASE_URL" in page.stderr) == (2, True)
    page = doctor("--since", "2026-10-01", url=NOWHERE)
    assert (page.exit_code, "--audit" in page.stderr) == (2, True)
    page = doctor("--audit", "--since", "yesterday", url=NOWHERE)
    assert (page.exit_code, "yesterday" in page.stderr) == (2, True)


def test_doctor__unmigrated(cluster: Cluster) -> None:
    """An empty or a half migrated database is told to be upgraded, and not looked at further."""
    with cluster.database(template="template0") as url:
        found = marks("--audit", url=url)
        assert found["schema"]["do"] == "tokenworks db upgrade"
        assert (found["schema"]["mark"], found["audit"]["mark"]) == ("fail", "fail")
    with cluster.database() as url:
        execute(url, "UPDATE alembic_version SET version_num = '0003_pre_energy'")
        found = marks(url=url)
        assert found["schema"]["mark"] == "fail"
        assert found["schema"]["facts"]["missing"][0] == "0004_pre_installation"
        assert set(found) == {"settings", "database", "role", "schema"}


def test_doctor__before_post(cluster: Cluster, with_post: str) -> None:
    """What only older servers needed is still there: it is told how that ends."""
    with cluster.database() as url:
        found = marks(url=url)
        assert (found["schema"]["mark"], found["schema"]["facts"]["missing"]) == ("warn", [])
        assert with_post in json.dumps(found["schema"])
        assert found["schema"]["do"].endswith("tokenworks db upgrade --stage post")
        assert "clock" in found


def test_doctor__newer_schema(cluster: Cluster) -> None:
    """A database of a newer version is let be, and the tool is to be upgraded."""
    with cluster.database() as url:
        execute(url, "UPDATE alembic_version SET version_num = '9999_post_later'")
        page = doctor(url=url)
    assert page.exit_code == 1
    assert "newer version of Tokenworks" in page.stdout
    assert "→ upgrade tokenworks here" in page.stdout


@contextmanager
def login(url: str, name: str, *, member_of: str = "") -> Iterator[str]:
    """A login of its own, for the time of the block: its URL."""
    execute(url, f"CREATE ROLE {name} LOGIN PASSWORD 'x'")
    if member_of:
        execute(url, f"GRANT {member_of} TO {name}")
    try:
        yield "postgresql://" + name + ":x@" + url.split("@", 1)[1]
    finally:
        execute(url, f"DROP OWNED BY {name}", f"DROP ROLE {name}")


@pytest.mark.parametrize("member_of", ["", "tokenworks_reader"])
def test_doctor__login_without_rights(database_url: str, member_of: str) -> None:
    """A login that may not act as the service is told what a superuser has to grant."""
    with login(database_url, "clerk", member_of=member_of) as url:
        page = doctor("--audit", url=url)
    assert (page.exit_code, page.stderr) == (1, "")
    looked_at = re.findall(r"^  (?:ok|warn|fail) +(\w+)", page.stdout, re.MULTILINE)
    assert looked_at == ["settings", "database", "role", "audit"]
    assert 'GRANT tokenworks_service TO "clerk"' in page.stdout


def test_doctor__login_of_the_service(database_url: str) -> None:
    """A login that may act as the service, and nothing more, sees all and audits all."""
    with login(database_url, "meter_login", member_of="tokenworks_service") as url:
        found = marks("--audit", url=url)
    assert {name for name, it in found.items() if it["mark"] != "ok"} == {"disk"}


def test_doctor__login_that_may_migrate(database_url: str) -> None:
    """A login that serves and could change what was recorded is worth a look."""
    roles = "tokenworks_service, tokenworks_migrator"
    with login(database_url, "meter_and_owner", member_of=roles) as url:
        role = marks(url=url)["role"]
    assert (role["mark"], "and as tokenworks_migrator" in role["says"]) == ("warn", True)


def test_doctor__rights_that_were_changed(cluster: Cluster) -> None:
    """A service that could change facts, or cannot add them, is a failure with its remedy."""
    with cluster.database() as url:
        execute(
            url,
            "GRANT UPDATE ON journal TO tokenworks_ingest",
            "GRANT DELETE ON corrections TO tokenworks_billing",
            "REVOKE INSERT ON cuts FROM tokenworks_ingest",
        )
        found = marks(url=url)["rights"]
    assert found["mark"] == "fail"
    assert found["facts"] == {
        "excess": ["tokenworks_billing DELETE corrections", "tokenworks_ingest UPDATE journal"],
        "lacking": ["tokenworks_ingest INSERT cuts"],
    }
    assert found["do"] == (
        "REVOKE DELETE ON corrections FROM tokenworks_billing;"
        " REVOKE UPDATE ON journal FROM tokenworks_ingest;"
        " GRANT INSERT ON cuts TO tokenworks_ingest"
    )


def test_doctor__sandbox(cluster: Cluster, tmp_path: Path) -> None:
    """A sandbox is told on stderr and on the page, and its own time is what ages are from."""
    settings = {"sandbox_clock": "2026-10-01T00:00:00Z"}
    with cluster.database() as url, running_meter_on(url, folder=tmp_path, settings=settings):
        page = doctor(url=url)
    assert page.stderr.startswith("SANDBOX: ")
    assert "SANDBOX, a driven clock that stands at 2026-10-01T00:00:00Z" in page.stdout


def test_doctor__what_waits(running_meter: RunningMeter) -> None:
    """Silent producers, gaps, and what is held are named, with what to do; all are warnings."""
    session = Session(running_meter)
    session.create_account("acme")
    session.exchange(opening("gone", first_sequence=4))
    session.record(event(tier="unheard-of"))
    url = running_meter.database_url
    execute(
        url,
        "UPDATE producers SET state = 2, announced_sequence = 9,"
        " seen_time = now() - interval '3 hours', create_time = now() - interval '4 hours'",
    )
    found = marks(url=url)
    assert found["producers"]["mark"] == "warn"
    assert "gone (installation) last heard 3 h ago, holds 6 batches" in found["producers"]["says"]
    assert "gone (installation) 1 to 3" in found["gaps"]["says"]
    assert found["quarantine"]["facts"] == {"held": {"TIER_UNKNOWN": 1}}
    assert all(found[name]["do"] for name in ("producers", "gaps", "quarantine"))
    patient = marks(url=url, silence_seconds="20000")
    assert patient["producers"]["mark"] == "ok"
    assert marks(url=url, durable_standbys="vault")["standbys"]["mark"] == "fail"


def test_doctor__audit_finds(running_meter: RunningMeter) -> None:
    """A difference is on the page with its place and both numbers; the exit code is 1."""
    session = Session(running_meter)
    session.create_account("acme")
    session.record(event(tokens={1: 5, 7: 2}))
    url = running_meter.database_url
    wait_until_counted(url)
    execute(url, "UPDATE usage SET output = 1002")
    page = doctor("--audit", url=url)
    assert page.exit_code == 1
    assert re.search(r"^  output +2 +1,002  \+1,000$", page.stdout, re.MULTILINE)
    assert "acme, m, high, output: 2 by the journal, 1,002 by usage" in page.stdout
    execute(url, "UPDATE usage SET output = 2")
    found = marks("--audit", url=url)
    assert {name: found[name]["mark"] for name in AUDITED} == dict.fromkeys(AUDITED, "ok")


def test_doctor__audit_of_a_span(running_meter: RunningMeter) -> None:
    """A span of days is what is audited, and no more."""
    session = Session(running_meter)
    session.create_account("acme")
    day_ms = 86_400_000
    now_ms = time.time_ns() // 10**6
    for days in (0, 3, 9):
        session.record(event(end_ms=now_ms - days * day_ms))
    url = running_meter.database_url
    wait_until_counted(url)
    since, until = (
        time.strftime("%Y-%m-%d", time.gmtime((now_ms - days * day_ms) / 1000)) for days in (4, 1)
    )
    told = json.loads(
        doctor("--audit", "--since", since, "--until", until, "--json", url=url).stdout
    )
    assert told["audit"]["events"] == 1
    assert (told["audit"]["since"], told["audit"]["until"]) == (
        f"{since}T00:00:00Z",
        f"{until}T00:00:00Z",
    )


def correct(session: Session, **target: Any) -> None:  # noqa: ANN401
    """Take an event back, or count a `replacement` in its place."""
    request = meter_service_pb2.CorrectUsageRequest(reason="a test", **target)
    session.call("CorrectUsage", request)


def test_doctor__audit_with_corrections(running_meter: RunningMeter) -> None:
    """What was voided or replaced is not counted; an id of two producers is settled by a void."""
    session = Session(running_meter)
    session.create_account("acme")
    wrong, changed, twice = (event(tokens={1: 50_000 + place, 7: 9}) for place in range(3))
    session.exchange(opening("p"), columns(1, to_columns([wrong, changed, event()])))
    session.exchange(opening("q"), columns(1, to_columns([twice])))
    session.record(twice)
    url = running_meter.database_url
    wait_until_counted(url)
    found = marks("--audit", url=url)["event ids"]
    assert (found["mark"], found["facts"]["count"]) == ("fail", 1)
    assert "producer q (installation) batch 1 at " in found["says"]
    correct(session, event_id=wrong.event_id)
    right = event(event_id="", tokens={1: 7})
    correct(session, event_id=changed.event_id, replacement=right)
    # Its id alone would be any of two.
    place = meter_service_pb2.EventPlace(producer="q", sequence=1, index=0)
    correct(session, place=place)
    wait_until_counted(url)
    told = json.loads(doctor("--audit", "--json", url=url).stdout)
    found = {it["check"]: it["mark"] for it in told["checks"]}
    assert {name: found[name] for name in AUDITED} == dict.fromkeys(AUDITED, "ok")
    assert told["audit"]["journal"] == told["audit"]["usage"]
    assert told["audit"]["journal"]["input"] == 3 + 7 + 50_002


AUDITS = 5
AUDITS_MAX = 200


def events_of(told: dict[str, Any]) -> int:
    """Return how many events an audit has added up."""
    return int(told["audit"]["events"])


def over_days(count: int) -> list[usage_pb2.UsageEvent]:
    """Return events of acme that lie eleven hours apart, the last one now."""
    now_ms = time.time_ns() // 10**6
    return [event(end_ms=now_ms - 40_000_000 * place) for place in range(count)]


def test_doctor__audit_beside_a_meter_at_work(running_meter: RunningMeter) -> None:
    """While two producers report all the while, over days, every audit is clean."""
    session = Session(running_meter)
    session.create_account("acme")
    stop = threading.Event()

    def report(producer: str) -> None:
        own = Session(running_meter)

        for first in itertools.count(1, 5):
            if stop.is_set():
                return
            forms = [to_columns(over_days(20)) for _ in range(5)]
            batches = (columns(sequence, form) for sequence, form in enumerate(forms, first))
            own.exchange(opening(producer), *batches)

    threads = [threading.Thread(target=report, args=(name,)) for name in ("p", "q")]
    for thread in threads:
        thread.start()
    audited: list[dict[str, Any]] = []
    try:
        while len(audited) < AUDITS or events_of(audited[-1]) == events_of(audited[0]):
            told = doctor("--audit", "--json", url=running_meter.database_url)
            audited.append(json.loads(told.stdout))
            assert len(audited) < AUDITS_MAX, "nothing is counted"
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    for each in audited:
        found = {it["check"]: it["mark"] for it in each["checks"]}
        assert {name: found[name] for name in AUDITED} == dict.fromkeys(AUDITED, "ok")
    counts = [events_of(each) for each in audited]
    assert counts == sorted(counts)
