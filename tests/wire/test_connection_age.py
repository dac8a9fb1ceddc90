"""A connection lives for a bounded time, and what reports over it loses nothing by that."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from tests.client.reporting import ACCOUNT, create_account
from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on
from tests.wire.producing import find
from tests.wire.session import Session, event, opening, rows
from tests.wire.talk import read_metric, talking
from tokenworks.client import Meter
from tokenworks.meter.v1 import producer_service_pb2, usage_pb2

INPUT = usage_pb2.TOKEN_CLASS_INPUT


class StreamCount(grpc.StreamStreamClientInterceptor):
    """Counts the streams that a client opens."""

    def __init__(self) -> None:
        self.count = 0

    def intercept_stream_stream(
        self,
        continuation: Callable[..., Any],
        client_call_details: grpc.ClientCallDetails,
        request_iterator: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Count it and send it on."""
        self.count += 1
        return continuation(client_call_details, request_iterator)


@pytest.fixture(scope="module")
def hasty_meter(
    cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningMeter]:
    """A meter whose connections live for two seconds."""
    folder = tmp_path_factory.mktemp("hasty")
    settings = {"connection_age_seconds": "2"}
    with (
        cluster.database() as url,
        running_meter_on(url, folder=folder, settings=settings) as running,
    ):
        create_account(running)
        yield running


def test_stream__ends_before_its_connection(hasty_meter: RunningMeter) -> None:
    """A stream is answered, then ends without an error; its producer is not taken as gone."""
    session = Session(hasty_meter)
    with talking(session) as talk:
        talk.say(opening("raw"), rows(1, event()))
        assert [talk.hear().WhichOneof("message") for _ in range(2)] == ["opened", "ack"]
        with pytest.raises(StopIteration):
            talk.hear()
    assert read_metric(hasty_meter, "tokenworks_calls_failed_total") == 0
    assert find(session, "raw").state == producer_service_pb2.PRODUCER_STATE_ACTIVE


def test_client__comes_back_without_loss(
    hasty_meter: RunningMeter, caplog: pytest.LogCaptureFixture
) -> None:
    """The client reports on, over one connection after the other, and each event counts once."""
    streams, recorded = StreamCount(), 0
    session = Session(hasty_meter)
    before = session.counted().get((ACCOUNT, "high", INPUT), 0)
    with (
        caplog.at_level(logging.INFO, "tokenworks.client"),
        Meter(
            hasty_meter.target,
            api_key=hasty_meter.api_key,
            producer="sdk",
            interceptors=[streams],
        ) as client,
    ):
        while streams.count < 2:
            recorded += client.record(account=ACCOUNT, model="m", tier="high", input=1)
            assert client.flush(20)
    assert session.counted()[(ACCOUNT, "high", INPUT)] - before == recorded
    assert caplog.text.count("state=connecting target=") == 2
    assert caplog.text.count("code=OK reason= detail=the meter ended the stream") == 1
    assert not [it for it in caplog.records if it.levelno > logging.INFO]
