"""A database with accounts, an exporter, and a recorder that reads it."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from meter.runtime.engine import make_engine
from tests.exporter import Exporter, running_exporter
from tests.meter.energy.hall import Hall, hall_of
from tests.meter.store.recording import create_accounts


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """Connections in the service's role, to a database with accounts."""
    create_accounts(database_url)
    engine = make_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    """An exporter with one board."""
    with running_exporter() as running:
        running.boards["GPU-1"] = 1_000_000
        yield running


@pytest.fixture
def hall(engine: Engine, exporter: Exporter) -> Iterator[Hall]:
    """A hall with the one exporter."""
    with hall_of(engine, exporter) as hall:
        yield hall
