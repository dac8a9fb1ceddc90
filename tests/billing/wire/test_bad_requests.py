"""What callers may send wrong: each is refused by name, and nothing of it is the server's fault."""

from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from tests.billing.wire.office import Office
from tests.wire.session import reason_of
from tokenworks.billing.v1 import billing_service_pb2 as pb

NUMBER, CONTRACT, MONTH = "NG-2026-000001", "acme-2026", "2026-10"
NAMES = ["a\0b", "a\nb", "x" * 65, "x" * 1_000_000]
# What takes a name or a number that something has.
NAMED: list[tuple[str, Any, str]] = [
    ("ListPriceVersions", pb.ListPriceVersionsRequest(), "book"),
    ("GetPriceBook", pb.GetPriceBookRequest(), "book"),
    ("ExplainPrice", pb.ExplainPriceRequest(), "book"),
    ("ExplainPrice", pb.ExplainPriceRequest(), "contract"),
    ("ListContracts", pb.ListContractsRequest(), "contract"),
    ("GetContract", pb.GetContractRequest(), "contract"),
    ("ListInvoices", pb.ListInvoicesRequest(), "page_token"),
    ("GetInvoice", pb.GetInvoiceRequest(), "number"),
    ("ExplainInvoiceLine", pb.ExplainInvoiceLineRequest(line=1), "number"),
    ("ListPeriods", pb.ListPeriodsRequest(), "contract"),
    ("ListPeriods", pb.ListPeriodsRequest(), "page_token"),
    ("ApproveInvoice", pb.ApproveInvoiceRequest(month=MONTH, reason="r"), "contract"),
    ("ReopenPeriod", pb.ReopenPeriodRequest(month=MONTH, reason="r"), "contract"),
    ("CorrectPeriod", pb.CorrectPeriodRequest(month=MONTH, reason="r"), "contract"),
    ("CreditInvoice", pb.CreditInvoiceRequest(line=1, reason="r", credit_id="c"), "number"),
    ("CreditInvoice", pb.CreditInvoiceRequest(line=1, reason="r", number=NUMBER), "credit_id"),
    ("VoidInvoice", pb.VoidInvoiceRequest(reason="r"), "number"),
    ("RecordPayment", pb.RecordPaymentRequest(payment_id="p", amount="1"), "number"),
    ("RecordPayment", pb.RecordPaymentRequest(number=NUMBER, amount="1"), "payment_id"),
]
# What says why; a payment need not.
REASONED: list[tuple[str, Any]] = [
    ("ApproveInvoice", pb.ApproveInvoiceRequest(contract=CONTRACT, month=MONTH)),
    ("ReopenPeriod", pb.ReopenPeriodRequest(contract=CONTRACT, month=MONTH)),
    ("CorrectPeriod", pb.CorrectPeriodRequest(contract=CONTRACT, month=MONTH, dry_run=True)),
    ("CreditInvoice", pb.CreditInvoiceRequest(number=NUMBER, line=1, credit_id="c")),
    ("VoidInvoice", pb.VoidInvoiceRequest(number=NUMBER)),
]
MONTHLY: list[tuple[str, Any]] = [
    ("PreviewInvoice", pb.PreviewInvoiceRequest(account="acme")),
    ("CloseMonth", pb.CloseMonthRequest(dry_run=True)),
    ("ListInvoices", pb.ListInvoicesRequest()),
    ("ListPeriods", pb.ListPeriodsRequest()),
    ("ApproveInvoice", pb.ApproveInvoiceRequest(contract=CONTRACT, reason="r")),
    ("ReopenPeriod", pb.ReopenPeriodRequest(contract=CONTRACT, reason="r")),
    ("CorrectPeriod", pb.CorrectPeriodRequest(contract=CONTRACT, reason="r", dry_run=True)),
]
# Behind `next_page_token`'s mark stands an instant.
TOKENS = ["a", "a\n", "a\n-1", "a\n\uff11", "a\n²", "a\n1e3", f"a\n{'9' * 15}", f"a\n{'9' * 5_000}"]
AMOUNTS = [
    "",
    "NaN",
    "Infinity",
    "-1",
    "+1",
    "1e3",
    " 1",
    "1\n",
    "\uff11",
    "1.",
    ".5",
    "1_0",
    "9" * 25,
]
AMOUNTS += ["0", "0.00", "0.001"]
DATES = [
    "2026-02-30",
    "0000-01-01",
    "2026-11-20T00:00:00",
    "\uff12\uff10\uff12\uff16-11-20",
    "20261120",
]


def refused(office: Office, name: str, request: Any) -> str:  # noqa: ANN401
    """Make a call that is refused as wrong; return what is wrong."""
    with pytest.raises(grpc.RpcError) as error:
        office.call(name, request)
    assert reason_of(error.value)[1] == "ARGUMENT_INVALID", error.value.details()
    return str(error.value.details()).partition(" ")[0]


@pytest.mark.parametrize(("name", "request_", "field"), NAMED)
def test_call__names_that_nothing_has(
    office: Office,
    closed: pb.CloseMonthResponse,
    name: str,
    request_: Any,  # noqa: ANN401
    field: str,
) -> None:
    """A name of a megabyte, or with what cannot be printed, is refused by its field."""
    del closed
    for text in NAMES:
        wrong = type(request_)()
        wrong.CopyFrom(request_)
        setattr(wrong, field, text)
        assert refused(office, name, wrong) == field


