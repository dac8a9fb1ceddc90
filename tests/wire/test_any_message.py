"""Every call of the contract with messages of any content: an answer, or a reason; no fault."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, Phase, given, settings

from billing.errors import BillingReason
from meter.domain.errors import Reason
from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on
from tests.wire.any_message import any_message
from tests.wire.talk import info_of
from tokenworks.billing.v1 import billing_service_pb2
from tokenworks.meter.v1 import (
    account_service_pb2,
    audit_service_pb2,
    clock_service_pb2,
    energy_service_pb2,
    engine_service_pb2,
    meter_service_pb2,
    producer_service_pb2,
)

METHODS: Final[list[MethodDescriptor]] = [
    method
    for file in (
        account_service_pb2.DESCRIPTOR,
        audit_service_pb2.DESCRIPTOR,
        billing_service_pb2.DESCRIPTOR,
        clock_service_pb2.DESCRIPTOR,
        energy_service_pb2.DESCRIPTOR,
        engine_service_pb2.DESCRIPTOR,
        meter_service_pb2.DESCRIPTOR,
        producer_service_pb2.DESCRIPTOR,
    )
    for service in file.services_by_name.values()
    for method in service.methods
]
REASONS: Final = {reason.value for kind in (Reason, BillingReason) for reason in kind}


@pytest.fixture(scope="module")
def meter(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMeter]:
    """A meter of which nobody else sees what became."""
    folder = tmp_path_factory.mktemp("any")
    with cluster.database() as url, running_meter_on(url, folder=folder) as running:
        yield running


@pytest.fixture(scope="module")
def channel(meter: RunningMeter) -> Iterator[grpc.Channel]:
    """A connection to it."""
    with grpc.insecure_channel(meter.target) as channel:
        yield channel


def ask(channel: grpc.Channel, method: MethodDescriptor, message: Message, *, api_key: str) -> None:
    """Send a message, and take all that is answered."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    answer = GetMessageClass(method.output_type).FromString
    how: dict[str, Any] = {
        "metadata": (("authorization", f"Bearer {api_key}"),),
        "timeout": 30,
    }
    raw = message.SerializeToString()
    call: Any
    if method.client_streaming:
        call = channel.stream_stream(path, None, answer)
        list(call(iter([raw]), **how))
    elif method.server_streaming:
        call = channel.unary_stream(path, None, answer)
        list(call(raw, **how))
    else:
        call = channel.unary_unary(path, None, answer)
        call(raw, **how)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_call__any_message_has_an_answer(
    meter: RunningMeter, channel: grpc.Channel, method: MethodDescriptor
) -> None:
    """Whatever stands in a message, it is answered, or refused by a reason of the closed set."""

    @settings(
        max_examples=4,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(message=any_message(method.input_type))
    def answers(message: Message) -> None:
        try:
            ask(channel, method, message, api_key=meter.api_key)
        except grpc.RpcError as error:
            reason = info_of(error).reason
            assert reason in REASONS - {Reason.INTERNAL}, (reason, message)

    answers()


def test_meter__has_met_no_fault(meter: RunningMeter, channel: grpc.Channel) -> None:
    """After all those messages its log names no fault of its own."""
    del channel
    assert Path(meter.log).read_text("utf-8").count(" call_failed ") == 0
