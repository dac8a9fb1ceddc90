"""Sessions that are a connection's own, and such as are shared; the pooler is among the stacks."""

import pytest
from sqlalchemy import NullPool, StaticPool, create_engine

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


def test_sessions__without_a_database() -> None:
    """A database that is away is said to be away, and nothing else."""
    with pytest.raises(Unavailable):
        refuse_shared_sessions("postgresql://nobody@127.0.0.1:1/none")
