"""The interceptor that counts batches and sends some of them twice."""

from collections.abc import Iterator
from typing import Any, cast

import grpc
import pytest

from cli.simulate.wiretap import Wiretap
from tokenworks.meter.v1.meter_service_pb2 import Heartbeat, OpenStream, StreamUsageRequest
from tokenworks.meter.v1.usage_pb2 import UsageBatch

OPEN = StreamUsageRequest(open=OpenStream(producer="p")).SerializeToString()
HEARTBEAT = StreamUsageRequest(heartbeat=Heartbeat()).SerializeToString()


@pytest.mark.parametrize(
    ("percent", "phase", "twice"),
    [
        (0, 0.0, []),
        (0, 0.9, []),
        (1, 0.0, [100, 200, 300]),
        (1, 0.75, [25, 125, 225]),
        (40, 0.0, [3, 5, 8, 10]),
        (100, 0.0, [1, 2, 3]),
    ],
)
def test_tap__share(percent: float, phase: float, twice: list[int]) -> None:
    """Of the batches exactly the share that was asked for goes out twice, from the phase on."""
    tap = Wiretap(resend_percent=percent, phase=phase)
    sent = _sent(tap, [_batch(sequence) for sequence in range(1, 301)])
    repeated = [sequence for sequence in range(1, 301) if sent.count(_batch(sequence)) == 2]
    assert repeated[: len(twice)] == twice
    assert len(repeated) == tap.resent_count == 300 * percent / 100
    assert len(sent) == 300 + tap.resent_count


def test_tap__other_messages() -> None:
    """Only batches are sent twice, each right behind itself and with the same bytes."""
    tap = Wiretap(resend_percent=100, phase=0.0)
    assert _sent(tap, [OPEN, _batch(1), HEARTBEAT]) == [OPEN, _batch(1), _batch(1), HEARTBEAT]
    assert tap.batch_count == 1


def test_tap__next_stream() -> None:
    """What the client repeats on a new stream counts as repeated, and is not sent twice again."""
    tap = Wiretap(resend_percent=100, phase=0.0)
    assert len(_sent(tap, [OPEN, _batch(1), _batch(2)])) == 5
    assert _sent(tap, [OPEN, _batch(2), _batch(3)]) == [OPEN, _batch(2), _batch(3), _batch(3)]
    counts = (tap.stream_count, tap.batch_count, tap.repeated_count, tap.resent_count)
    assert counts == (2, 3, 1, 3)


def test_tap__broken_off() -> None:
    """A batch counts as sent from the moment that gRPC has taken it, even if it asks no further."""
    tap = Wiretap(resend_percent=0, phase=0.0)
    stream = _open(tap, iter([_batch(1), _batch(2)]))
    next(stream)
    assert tap.batch_count == 1


def _batch(sequence: int) -> bytes:
    return StreamUsageRequest(batch=UsageBatch(sequence=sequence)).SerializeToString()


def _sent(tap: Wiretap, messages: list[bytes]) -> list[bytes]:
    return list(_open(tap, iter(messages)))


def _open(tap: Wiretap, messages: Iterator[bytes]) -> Iterator[bytes]:
    """Open a stream whose call is what goes out."""

    def echo(_: grpc.ClientCallDetails, requests: Iterator[bytes]) -> Any:  # noqa: ANN401
        return requests

    details = cast("grpc.ClientCallDetails", None)
    return cast("Iterator[bytes]", tap.intercept_stream_stream(echo, details, messages))
