"""What the client relies on, held against the fake meter and a real one alike."""

import itertools
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

from tests.client.conftest import wait_for_state
from tests.client.fake_meter import API_KEY, WAIT_SECONDS, FakeMeter
from tests.client.reporting import ACCOUNT, create_account
from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on
from tokenworks.client import Meter, State, Statistics, TokenClass


@dataclass(frozen=True, slots=True, kw_only=True)
class SomeMeter:
    """A meter to report to, under a name that no other test has."""

    target: str
    api_key: str
    producer: str

    def client(self, **arguments: Any) -> Meter:  # noqa: ANN401 - any argument of Meter
        """Make a client with dimensions that this meter accepts."""
        given: dict[str, Any] = {
            "api_key": self.api_key,
            "producer": self.producer,
            "account": ACCOUNT,
            "model": "m",
            "tier": "high",
            "flush_interval_seconds": 0.01,
        }
        return Meter(self.target, **(given | arguments))


_NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def shared_meter(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningMeter]:
    """A real meter with an account in it."""
    folder = tmp_path_factory.mktemp("contract")
    with cluster.database() as url, running_meter_on(url, folder=folder) as running:
        create_account(running)
        yield running


@pytest.fixture
def real_meter(shared_meter: RunningMeter) -> SomeMeter:
    """The real one as a test sees it."""
    name = f"p{next(_NUMBERS)}"
    return SomeMeter(target=shared_meter.target, api_key=shared_meter.api_key, producer=name)


@pytest.fixture(params=["fake_meter", "real_meter"])
def some_meter(request: pytest.FixtureRequest) -> SomeMeter:
    """The fake meter, then the real one."""
    meter = request.getfixturevalue(request.param)
    if isinstance(meter, FakeMeter):
        meter.set(knows_clones=True)
        return SomeMeter(target=meter.target, api_key=API_KEY, producer="p")
    assert isinstance(meter, SomeMeter)
    return meter


def test_contract__reports_are_durable(some_meter: SomeMeter) -> None:
    """What is flushed is acknowledged, and nothing of it set aside."""
    with some_meter.client() as client:
        for i in range(25_000):
            client.record(input=i, output=1, duration_ms=5, request_id=f"r{i}")
        assert client.flush(WAIT_SECONDS)
        assert client.statistics == Statistics(
            recorded=25_000, acknowledged=25_000, state=State.STREAMING
        )


def test_contract__newer_process_takes_over(some_meter: SomeMeter) -> None:
    """A new process goes on with the numbers of the old one, which is told to stop."""
    with some_meter.client() as older, some_meter.client() as newer:
        older.record()
        assert older.flush(WAIT_SECONDS)
        for _ in range(3):
            newer.record()
            assert newer.flush(WAIT_SECONDS)
        older.record()
        assert older.flush(WAIT_SECONDS) is False
        assert older.statistics.state is State.TAKEN_OVER
        assert newer.statistics.acknowledged == 3


def test_contract__copied_spool_counts_nothing_twice(some_meter: SomeMeter, tmp_path: Path) -> None:
    """A copy of a spool takes over; a batch under a number that was used is set aside, whole."""
    with some_meter.client(spool=tmp_path / "a") as older:
        older.record(input=1)
        assert older.flush(WAIT_SECONDS)
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        with some_meter.client(spool=tmp_path / "b") as newer:
            newer.record(input=2)
            assert newer.flush(WAIT_SECONDS)
            older.record(input=3)
            assert older.flush(WAIT_SECONDS) is False
            assert older.statistics.state is State.TAKEN_OVER
            assert newer.statistics.set_aside == 0
    with some_meter.client(spool=tmp_path / "a") as again:
        again.record(input=4)
        assert again.flush(WAIT_SECONDS)
        statistics = again.statistics
        assert (statistics.restored, statistics.acknowledged, statistics.set_aside) == (1, 2, 1)


