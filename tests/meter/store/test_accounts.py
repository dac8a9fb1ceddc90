"""Accounts and API keys on a real Postgres: what is kept, and that changes do not race."""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import psycopg
import pytest
from sqlalchemy import Engine

from meter.domain.account import ParentEdge
from meter.domain.credential import (
    ApiKey,
    Credential,
    MintedKey,
    RegistrySnapshot,
    Role,
    Scope,
    hash_api_key,
    mint_key,
)
from meter.domain.errors import MeterError, NotFound, Reason, Refused, Unavailable
from meter.domain.interval import INTERVAL_MS
from meter.runtime.engine import make_engine
from meter.store.accounts import AccountStore
from tests.clock import FakeClock

WAIT_SECONDS_MAX = 30.0
LOOK_SECONDS = 0.01
PEPPER = b"p" * 32
BEGIN = 2_000_000 * INTERVAL_MS
REPORT_A = (Scope(role=Role.PRODUCER, account_id="a"),)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """Connections in the service's role."""
    engine = make_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def clock() -> FakeClock:
    """A clock for the store and the test."""
    return FakeClock(BEGIN + 1)


@pytest.fixture
def store(engine: Engine, clock: FakeClock) -> AccountStore:
    """The store under test."""
    return AccountStore(engine, clock)


def minted() -> MintedKey:
    """A fresh key."""
    return mint_key(os.urandom, pepper=PEPPER)


def create_key(store: AccountStore) -> ApiKey:
    """A key of `a`, which must exist, that may report for it."""
    return store.create_key(minted(), account_id="a", scopes=REPORT_A, description="", by="key_1")


def read_anew(engine: Engine) -> RegistrySnapshot:
    """What a server that has just started reads."""
    return AccountStore(engine, FakeClock(BEGIN)).load()


def assert_known_is_stored(store: AccountStore, engine: Engine) -> None:
    """What the store believes after its own changes is what another one reads."""
    known, stored = store.known, read_anew(engine)
    assert known is not None
    assert known.version == stored.version
    assert {it.account_id: it for it in known.tree} == {it.account_id: it for it in stored.tree}
    assert known.credentials == stored.credentials


def test_load__empty(store: AccountStore) -> None:
    """A new database has no accounts and no keys."""
    snapshot = store.load()
    assert len(snapshot.tree) == 0
    assert snapshot.credentials == {}


def test_change__is_read_by_others(store: AccountStore, engine: Engine, clock: FakeClock) -> None:
    """Every kind of change is in the database as this store has it in memory."""
    store.create_account("a", handle="first", parent_id=None, by="key_1")
    store.create_account("b", handle="second", parent_id=None, by="key_1")
    clock.now += 1234
    store.create_account("c", handle="third", parent_id="a", by="key_1")
    store.move_account("c", parent_id="b", start_ms=None, by="key_1")
    store.move_account("c", parent_id=None, start_ms=BEGIN + 5 * INTERVAL_MS, by="key_1")
    store.move_account("c", parent_id="a", start_ms=BEGIN + 2 * INTERVAL_MS, by="key_1")
    store.close_account("c", by="key_1")
    key = create_key(store)
    store.rotate_key(key.key_id, minted(), grace_seconds=7, by="key_1")
    store.revoke_key(create_key(store).key_id, by="key_1")
    assert_known_is_stored(store, engine)
    stored = read_anew(engine).tree.get("c")
    assert (stored.handle, stored.create_ms, stored.close_ms) == ("third", clock.now, clock.now)
    assert stored.parents == tuple(
        ParentEdge(start_ms=BEGIN + number * INTERVAL_MS, parent_id=parent)
        for number, parent in [(0, "a"), (1, "b"), (2, "a"), (5, None)]
    )


