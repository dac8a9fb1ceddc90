"""Sessions that are a connection's own, and such as are shared; the pooler is among the stacks."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
from sqlalchemy import Connection, Engine, NullPool, StaticPool, create_engine

from meter.domain.errors import Unavailable
from meter.runtime.sessions import are_shared, refuse_shared_sessions


def test_sessions__of_their_own(database_url: str) -> None:
    """Connections that nobody comes between have each their session."""
    refuse_shared_sessions(database_url)
    assert not are_shared(create_engine(database_url, poolclass=NullPool))


def test_sessions__that_are_one(database_url: str) -> None:
    """Two connections that end in one session are found out."""
    engine = create_engine(database_url, poolclass=StaticPool)
    assert are_shared(engine)
    engine.dispose()


def test_sessions__that_are_given_out_in_turn(database_url: str) -> None:
    """Two sessions that go from one to the other by transactions are found out, too."""
    engine = create_engine(database_url, poolclass=NullPool)
    with engine.connect() as one, engine.connect() as other:
        assert are_shared(cast("Engine", _InTurn(one, other)))


class _InTurn:
    """An engine as behind a pooler: each transaction of any connection has the next session."""

    def __init__(self, *sessions: Connection) -> None:
        self._turns = itertools.cycle(sessions)

    @contextmanager
    def connect(self) -> Iterator["_Client"]:
        yield _Client(self._turns)


class _Client:
    def __init__(self, turns: Iterator[Connection]) -> None:
        self._turns = turns
        self._session: Connection | None = None

    def execute(self, *arguments: Any) -> Any:  # noqa: ANN401
        self._session = self._session or next(self._turns)
        return self._session.execute(*arguments)

    def commit(self) -> None:
        if self._session is not None:
            self._session.commit()
        self._session = None


def test_sessions__without_a_database() -> None:
    """A database that is away is said to be away, and nothing else."""
    with pytest.raises(Unavailable):
        refuse_shared_sessions("postgresql://nobody@127.0.0.1:1/none")
