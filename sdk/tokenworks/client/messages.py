"""The stream's messages as bytes, and what the meter's mean."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from tokenworks.client.stream import NumberedBatch
from tokenworks.meter.v1.meter_service_pb2 import (
    BatchAck,
    Heartbeat,
    OpenStream,
    StreamUsageRequest,
    StreamUsageResponse,
)
from tokenworks.meter.v1.outcome_pb2 import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """The meter says which number it expects."""

    next_sequence: int
    in_flight_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledged:
    """The meter has recorded up to a number."""

    sequence: int
    durable_sequence: int
    set_aside_count: int = 0
    is_changed: bool = False
    """The number was recorded before with other bytes; ours are in quarantine."""
    outcomes: Sequence[str] = ()
    """Why events were set aside: names of `Outcome`, each once."""


Message: TypeAlias = Opened | Acknowledged


def open_message(
    *, producer: str, instance: bytes, first_sequence: int, missing_from: int
) -> bytes:
    """Serialise the first message of a call."""
    opening = OpenStream(
        producer=producer,
        instance=instance,
        first_sequence=first_sequence,
        missing_from=missing_from,
    )
    return StreamUsageRequest(open=opening).SerializeToString()


def batch_message(numbered: NumberedBatch) -> bytes:
    """Serialise a batch around its bytes, which are not touched: a repetition is identical."""
    payload = numbered.batch.payload
    number = b"\x08" + _varint(numbered.sequence)
    doubt = b"\x20\x01" if numbered.is_doubtful else b""
    batch_size = len(number) + 1 + len(_varint(len(payload))) + len(payload) + len(doubt)
    head = b"\x12" + _varint(batch_size) + number + b"\x1a" + _varint(len(payload))
    return head + payload + doubt


def salted(payload: bytes, *, salt: bytes) -> bytes:
    """Return a UsageColumns message that differs from another one with the same events.

    `salt`: at most 127 bytes.
    """
    return payload + b"\x72" + bytes([len(salt)]) + salt


def heartbeat_message(*, last_sequence: int) -> bytes:
    """Serialise a sign of life that says how far numbers were given."""
    return StreamUsageRequest(heartbeat=Heartbeat(last_sequence=last_sequence)).SerializeToString()


def read_response(response: StreamUsageResponse) -> Message | None:
    """Read a message of the meter; None for one of a later version."""
    kind = response.WhichOneof("message")
    if kind == "opened":
        return Opened(
            next_sequence=response.opened.next_sequence,
            in_flight_max=response.opened.batches_in_flight_max,
        )
    return _read_ack(response.ack) if kind == "ack" else None


_WHOLE_BATCH: Final = -1


def _read_ack(ack: BatchAck) -> Acknowledged:
    known = Outcome.DESCRIPTOR.values_by_number
    numbers = {entry.outcome for entry in ack.set_aside}
    return Acknowledged(
        sequence=ack.sequence,
        durable_sequence=ack.durable_sequence,
        set_aside_count=ack.set_aside_count,
        is_changed=any(
            entry.index == _WHOLE_BATCH and entry.outcome == Outcome.OUTCOME_BATCH_CHANGED
            for entry in ack.set_aside
        ),
        outcomes=sorted(known[number].name for number in numbers if number in known),
    )


def _varint(value: int) -> bytes:
    septets = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits a byte
        septets.append(value & 0x7F | 0x80)
        value >>= 7
    septets.append(value)
    return bytes(septets)