def test_change__moves_the_version(store: AccountStore) -> None:
    """Each change moves the version by one; what changes nothing leaves it."""
    versions = [store.version()]

    def note(result: object) -> None:
        assert result
        versions.append(store.version())

    note(store.create_account("a", handle="a", parent_id=None, by="key_1"))
    note(store.create_account("b", handle="b", parent_id=None, by="key_1"))
    note(store.move_account("b", parent_id="a", start_ms=None, by="key_1"))
    note(key := create_key(store))
    note(store.rotate_key(key.key_id, minted(), grace_seconds=60, by="key_1"))
    note(store.revoke_key(key.key_id, by="key_1"))
    note(store.close_account("b", by="key_1"))
    assert versions == list(range(versions[0], versions[0] + 8))
    note(store.move_account("b", parent_id="a", start_ms=None, by="key_1"))
    note(store.revoke_key(key.key_id, by="key_1"))
    assert versions[-2:] == versions[-3:-1]


def test_change__refused_leaves_nothing(store: AccountStore, engine: Engine) -> None:
    """A change that is refused is nowhere, neither in the database nor in memory."""
    store.create_account("a", handle="a", parent_id=None, by="key_1")
    before = read_anew(engine)
    refused: list[Callable[[], object]] = [
        lambda: store.create_account("b", handle="a", parent_id=None, by="key_1"),
        lambda: store.create_account("b", handle="b", parent_id="nobody", by="key_1"),
        lambda: store.move_account("a", parent_id="a", start_ms=None, by="key_1"),
        lambda: store.close_account("nobody", by="key_1"),
        lambda: store.create_key(
            minted(), account_id="b", scopes=REPORT_A, description="", by="key_1"
        ),
        lambda: store.create_key(
            minted(),
            account_id=None,
            scopes=(replace(REPORT_A[0], account_id="b"),),
            description="",
            by="key_1",
        ),
        lambda: store.rotate_key("key_nobody", minted(), grace_seconds=0, by="key_1"),
        lambda: store.revoke_key("key_nobody", by="key_1"),
    ]
    for change in refused:
        with pytest.raises(MeterError):
            change()
    assert read_anew(engine).version == before.version
    assert_known_is_stored(store, engine)


def test_change__sees_what_others_have_changed(
    store: AccountStore, engine: Engine, clock: FakeClock
) -> None:
    """The rules are checked against the newest accounts, whoever has changed them."""
    other = AccountStore(engine, clock)
    store.create_account("a", handle="a", parent_id=None, by="key_1")
    store.create_account("b", handle="b", parent_id=None, by="key_1")
    other.load()
    store.move_account("a", parent_id="b", start_ms=None, by="key_1")
    with pytest.raises(Refused) as caught:
        other.move_account("b", parent_id="a", start_ms=None, by="key_1")
    assert caught.value.reason is Reason.MOVE_REFUSED


def at_once(
    database_url: str, first: Callable[[], object], second: Callable[[], object]
) -> list[MeterError]:
    """Run both so that each has begun before either may go on; return what was refused."""
    with (
        ThreadPoolExecutor(2) as threads,
        psycopg.connect(database_url) as gate,
        psycopg.connect(database_url, autocommit=True) as watcher,
    ):
        gate.execute("SELECT version FROM registry FOR UPDATE")
        futures: list[Future[object]] = [threads.submit(first), threads.submit(second)]
        _wait_until_blocked(watcher, count=2)
        gate.rollback()
        errors = [future.exception() for future in futures]
    assert all(it is None or isinstance(it, MeterError) for it in errors)
    return [it for it in errors if isinstance(it, MeterError)]


def _wait_until_blocked(watcher: psycopg.Connection, *, count: int) -> None:
    """Wait until so many connections to this database wait for a lock."""
    give_up = time.monotonic() + WAIT_SECONDS_MAX
    blocked = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    while watcher.execute(blocked).fetchone() != (count,):
        assert time.monotonic() < give_up, "nobody waits for the registry's lock"
        time.sleep(LOOK_SECONDS)