@pytest.mark.parametrize(("name", "request_"), REASONED)
def test_call__reasons(
    office: Office,
    closed: pb.CloseMonthResponse,
    name: str,
    request_: Any,  # noqa: ANN401
) -> None:
    """Who changes something says why, in 1 to 500 printable characters."""
    del closed
    for text in ("", "   ", "x" * 501, "a\0b", "a\nb"):
        wrong = type(request_)()
        wrong.CopyFrom(request_)
        wrong.reason = text
        assert refused(office, name, wrong) == "reason"


@pytest.mark.parametrize(("name", "request_"), MONTHLY)
def test_call__months(office: Office, name: str, request_: Any) -> None:  # noqa: ANN401
    """A month is written as 2026-10, of years that there are, and nothing longer is told back."""
    for text in (
        "2026-13",
        "2026-1",
        "\uff12\uff10\uff12\uff16-10",
        "1979-12",
        "a\0b",
        "x" * 1_000_000,
    ):
        wrong = type(request_)()
        wrong.CopyFrom(request_)
        wrong.month = text
        assert refused(office, name, wrong) == "month"


def test_list__pages(office: Office) -> None:
    """Page sizes below 0 and above 1,000, unknown states, and tokens of nobody are refused."""
    for size in (-1, 1_001, -(2**31), 2**31 - 1):
        assert refused(office, "ListInvoices", pb.ListInvoicesRequest(page_size=size))
        assert refused(office, "ListPeriods", pb.ListPeriodsRequest(page_size=size))
    for state in (-1, 99):
        assert refused(office, "ListInvoices", pb.ListInvoicesRequest(state=state))  # type: ignore[arg-type]
        assert refused(office, "ListPeriods", pb.ListPeriodsRequest(state=state))  # type: ignore[arg-type]
    for token in TOKENS:
        request = pb.ListPeriodsRequest(page_token=token)
        assert refused(office, "ListPeriods", request) == "page_token"


def test_document__unknown_forms(office: Office, closed: pb.CloseMonthResponse) -> None:
    """A form that this server does not know is refused, whatever it is asked of."""
    del closed
    for form in (-1, 6, 2**31 - 1):
        requests: list[tuple[str, Any]] = [
            ("GetInvoice", pb.GetInvoiceRequest(number=NUMBER)),
            ("PreviewInvoice", pb.PreviewInvoiceRequest(account="acme")),
            ("ExplainInvoiceLine", pb.ExplainInvoiceLineRequest(number=NUMBER, line=1)),
        ]
        for name, request in requests:
            request.format = form
            assert refused(office, name, request) == "format"


def test_money__what_is_no_amount(office: Office, closed: pb.CloseMonthResponse) -> None:
    """An amount is above 0, in plain digits, and of no more decimals than the currency has."""
    del closed
    for amount in AMOUNTS:
        credit = pb.CreditInvoiceRequest(
            number=NUMBER, line=1, amount=amount, reason="r", credit_id="c"
        )
        assert refused(office, "CreditInvoice", credit) == "amount"
        paid = pb.RecordPaymentRequest(number=NUMBER, payment_id="p", amount=amount, currency="USD")
        assert refused(office, "RecordPayment", paid) == "amount"


def test_credit__lines_and_tokens(office: Office, closed: pb.CloseMonthResponse) -> None:
    """Lines begin at 1, tokens above 0; more than there are is refused by its rule."""
    del closed
    credit = pb.CreditInvoiceRequest(number=NUMBER, reason="r", credit_id="c")
    for line in (0, -1, 2**31 - 1):
        credit.line = line
        with pytest.raises(grpc.RpcError) as error:
            office.call("CreditInvoice", credit)
        expected = "LINE_NOT_FOUND" if line > 0 else "ARGUMENT_INVALID"
        assert reason_of(error.value)[1] == expected
    credit.line = 1
    for tokens in (0, -1, -(2**63)):
        credit.token_count = tokens
        assert refused(office, "CreditInvoice", credit) == "token_count"
    credit.token_count = 2**63 - 1
    with pytest.raises(grpc.RpcError) as error:
        office.call("CreditInvoice", credit)
    assert reason_of(error.value)[1] == "CREDIT_TOO_HIGH"


def test_payment__dates_and_currencies(office: Office, closed: pb.CloseMonthResponse) -> None:
    """A payment's date is one of the calendar, and its currency the invoice's."""
    del closed
    paid = pb.RecordPaymentRequest(number=NUMBER, payment_id="p", amount="1", currency="USD")
    for date in DATES:
        paid.receive_date = date
        assert refused(office, "RecordPayment", paid) == "receive_date"
    paid.receive_date = ""
    for currency in ("", "EUR", "usd", "a\0b", "x" * 1_000_000):
        paid.currency = currency
        assert refused(office, "RecordPayment", paid) == "currency"


def test_call__instants_of_no_year(office: Office) -> None:
    """An instant before 1970 or after 9999 is refused."""
    for seconds in (-1, 2**62, 253_402_300_800):
        at = Timestamp(seconds=seconds)
        assert refused(office, "GetPriceBook", pb.GetPriceBookRequest(book="list", at=at)) == "at"
        side = pb.PriceSide(book="list", at=at)
        request = pb.DiffPricesRequest(before=side, after=side, month=MONTH)
        assert refused(office, "DiffPrices", request) == "before"


def test_call__more_faults_than_metadata_holds(office: Office) -> None:
    """Of a file with more faults than an error can carry the first are told, and the reason."""
    toml = "".join(f'key_{place}_{"y" * 50} = "ü{"z" * 60}"\n' for place in range(300))
    with pytest.raises(grpc.RpcError) as error:
        office.call("SetContract", pb.SetContractRequest(toml=toml))
    assert reason_of(error.value)[1] == "CONTRACT_INVALID"
    told = str(error.value.details())
    assert told.startswith("1: book: is missing\n")
    assert told.endswith("…")
