"""The installation on a real Postgres: its clock's kind is decided once, its time goes forward."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from alembic import command
from psycopg import errors
from sqlalchemy import Engine, text
from sqlalchemy.exc import ProgrammingError

import migrations
from meter.domain.errors import Reason, Refused
from meter.runtime.engine import make_engine
from meter.store.accounts import AccountStore
from meter.store.facts import FactStore
from meter.store.installation import InstallationStore
from meter.store.usage import UsageStore
from meter.usage import UsageQuery
from tests.clock import FakeClock
from tests.meter.store.recording import (
    WAIT_SECONDS_MAX,
    administrator,
    ask,
    ask_one,
    counting_of,
    create_accounts,
    follow,
    owner,
    record,
)
from tests.postgres import Cluster

BEGIN_MS = 1_790_812_800_000
EDGE_MS = 900_000
KIND = "SELECT driven FROM installation"


@pytest.fixture
def blank(database_url: str) -> Iterator[Engine]:
    """Connections in the service's role, to a database in which nothing is yet."""
    engine = make_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def installation(blank: Engine) -> InstallationStore:
    """The store, on that database."""
    return InstallationStore(blank)


def test_settle__real(installation: InstallationStore, database_url: str) -> None:
    """Nothing else asked for, an empty database lives on the real clock, and goes on so."""
    assert [installation.settle(sandbox_clock_ms=None) for _ in range(2)] == [None, None]
    assert ask(database_url, KIND) == [(False,)]
    assert installation.find_driven_ms() is None


def test_settle__sandbox(installation: InstallationStore) -> None:
    """An empty database begins at the instant that is asked for; later starts ask in vain."""
    asked = (BEGIN_MS, BEGIN_MS + 7, BEGIN_MS - 7)
    assert [installation.settle(sandbox_clock_ms=it) for it in asked] == [BEGIN_MS] * 3
    assert installation.find_driven_ms() == BEGIN_MS


def refusal_of(act: Callable[[], object]) -> str:
    """Return the message of what must be refused for its clock."""
    with pytest.raises(Refused) as refused:
        act()
    assert refused.value.reason is Reason.CLOCK_REFUSED
    return refused.value.message


def test_settle__sandbox_on_the_real_clock(installation: InstallationStore) -> None:
    """Who has lived on the real clock becomes no sandbox."""
    installation.settle(sandbox_clock_ms=None)
    said = refusal_of(lambda: installation.settle(sandbox_clock_ms=BEGIN_MS))
    assert "has lived on the real clock" in said


def test_settle__real_on_a_sandbox(installation: InstallationStore) -> None:
    """A sandbox never becomes real."""
    installation.settle(sandbox_clock_ms=BEGIN_MS)
    assert "TOKENWORKS_SANDBOX_CLOCK" in refusal_of(
        lambda: installation.settle(sandbox_clock_ms=None)
    )


def make_account(engine: Engine) -> None:
    """Create an account."""
    AccountStore(engine, FakeClock(BEGIN_MS)).create_account(
        "acme", handle="a", parent_id=None, by="key_1"
    )


def make_key(engine: Engine) -> None:
    """Create an API key."""
    store = AccountStore(engine, FakeClock(BEGIN_MS))
    store.create_installation_key(bytes, pepper=b"p" * 32, description="")


@pytest.mark.parametrize("use", [make_account, make_key, owner])
def test_settle__database_in_use_without_a_mark(
    blank: Engine, database_url: str, use: Callable[[Engine], object]
) -> None:
    """Whatever was made without a mark was made on the real clock."""
    use(blank)
    installation = InstallationStore(blank)
    refusal_of(lambda: installation.settle(sandbox_clock_ms=BEGIN_MS))
    assert installation.settle(sandbox_clock_ms=None) is None
    assert ask(database_url, KIND) == [(False,)]


