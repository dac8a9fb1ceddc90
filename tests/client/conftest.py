"""What every test of the client may ask for."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, TypeAlias

import pytest

from tests.client.fake_meter import API_KEY, WAIT_SECONDS, FakeMeter
from tokenworks.client import Meter, State

MakeClient: TypeAlias = Callable[..., Meter]


@pytest.fixture
def fake_meter() -> Iterator[FakeMeter]:
    """A meter that does as the test wants."""
    with FakeMeter().serving() as meter:
        yield meter


@pytest.fixture
def make_client(fake_meter: FakeMeter) -> Iterator[MakeClient]:
    """A function that makes clients of the fake meter; they are closed without a wait at the end.

    Its keyword arguments are those of `Meter`.
    """
    with ExitStack() as stack:

        def make(**arguments: Any) -> Meter:  # noqa: ANN401 - any argument of Meter
            given: dict[str, Any] = {
                "target": fake_meter.target,
                "api_key": API_KEY,
                "producer": "p",
                "flush_interval_seconds": 0.01,
            }
            client = Meter(**(given | arguments))
            stack.callback(client.close, 0)
            return client

        yield make


def wait_for_state(client: Meter, state: State) -> None:
    """Wait until a client that cannot deliver what it holds has come to a state."""
    for _ in range(WAIT_SECONDS * 20):
        if client.statistics.state is state:
            return
        assert client.flush(0.05) is False
    raise AssertionError(f"{client.statistics.state} instead of {state}")


def wait_for_exit() -> None:
    """Wait until all senders have ended: `close` goes on without one whose disk takes too long."""
    for thread in threading.enumerate():
        if thread.name == "tokenworks-sender":
            thread.join(WAIT_SECONDS)
            assert not thread.is_alive()
