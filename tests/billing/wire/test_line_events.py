"""The events behind a line, from a running sandbox: all of them, in order, for whoever may read."""

import grpc
import pytest

from meter.domain.times import to_iso
from tests.billing.wire.office import Office
from tests.wire.session import reason_of
from tokenworks.billing.v1 import billing_service_pb2 as pb
from tokenworks.meter.v1 import account_service_pb2


def list_events(office: Office, number: str, line: int) -> list[pb.LineEvent]:
    """Return the events of all answers."""
    request = pb.ListLineEventsRequest(number=number, line=line)
    return [event for answer in office.call("ListLineEvents", request) for event in answer.events]


def number_of(closed: pb.CloseMonthResponse) -> str:
    """Return the number of what was issued."""
    (number,) = (it.invoice.number for it in closed.periods if it.invoice.number)
    return number


def test_list__the_events_of_a_line(office: Office, closed: pb.CloseMonthResponse) -> None:
    """Every event of the line's class is there once, with its place, account, names and tokens."""
    events = list_events(office, number_of(closed), 1)
    assert [(it.account, it.token_count) for it in events] == [
        ("acme", 1_000_000),
        ("team", 2_000_000),
    ]
    assert [(it.shard, it.row, it.model, it.correction) for it in events] == [
        (0, 0, "llama-4", False)
    ] * 2
    assert events[0].position < events[1].position
    assert to_iso(events[0].end_time.ToMilliseconds()) == "2026-10-10T00:00:00Z"
    assert all(it.event_id and it.key_id for it in events)


def test_list__of_a_line_that_is_not_there(office: Office, closed: pb.CloseMonthResponse) -> None:
    """A line or an invoice that there is not is refused with its reason, before any answer."""
    number = number_of(closed)
    for wanted, line, reason in (
        (number, 9, "LINE_NOT_FOUND"),
        ("NG-2020-000001", 1, "INVOICE_NOT_FOUND"),
    ):
        with pytest.raises(grpc.RpcError) as error:
            list_events(office, wanted, line)
        assert reason_of(error.value)[1] == reason


def test_list__of_a_foreign_key(office: Office, closed: pb.CloseMonthResponse) -> None:
    """Who may not read all that the invoice bills sees no event of it; the customer does."""
    number = number_of(closed)
    for account, may in (("thin", False), ("team", False), ("acme", True)):
        key = office.key_for(account, [account_service_pb2.ROLE_READER])
        caller = Office(office.meter, api_key=key)
        if may:
            assert len(list_events(caller, number, 1)) == 2
            continue
        with pytest.raises(grpc.RpcError) as error:
            list_events(caller, number, 1)
        assert reason_of(error.value)[1] == "SCOPE_MISSING"
