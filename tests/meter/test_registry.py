"""The registry: what this process knows of accounts and keys, and how it hears of changes."""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Engine

from meter.domain.errors import Unavailable
from meter.registry import Registry
from meter.runtime.engine import make_engine
from meter.store.accounts import AccountStore
from tests.clock import FakeClock
from tests.postgres import Cluster


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """Connections in the service's role."""
    engine = make_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def clock() -> FakeClock:
    """A clock for the store and the registry."""
    return FakeClock(1_800_000_000_000)


@pytest.fixture
def store(engine: Engine, clock: FakeClock) -> AccountStore:
    """A store through which something is changed."""
    return AccountStore(engine, clock)


def test_registry__sees_other_servers_changes(
    store: AccountStore, engine: Engine, clock: FakeClock
) -> None:
    """A refresh brings what another server changed; until then the old snapshot stays whole."""
    registry = Registry(AccountStore(engine, clock), clock)
    with pytest.raises(Unavailable):
        _ = registry.snapshot
    registry.refresh()
    before = registry.snapshot
    registry.refresh()
    assert registry.snapshot is before
    store.create_account("a", handle="a", parent_id=None, by="key_1")
    assert registry.snapshot is before
    registry.refresh()
    assert registry.snapshot.tree.find("a") is not None


def test_registry__adopts_own_changes(store: AccountStore, clock: FakeClock) -> None:
    """What this server has changed holds without another look at the database."""
    registry = Registry(store, clock)
    registry.refresh()
    store.create_account("a", handle="a", parent_id=None, by="key_1")
    registry.adopt()
    assert registry.snapshot.tree.find("a") is not None
    assert registry.snapshot.version == store.version()


def test_registry__without_database(
    store: AccountStore, engine: Engine, clock: FakeClock, cluster: Cluster
) -> None:
    """While the database is away the snapshot stays, and tells since when it is not checked."""
    registry = Registry(store, clock)
    registry.refresh()
    snapshot = registry.snapshot
    clock.now += 3_000
    engine.dispose()
    name = sql.Identifier(str(engine.url.database))
    for allowed in (False, True):
        with psycopg.connect(cluster.url(), autocommit=True) as connection:
            statement = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
            connection.execute(statement.format(name, sql.Literal(allowed)))
        if not allowed:
            with pytest.raises(Unavailable):
                registry.refresh()
            assert registry.snapshot is snapshot
            assert registry.age_seconds() == 3.0
    registry.refresh()
    assert registry.age_seconds() == 0.0