def test_move_account__concurrent_cycle(
    store: AccountStore, engine: Engine, clock: FakeClock, database_url: str
) -> None:
    """Of two moves at once that together would make a cycle, one is refused."""
    store.create_account("a", handle="a", parent_id=None, by="key_1")
    store.create_account("b", handle="b", parent_id=None, by="key_1")
    other = AccountStore(engine, clock)
    other.load()
    errors = at_once(
        database_url,
        lambda: store.move_account("a", parent_id="b", start_ms=None, by="key_1"),
        lambda: other.move_account("b", parent_id="a", start_ms=None, by="key_1"),
    )
    assert [error.reason for error in errors] == [Reason.MOVE_REFUSED]
    tree = read_anew(engine).tree
    assert {tree.path(it, at_ms=BEGIN + INTERVAL_MS) for it in "ab"} in ({"a", "a/b"}, {"b", "b/a"})


def test_create_account__concurrent_handle(
    store: AccountStore, engine: Engine, clock: FakeClock, database_url: str
) -> None:
    """Of two accounts created at once with the same handle and parent, one is refused."""
    other = AccountStore(engine, clock)
    errors = at_once(
        database_url,
        lambda: store.create_account("a", handle="same", parent_id=None, by="key_1"),
        lambda: other.create_account("b", handle="same", parent_id=None, by="key_1"),
    )
    assert [error.reason for error in errors] == [Reason.ACCOUNT_EXISTS]
    assert len(read_anew(engine).tree) == 1


def test_rotate_key__concurrent(
    store: AccountStore, engine: Engine, clock: FakeClock, database_url: str
) -> None:
    """Of two rotations of a key at once, one is refused: two live keys remain."""
    store.create_account("a", handle="a", parent_id=None, by="key_1")
    key = create_key(store)
    other = AccountStore(engine, clock)
    errors = at_once(
        database_url,
        lambda: store.rotate_key(key.key_id, minted(), grace_seconds=60, by="key_1"),
        lambda: other.rotate_key(key.key_id, minted(), grace_seconds=60, by="key_1"),
    )
    assert [error.reason for error in errors] == [Reason.ROTATION_REFUSED]
    live = [it for it in store.list_keys(owners=None) if not it.credential.is_ended_at(clock.now)]
    assert len(live) == 2


def test_create_key__keeps_the_hash_alone(store: AccountStore, database_url: str) -> None:
    """The database has a key's keyed hash and prefix, and nowhere the key."""
    text = store.create_installation_key(os.urandom, pepper=PEPPER, description="first")
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT prefix, secret_hash, api_keys::text FROM api_keys"
        ).fetchall()
    assert [(prefix, secret_hash) for prefix, secret_hash, _ in rows] == [
        (text[:10], hash_api_key(text, pepper=PEPPER))
    ]
    assert text not in rows[0][2]


def test_create_installation_key__may_do_everything(store: AccountStore) -> None:
    """The first key of an installation has each role on all of it."""
    text = store.create_installation_key(os.urandom, pepper=PEPPER, description="first")
    credential = store.load().credentials[hash_api_key(text, pepper=PEPPER)]
    assert credential.account_id is None
    assert set(credential.scopes) == {Scope(role=it, account_id=None) for it in Role}


def test_rotate_key__two_live_keys(store: AccountStore, engine: Engine, clock: FakeClock) -> None:
    """A successor has the same scopes, the old key goes on for the grace, and a third must wait."""
    store.create_account("a", handle="a", parent_id=None, by="key_1")
    first = store.create_key(
        minted(), account_id="a", scopes=REPORT_A, description="gateway", by="key_1"
    )
    # Keys are listed by creation: they are not of one millisecond.
    clock.now += 1
    secret = minted()
    second = store.rotate_key(first.key_id, secret, grace_seconds=60, by="key_1")
    assert second == ApiKey(
        credential=Credential(key_id=secret.key_id, account_id="a", scopes=REPORT_A, end_ms=None),
        prefix=secret.prefix,
        create_ms=clock.now,
        rotated_from=first.key_id,
        description="gateway",
    )
    ended = store.find_key(first.key_id)
    assert ended is not None
    assert ended.credential.end_ms == clock.now + 60_000
    for key_id in (first.key_id, second.key_id):
        with pytest.raises(Refused):
            store.rotate_key(key_id, minted(), grace_seconds=60, by="key_1")
    clock.now += 60_000
    third = store.rotate_key(second.key_id, minted(), grace_seconds=0, by="key_1")
    keys = store.list_keys(owners=None)
    assert [it.credential.is_ended_at(clock.now) for it in keys] == [True, True, False]
    assert [it.key_id for it in keys] == [first.key_id, second.key_id, third.key_id]
    assert_known_is_stored(store, engine)


