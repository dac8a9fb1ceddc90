"""Fixtures of the store's tests: connections, the journal's owner, whoever counts."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from meter.runtime.engine import make_engine
from meter.store.journal import JournalStore
from meter.store.usage import UsageStore
from tests.meter.store.recording import (
    counting_of,
    create_accounts,
    owner,
)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """Connections in the service's role, to a database with accounts."""
    create_accounts(database_url)
    engine = make_engine(database_url, pool_size=12)
    yield engine
    engine.dispose()


@pytest.fixture
def store(engine: Engine) -> JournalStore:
    """The owner of shard 0."""
    return owner(engine)


@pytest.fixture
def journal(engine: Engine) -> JournalStore:
    """The owner of shard 0."""
    return owner(engine)


@pytest.fixture
def usage(engine: Engine, journal: JournalStore) -> UsageStore:
    """Counts shard 0."""
    del journal
    return counting_of(engine)