def test_settle__two_at_once(installation: InstallationStore, database_url: str) -> None:
    """Of two first starts with different clocks one decides, and the other is refused."""
    asked = (BEGIN_MS, None)
    question = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    refused = []
    with ThreadPoolExecutor() as pool, psycopg.connect(database_url) as holder:
        holder.execute("SELECT 1 FROM registry FOR UPDATE")
        settling = [pool.submit(installation.settle, sandbox_clock_ms=it) for it in asked]
        while ask_one(database_url, question) < len(asked):
            pass
        holder.rollback()
        for each in settling:
            fault = each.exception(WAIT_SECONDS_MAX)
            if fault is not None:
                refused.append(fault)
    assert [type(fault) for fault in refused] == [Refused]
    assert len(ask(database_url, KIND)) == 1


@pytest.mark.parametrize("is_waited_for", [True, False])
def test_move_to__never_back(installation: InstallationStore, *, is_waited_for: bool) -> None:
    """The kept time goes forward only, and is there for everybody at once."""
    installation.settle(sandbox_clock_ms=BEGIN_MS)
    for ahead_ms, stands_ms in [(5, 5), (3, 5), (EDGE_MS, EDGE_MS)]:
        installation.move_to(BEGIN_MS + ahead_ms, is_waited_for=is_waited_for)
        assert installation.find_driven_ms() == BEGIN_MS + stands_ms


def test_move_to__real(installation: InstallationStore) -> None:
    """A real installation has no time to move."""
    installation.settle(sandbox_clock_ms=None)
    installation.move_to(BEGIN_MS, is_waited_for=True)
    assert installation.find_driven_ms() is None


@pytest.mark.parametrize(
    "statement",
    ["DELETE FROM installation", "UPDATE installation SET driven = false", "TRUNCATE installation"],
)
def test_role__service_cannot_change_the_kind(blank: Engine, statement: str) -> None:
    """The service's own role may move the time, and change nothing else."""
    InstallationStore(blank).settle(sandbox_clock_ms=BEGIN_MS)
    with pytest.raises(ProgrammingError) as failure, blank.begin() as connection:
        connection.execute(text(statement))
    assert isinstance(failure.value.orig, errors.InsufficientPrivilege)


@pytest.mark.parametrize(
    "values", ["(true, true, NULL)", "(true, false, now())", "(false, false, NULL)"]
)
def test_table__half_a_mark(database_url: str, values: str) -> None:
    """A driven clock has a time, a real one none, and there is one row."""
    with administrator(database_url) as connection, pytest.raises(errors.CheckViolation):
        connection.execute(f"INSERT INTO installation VALUES {values}")


@pytest.mark.parametrize("in_use", [True, False])
def test_migration__marks_what_is_in_use(cluster: Cluster, *, in_use: bool) -> None:
    """A database that was served before there was a mark is real from the upgrade on."""
    with cluster.database(template="template0") as url:
        command.upgrade(migrations._config(url), "0003_pre_energy")  # noqa: SLF001  half the way
        if in_use:
            create_accounts(url)
        migrations.upgrade(url)
        assert ask(url, KIND) == ([(False,)] if in_use else [])


def test_counted_until__of_a_sandbox(blank: Engine, database_url: str) -> None:
    """Until when all is counted is told in the sandbox's time, behind and caught up."""
    installation = InstallationStore(blank)
    installation.settle(sandbox_clock_ms=BEGIN_MS)
    create_accounts(database_url)
    journal, usage, facts = owner(blank), counting_of(blank), FactStore(blank)
    assert told(usage, facts) == {BEGIN_MS}
    installation.move_to(BEGIN_MS + EDGE_MS, is_waited_for=True)
    assert told(usage, facts) == {BEGIN_MS + EDGE_MS}
    record(journal, 5)
    installation.move_to(BEGIN_MS + 2 * EDGE_MS, is_waited_for=True)
    assert told(usage, facts) == {BEGIN_MS}
    record(journal, 7)
    with usage.counting() as step:
        step.read(events_max=1)
        step.advance()
    assert told(usage, facts) == {BEGIN_MS + EDGE_MS}
    follow(usage).count_once()
    assert told(usage, facts) == {BEGIN_MS + 2 * EDGE_MS}


def told(usage: UsageStore, facts: FactStore) -> set[int]:
    """Return until when all is counted, as each of those says who are asked."""
    query = UsageQuery(account_id=None, start_ms=0, end_ms=BEGIN_MS, group_by=())
    return {usage.query(query)[1], facts.counted_until_ms()}
