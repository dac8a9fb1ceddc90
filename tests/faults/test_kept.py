"""Request ids read from the quarantine's bytes."""

from tests.faults.caller import to_event
from tests.faults.events import Source
from tests.faults.kept import request_ids
from tests.faults.raw import to_message
from tokenworks.meter.v1 import usage_pb2


def test_request_ids__of_an_event() -> None:
    """A kept event has one."""
    event = Source("x").draw(end_ms=1_790_000_000_000)
    assert request_ids(to_event(event).SerializeToString(), is_batch=False) == ["x-1"]


def test_request_ids__of_a_batch_in_rows() -> None:
    """A kept batch has one for each event, with its stream's message around it or without."""
    source = Source("x")
    message = to_message(7, [source.draw(end_ms=1_790_000_000_000) for _ in range(3)])
    assert request_ids(message, is_batch=True) == ["x-1", "x-2", "x-3"]


def test_request_ids__of_a_batch_in_columns() -> None:
    """Columns have them in one field."""
    columns = usage_pb2.UsageColumns(dimensions_index=[0, 0], request_id=["a", "b"])
    batch = usage_pb2.UsageBatch(sequence=2, columns=columns)
    assert request_ids(batch.SerializeToString(), is_batch=True) == ["a", "b"]


def test_request_ids__of_garbage() -> None:
    """Bytes that are no message have none."""
    assert request_ids(b"\x08\x01\x12\x7fshort", is_batch=True) == []
    assert request_ids(b"\xff" * 9, is_batch=False) == []
