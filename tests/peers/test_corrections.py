"""Complaint 27: what was reported wrongly and cannot be taken back, billed and cannot be traced."""

import json
import time
from typing import Final

from meter.domain.interval import INTERVAL_MS
from meter.domain.outcome import Outcome
from tests.billing.town import Town, book_toml, contract_toml
from tests.billing.wire.office import Office
from tests.peers.customers import Customer, ms, quantity, tokens_of
from tests.running_meter import RunningMeter
from tests.wire.session import Session, event, opening, rows
from tokenworks.billing.v1 import billing_service_pb2
from tokenworks.meter.v1 import meter_service_pb2, usage_pb2

INPUT: Final = usage_pb2.TOKEN_CLASS_INPUT
DAY_MS: Final = 86_400_000
START: Final = "2026-01-01T00:00:00"


def last_month_ms() -> int:
    """Return an instant of the month before this one, in UTC, that is not too old to report."""
    month = time.strftime("%Y-%m", time.gmtime())
    return ms(f"{month}-01") - DAY_MS


def total_of(office: Office, number: str) -> str:
    """Return what an invoice's document comes to."""
    request = billing_service_pb2.GetInvoiceRequest(
        number=number, format=billing_service_pb2.DOCUMENT_FORMAT_JSON
    )
    return str(json.loads(office.call("GetInvoice", request).document)["total"])


def test_lago_105__event_of_an_invoiced_month_is_voided(shared_meter: RunningMeter) -> None:
    """A void event counts no more; who and why is kept, and the invoice stays as it was issued."""
    office = Office(shared_meter)
    office.session.create_account("undo")
    office.call(
        "ImportPriceBook",
        billing_service_pb2.ImportPriceBookRequest(toml=book_toml(book="undo", start=START)),
    )
    toml = contract_toml("undo", covers="undo", book="undo", zone="UTC", series="UNDO", start=START)
    office.call("SetContract", billing_service_pb2.SetContractRequest(toml=toml))
    sent = [
        event("undo", model="llama-4", end_ms=last_month_ms(), tokens={INPUT: count})
        for count in (1_000_000, 2_000_000)
    ]
    assert office.session.record(*sent) == [Outcome.RECORDED] * 2
    close = billing_service_pb2.CloseMonthRequest(month="previous", account="undo", early=True)
    (closed,) = office.call("CloseMonth", close).periods
    assert closed.invoice.total == "9.00"
    void = meter_service_pb2.CorrectUsageRequest(event_id=sent[1].event_id, reason="a test run")
    found = office.session.call("CorrectUsage", void).correction
    assert (found.reason, found.key_id[:4]) == ("a test run", "key_")
    assert tokens_of(office.session, "undo") == {INPUT: 1_000_000}
    assert total_of(office, closed.invoice.number) == "9.00"
    assert office.call("CloseMonth", close).periods[0].invoice.number == closed.invoice.number


def test_meteroid_amend__event_of_a_stream_is_replaced(session: Session) -> None:
    """An event without an id is named by its place, and another one counts instead."""
    session.create_account("amend")
    wrong = event("amend", event_id="", tokens={INPUT: 100})
    session.exchange(opening("amend"), rows(1, event("amend"), wrong))
    request = meter_service_pb2.CorrectUsageRequest(
        place=meter_service_pb2.EventPlace(producer="amend", sequence=1, index=1),
        replacement=event("amend", event_id="", tokens={INPUT: 7}),
        reason="counted the prompt twice",
    )
    session.call("CorrectUsage", request)
    # Sent again it is the same batch, and nothing of it comes back.
    session.exchange(opening("amend"), rows(1, event("amend"), wrong))
    assert tokens_of(session, "amend") == {INPUT: 10}


def test_killbill_1022__line_leads_to_where_its_events_are(town: Town) -> None:
    """An explanation names the intervals of a line, and the journal's segments with its events."""
    traced = Customer(town, "traced")
    positions = []
    for at, count in (("2026-10-10T10:00", 500_000), ("2026-10-10T10:20", 700_000)):
        traced.use(at, input=count)
        positions.append(town.ask("SELECT position FROM shards")[0][0])
    traced.use("2026-10-10T10:20", output=9)
    traced.invoice()
    found = town.billing.explaining.explain_line(traced.number(1), 1)
    edges = [ms("2026-10-10T10:00"), ms("2026-10-10T10:00") + INTERVAL_MS]
    assert [(it.interval_start_ms, it.token_count) for it in found.intervals] == [
        (edges[0], 500_000),
        (edges[1], 700_000),
    ]
    assert [(it.position, it.token_count) for it in found.segments] == [
        (positions[0], 500_000),
        (positions[1], 700_000),
    ]


def test_stripe_node_725__usage_reported_after_the_month_is_the_month_s(town: Town) -> None:
    """Until a month is closed, what ended in it is billed in it, whenever it is reported."""
    after = Customer(town, "after")
    after.use("2026-10-31T23:59:59", input=5_000_000)
    after.use("2026-11-01T00:00:00", input=70)
    assert quantity(after.invoice().lines) == 5_000_000
    assert quantity(after.preview("2026-11").lines) == 70