def test_contract__restarted_spool_sends_no_more_than_the_newest_again(
    some_meter: SomeMeter, tmp_path: Path
) -> None:
    """After a crash the meter has all that it had acknowledged, and gets the rest."""
    with some_meter.client(spool=tmp_path / "a") as client:
        for _ in range(5):
            client.record(input=1)
            assert client.flush(WAIT_SECONDS)
        shutil.copytree(tmp_path / "a", tmp_path / "b")
    with some_meter.client(spool=tmp_path / "b") as client:
        client.record(input=1)
        assert client.flush(WAIT_SECONDS)
        assert client.statistics.set_aside == 0
        assert client.statistics.resent <= 1
        assert client.statistics.gaps == 0


def test_contract__repeated_batch_is_a_success(some_meter: SomeMeter) -> None:
    """The same number with the same bytes is acknowledged again, and nothing is set aside."""
    with some_meter.client(interceptors=[_Tampering(copies=lambda _: 2)]) as client:
        for _ in range(5):
            client.record()
            assert client.flush(WAIT_SECONDS)
        assert client.statistics.acknowledged == 5
        assert client.statistics.set_aside == 0


def test_contract__hole_calls_the_stream_back(some_meter: SomeMeter) -> None:
    """A batch that got lost on the way is asked for, and everything arrives after all."""
    lost_once = _Tampering(copies=lambda index: 0 if index == 2 else 1)
    with some_meter.client(interceptors=[lost_once]) as client:
        for _ in range(40_000):
            client.record()
        assert client.flush(WAIT_SECONDS)
        assert client.statistics.acknowledged == 40_000
        assert client.statistics.resent >= 1


def test_contract__wrong_key_is_refused(some_meter: SomeMeter) -> None:
    """Without a valid API key nothing is taken, and nothing is lost."""
    client = some_meter.client(api_key="wrong")
    client.record()
    wait_for_state(client, State.REFUSED)
    assert client.statistics.held == 1
    assert client.close(0) is False


# What no meter can accept, and how the client makes it fit the wire: it must not come to pass for
# anything that would be counted.
BEYOND: Final[dict[str, dict[str, object]]] = {
    "a count of more than 64 bits": {"input": 2**70},
    "a negative count": {"output": -1},
    "a duration of more than 32 bits": {"duration_ms": 2**40},
    "an attempt of less than -32 bits": {"attempt": -(2**40)},
    "a total of more than 32 bits": {"reported_input_count": 2**31},
    "a total below zero": {"reported_output_count": -(2**31)},
    "an unknown finish": {"finish": 99},
    "an unknown quality": {"quality": 99},
    "an unknown mode": {"mode": 99},
    "an unknown class": {"tokens": {999: 5}},
    "an endless request id": {"request_id": "x" * 10**6},
    "an endless account": {"account": "x" * 10**6},
    "an account without UTF-8": {"account": "\ud800"},
    "no account": {"account": ""},
    "a time beyond the year 9999": {"end_time": 1e15},
    "a time before the year 1": {"end_time": -1e15},
    "a time of a thousand digits": {"end_time": 10**999},
}


def test_contract__what_is_made_to_fit_is_set_aside(real_meter: SomeMeter) -> None:
    """Each event that the client had to cut to the wire's size is kept in quarantine, alone."""
    with real_meter.client() as client:
        for i, (case, arguments) in enumerate(BEYOND.items(), start=1):
            client.record(input=1)
            assert client.record(**arguments)  # type: ignore[arg-type]
            client.record(tokens={TokenClass.AUDIO_INPUT: 1})
            assert client.flush(WAIT_SECONDS)
            assert client.statistics.set_aside == i, case
        assert client.statistics.acknowledged == 3 * len(BEYOND)


class _Tampering(grpc.StreamStreamClientInterceptor):
    """Sends each message after the first so many times as wanted; `copies` is given its index."""

    def __init__(self, *, copies: Callable[[int], int]) -> None:
        self._copies = copies
        self._index = 0

    def intercept_stream_stream(  # type: ignore[override] # bytes are what it gets here
        self,
        continuation: Callable[..., Any],
        client_call_details: grpc.ClientCallDetails,
        request_iterator: Iterator[bytes],
    ) -> Any:  # noqa: ANN401 - gRPC's own
        def tampered() -> Iterator[bytes]:
            yield next(request_iterator)
            for request in request_iterator:
                self._index += 1
                for _ in range(self._copies(self._index)):
                    yield request

        return continuation(client_call_details, tampered())
