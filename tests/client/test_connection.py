"""Framing of messages, and when a target may be spoken to in plain text."""

import pytest

from tokenworks.client.columns import SealedBatch
from tokenworks.client.connection import Address, is_loopback
from tokenworks.client.messages import batch_message, open_message, salted
from tokenworks.client.stream import NumberedBatch
from tokenworks.meter.v1 import usage_pb2 as pb
from tokenworks.meter.v1.meter_service_pb2 import OpenStream, StreamUsageRequest


@pytest.mark.parametrize("sequence", [1, 127, 128, 2**32, 2**63 - 1])
@pytest.mark.parametrize("event_count", [1, 40, 10_000])
def test_batch_message__is_what_protobuf_would_write(sequence: int, event_count: int) -> None:
    """The bytes laid around a batch by hand parse, and serialise again to the same bytes."""
    columns = pb.UsageColumns(dimensions_index=[0] * event_count, request_id=["r"] * event_count)
    sealed = SealedBatch(payload=columns.SerializeToString(), event_count=event_count)
    message = batch_message(NumberedBatch(sequence=sequence, batch=sealed))
    request = StreamUsageRequest(batch=pb.UsageBatch(sequence=sequence, columns=columns))
    assert message == request.SerializeToString()


def test_open_message__carries_all_fields() -> None:
    """The opening names the producer, its instance, the oldest number held and the lost ones."""
    message = open_message(producer="p", instance=b"i" * 16, first_sequence=3, missing_from=2)
    assert StreamUsageRequest.FromString(message).open == OpenStream(
        producer="p", instance=b"i" * 16, first_sequence=3, missing_from=2
    )


def test_salted__is_read_as_before() -> None:
    """The salt changes the bytes and nothing of what they mean."""
    payload = pb.UsageColumns(dimensions_index=[0], request_id=["r"]).SerializeToString()
    read = pb.UsageColumns.FromString(salted(payload, salt=b"s" * 16))
    assert read.salt == b"s" * 16
    read.ClearField("salt")
    assert read.SerializeToString() == payload


def test_batch_message__doubtful_is_what_protobuf_would_write() -> None:
    """The mark is laid behind the payload by hand too."""
    columns = pb.UsageColumns(dimensions_index=[0])
    sealed = SealedBatch(payload=columns.SerializeToString(), event_count=1)
    message = batch_message(NumberedBatch(sequence=300, batch=sealed, is_doubtful=True))
    batch = pb.UsageBatch(sequence=300, columns=columns, is_doubtful=True)
    assert message == StreamUsageRequest(batch=batch).SerializeToString()


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("127.0.0.1:7411", True),
        ("127.8.8.8:1", True),
        ("localhost:7411", True),
        ("localhost", True),
        ("[::1]:7411", True),
        ("::1", True),
        ("ipv4:127.0.0.1:7411", True),
        ("ipv6:[::1]:7411", True),
        ("dns:localhost:7411", True),
        ("dns:///localhost:7411", True),
        ("dns://8.8.8.8/localhost:7411", True),
        ("unix:/run/meter.sock", True),
        ("unix:///run/meter.sock", True),
        ("10.0.0.1:7411", False),
        ("0.0.0.0:7411", False),
        ("meter.example.com:7411", False),
        ("localhost.example.com:7411", False),
        ("127.0.0.1.example.com:7411", False),
        ("dns:///meter.example.com:7411", False),
        ("[2001:db8::1]:7411", False),
        ("", False),
    ],
)
def test_is_loopback__knows_this_machine(target: str, expected: bool) -> None:  # noqa: FBT001
    """Only a target that cannot be elsewhere counts as this machine."""
    assert is_loopback(target) is expected


@pytest.mark.parametrize(
    ("target", "insecure", "root_certificates", "plaintext"),
    [
        ("127.0.0.1:7411", False, None, True),
        ("127.0.0.1:7411", False, b"PEM", False),
        ("meter.example.com:7411", False, None, False),
        ("meter.example.com:7411", True, None, True),
        ("meter.example.com:7411", True, b"PEM", False),
    ],
)
def test_address__plain_text_stays_here_unless_asked(
    target: str,
    insecure: bool,  # noqa: FBT001
    root_certificates: bytes | None,
    plaintext: bool,  # noqa: FBT001
) -> None:
    """An API key leaves this machine in plain text only where somebody asked for that."""
    address = Address(
        target=target, api_key="hush-hush", insecure=insecure, root_certificates=root_certificates
    )
    assert address.is_plaintext is plaintext
    assert "hush" not in repr(address)
