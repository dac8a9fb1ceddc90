"""What a producer says of itself, and how it then stands in the list."""

from tests.wire.session import Session
from tokenworks.meter.v1 import meter_service_pb2
from tokenworks.meter.v1 import producer_service_pb2 as pb


def beat(last_sequence: int = 0) -> meter_service_pb2.StreamUsageRequest:
    """Return a heartbeat that announces a number."""
    heartbeat = meter_service_pb2.Heartbeat(last_sequence=last_sequence)
    return meter_service_pb2.StreamUsageRequest(heartbeat=heartbeat)


def find(session: Session, name: str, *, account: str = "") -> pb.Producer:
    """Return the one producer of this name."""
    answer = session.call(
        "ListProducers", pb.ListProducersRequest(account=account, page_size=1_000)
    )
    (found,) = [
        each for each in answer.producers if (each.producer, each.account) == (name, account)
    ]
    assert isinstance(found, pb.Producer)
    return found
