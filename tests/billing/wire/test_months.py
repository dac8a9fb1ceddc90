"""Months over a real server: held, let go, listed, opened again; and what is refused."""

from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest

from tests.billing.town import book_toml, contract_toml
from tests.billing.wire.office import BEGIN, Office
from tests.postgres import Cluster
from tests.running_meter import running_meter_on
from tests.wire.session import reason_of
from tests.wire.talk import read_metric, wait_until
from tokenworks.billing.v1 import billing_service_pb2 as pb

OCTOBER = "2026-10"


def refusal(office: Office, name: str, request: object) -> str:
    """Return the reason for which a call is refused."""
    with pytest.raises(grpc.RpcError) as error:
        office.call(name, request)
    return reason_of(error.value)[1]


def set_up(office: Office, name: str, *, extra: str = "", until: str = "") -> None:
    """Create an account with a contract of its own."""
    office.session.create_account(name)
    toml = contract_toml(name, covers=name, series=name.upper(), extra=extra, until=until)
    office.call("SetContract", pb.SetContractRequest(toml=toml))


def close(office: Office, name: str, *, early: bool = True) -> pb.ClosedPeriod:
    """Close October of an account; return its one period."""
    request = pb.CloseMonthRequest(month=OCTOBER, account=name, early=early)
    (period,) = office.call("CloseMonth", request).periods
    assert isinstance(period, pb.ClosedPeriod)
    return period


def test_close__collects_first(office: Office) -> None:
    """A month that has just ended collects, and says until when at the latest; early, it closes."""
    set_up(office, "collecting")
    office.use("collecting", input=1_000_000)
    waits = close(office, "collecting", early=False)
    assert waits.outcome == pb.CLOSE_OUTCOME_COLLECTING
    assert waits.due_time.ToDatetime(UTC) == datetime(2026, 11, 5, 23, tzinfo=UTC)
    done = close(office, "collecting")
    assert done.outcome == pb.CLOSE_OUTCOME_ISSUED
    assert done.exception.startswith("early, by key_")


def test_month__that_has_ended_and_is_open(cluster: Cluster, tmp_path: Path) -> None:
    """How long ago the longest-ended open month ended is a metric, 0 when all are closed."""
    settings = {"sandbox_clock": BEGIN}
    with (
        cluster.database() as url,
        running_meter_on(url, folder=tmp_path, settings=settings) as meter,
    ):
        office = Office(meter)
        office.call("ImportPriceBook", pb.ImportPriceBookRequest(toml=book_toml()))
        set_up(office, "patient")
        office.call("ListPeriods", pb.ListPeriodsRequest())
        office.advance("2026-11-10T00:00:00Z")
        # October ends at midnight of Berlin.
        wait_until(lambda: read_metric(meter, "tokenworks_month_open_seconds") == 9 * 86_400 + 3600)
        close(office, "patient")
        office.advance("2026-11-10T00:15:00Z")
        wait_until(lambda: read_metric(meter, "tokenworks_month_open_seconds") == 0)


def test_approve__what_is_held(office: Office) -> None:
    """A first invoice is held, approved with a reason, and issued by that; then it is not held."""
    set_up(office, "firstly", extra="[closing]\ncollect_hours = 0\nhold_first = true\n")
    office.use("firstly", input=1_000_000)
    held = close(office, "firstly")
    assert held.outcome == pb.CLOSE_OUTCOME_HELD_FIRST
    assert list(held.holds) == [pb.HOLD_REASON_FIRST]
    assert held.invoice.state == pb.DOCUMENT_STATE_HELD
    approve = pb.ApproveInvoiceRequest(contract="firstly", month=OCTOBER, reason="seen")
    (period,) = office.call("ApproveInvoice", approve).periods
    assert period.invoice.number == "FIRSTLY-2026-000001"
    assert refusal(office, "ApproveInvoice", approve) == "NOT_HELD"