def test_rotate_key__after_its_successor_was_revoked(store: AccountStore) -> None:
    """A key in its grace may get another successor once the first one is revoked."""
    store.create_account("a", handle="a", parent_id=None, by="key_1")
    first = create_key(store)
    lost = store.rotate_key(first.key_id, minted(), grace_seconds=60, by="key_1")
    store.revoke_key(lost.key_id, by="key_1")
    again = store.rotate_key(first.key_id, minted(), grace_seconds=90, by="key_1")
    kept = store.find_key(first.key_id)
    assert kept is not None
    assert again.rotated_from == first.key_id
    assert kept.credential.end_ms == lost.create_ms + 60_000


def test_revoke_key__again(store: AccountStore, clock: FakeClock) -> None:
    """A key ends when it is first revoked; a key in its grace ends at once."""
    store.create_account("a", handle="a", parent_id=None, by="key_1")
    key = create_key(store)
    store.rotate_key(key.key_id, minted(), grace_seconds=60, by="key_1")
    clock.now += 5
    revoked = store.revoke_key(key.key_id, by="key_1")
    assert revoked.credential.end_ms == clock.now
    clock.now += 5
    assert store.revoke_key(key.key_id, by="key_1") == revoked
    assert store.find_key(key.key_id) == revoked


def test_revoke_key__unknown(store: AccountStore) -> None:
    """There is nothing to revoke where there is no key."""
    with pytest.raises(NotFound) as caught:
        store.revoke_key("key_nobody", by="key_1")
    assert caught.value.reason is Reason.API_KEY_NOT_FOUND


def test_list_keys__of_owners(store: AccountStore, clock: FakeClock) -> None:
    """Keys are listed by owner, oldest first; those of the installation only among all."""
    store.create_installation_key(os.urandom, pepper=PEPPER, description="")
    expected: dict[str, list[str]] = {"a": [], "b": []}
    for owner in expected:
        store.create_account(owner, handle=owner, parent_id=None, by="key_1")
    for owner in ("a", "b", "a"):
        clock.now += 1
        key = store.create_key(
            minted(), account_id=owner, scopes=REPORT_A, description="", by="key_1"
        )
        expected[owner].append(key.key_id)
    for owner, key_ids in expected.items():
        assert [it.key_id for it in store.list_keys(owners=[owner])] == key_ids
    assert len(store.list_keys(owners=["a", "b"])) == 3
    assert len(store.list_keys(owners=None)) == 4
    assert store.list_keys(owners=[]) == []


def test_change__connection_lost(store: AccountStore, engine: Engine, database_url: str) -> None:
    """A connection that is cut in a change is Unavailable, and the next call finds a new one."""
    store.create_account("a", handle="a", parent_id=None, by="key_1")
    with (
        ThreadPoolExecutor(1) as threads,
        psycopg.connect(database_url) as gate,
        psycopg.connect(database_url, autocommit=True) as watcher,
    ):
        gate.execute("SELECT version FROM registry FOR UPDATE")
        future = threads.submit(store.close_account, "a", by="key_1")
        _wait_until_blocked(watcher, count=1)
        watcher.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        error = future.exception()
    assert isinstance(error, Unavailable)
    assert error.reason is Reason.STORE_UNAVAILABLE
    assert store.close_account("a", by="key_1").close_ms is not None
    assert_known_is_stored(store, engine)