def test_reopen__what_has_no_document(office: Office) -> None:
    """A month without usage is opened again; one that was billed, or is unknown, is not."""
    set_up(office, "nothing")
    assert close(office, "nothing").outcome == pb.CLOSE_OUTCOME_NO_USAGE
    reopen = pb.ReopenPeriodRequest(contract="nothing", month=OCTOBER, reason="late usage")
    (period,) = office.call("ReopenPeriod", reopen).periods
    assert period.state == pb.PERIOD_STATE_COLLECTING
    office.use("nothing", input=1_000_000)
    assert close(office, "nothing").outcome == pb.CLOSE_OUTCOME_ISSUED
    assert refusal(office, "ReopenPeriod", reopen) == "PERIOD_ISSUED"
    unknown = pb.ReopenPeriodRequest(contract="nobody", month=OCTOBER, reason="r")
    assert refusal(office, "ReopenPeriod", unknown) == "PERIOD_NOT_FOUND"


def test_list_periods__by_pages(office: Office) -> None:
    """Periods come by contract and time, in pages; the first one counts all of them."""
    set_up(office, "paged")
    request = pb.ListPeriodsRequest(contract="paged", page_size=1)
    first = office.call("ListPeriods", request)
    assert [(it.month, it.state) for it in first.periods] == [(OCTOBER, pb.PERIOD_STATE_COLLECTING)]
    assert {it.state: it.count for it in first.counts} == {
        pb.PERIOD_STATE_OPEN: 1,
        pb.PERIOD_STATE_COLLECTING: 1,
    }
    request.page_token = first.next_page_token
    second = office.call("ListPeriods", request)
    assert [(it.month, it.state) for it in second.periods] == [("2026-11", pb.PERIOD_STATE_OPEN)]
    assert (second.next_page_token, list(second.counts)) == ("", [])
    assert second.periods[0].zone == "Europe/Berlin"
    assert second.periods[0].tzdata


def test_close__of_a_month_between_two_versions(office: Office) -> None:
    """Set to end before a month that is open, and set on within it, a contract bills all once."""
    begin, again = "2026-09-01T00:00:00", "2026-10-05T00:00:00"
    office.session.create_account("between")
    for start, until in ((begin, ""), (begin, "2026-09-20T00:00:00"), (again, "")):
        toml = contract_toml("between", covers="between", series="BT", start=start, until=until)
        office.call("SetContract", pb.SetContractRequest(toml=toml))
    for at in ("2026-10-02T00:00:00Z", BEGIN):
        office.use("between", at=at, input=1_000_000)
    request = pb.CloseMonthRequest(month=OCTOBER, account="between", early=True)
    closed = office.call("CloseMonth", request).periods
    assert [(it.outcome, it.invoice.total) for it in closed] == [
        (pb.CLOSE_OUTCOME_NO_USAGE, "0.00"),
        (pb.CLOSE_OUTCOME_ISSUED, "3.00"),
    ]
    assert closed[0].invoice.end_time == closed[1].invoice.start_time
    office.use("between", input=1_000_000)
    late = pb.CorrectPeriodRequest(contract="between", month=OCTOBER, reason="late")
    (document,) = office.call("CorrectPeriod", late).documents
    assert document.total == "3.00"


def test_close__comes_too_late(office: Office) -> None:
    """Usage that comes after a contract's last invoice is named by the next close."""
    set_up(office, "over", until="2026-10-20T00:00:00")
    office.use("over", input=1_000_000)
    assert close(office, "over").outcome == pb.CLOSE_OUTCOME_ISSUED
    office.use("over", input=2_000_000)
    request = pb.CloseMonthRequest(month="due", account="over")
    answer = office.call("CloseMonth", request)
    (late,) = answer.periods
    assert late.outcome == pb.CLOSE_OUTCOME_LATE_AFTER_FINAL
    assert late.invoice.total == "6.00"


@pytest.mark.parametrize(
    ("name", "request_"),
    [
        ("CloseMonth", pb.CloseMonthRequest(month=OCTOBER, job_count=65)),
        ("ListPeriods", pb.ListPeriodsRequest(page_size=1_001)),
        ("ListPeriods", pb.ListPeriodsRequest(page_token="x")),
        ("ListPeriods", pb.ListPeriodsRequest(month="October")),
        ("ApproveInvoice", pb.ApproveInvoiceRequest(contract="x", month=OCTOBER)),
        ("ReopenPeriod", pb.ReopenPeriodRequest(contract="x", month="", reason="r")),
    ],
)
def test_months__bad_input(office: Office, name: str, request_: object) -> None:
    """What no month, page or reason is, is refused with its field."""
    assert refusal(office, name, request_) == "ARGUMENT_INVALID"
