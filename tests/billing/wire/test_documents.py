"""Issued documents over gRPC: credited, taken back, corrected, paid, listed; and each refusal."""

import itertools
from dataclasses import dataclass
from typing import Any, Final

import grpc
import pytest

from tests.billing.town import contract_toml
from tests.billing.wire.office import Office
from tests.cli.shell import Shell
from tests.wire.session import reason_of
from tokenworks.billing.v1 import billing_service_pb2 as pb
from tokenworks.meter.v1 import account_service_pb2

_NAMES: Final = itertools.count(1)
TAX: Final = '[tax]\ncategory = "S"\nrate = "19"\n'
LATE: Final = "2026-10-20T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Client:
    """An account with a contract of its own in the office."""

    office: Office
    name: str

    @property
    def invoice(self) -> str:
        """Return the number of its first invoice."""
        return f"{self.name.upper()}-2026-000001"

    def close(self) -> str:
        """Close October; return what came of it."""
        request = pb.CloseMonthRequest(month="2026-10", account=self.name, early=True)
        (period,) = self.office.call("CloseMonth", request).periods
        return pb.CloseOutcome.Name(period.outcome).removeprefix("CLOSE_OUTCOME_")

    def credit(self, *, number: str = "", **part: Any) -> pb.CreditInvoiceResponse:  # noqa: ANN401
        """Credit part of the first line."""
        asked: dict[str, Any] = {"line": 1, "reason": "slow", "credit_id": f"{self.name}-c"} | part
        request = pb.CreditInvoiceRequest(number=number or self.invoice, **asked)
        answer = self.office.call("CreditInvoice", request)
        assert isinstance(answer, pb.CreditInvoiceResponse)
        return answer

    def void(self, number: str = "") -> pb.VoidInvoiceResponse:
        """Take an invoice back."""
        request = pb.VoidInvoiceRequest(number=number or self.invoice, reason="wrong buyer")
        answer = self.office.call("VoidInvoice", request)
        assert isinstance(answer, pb.VoidInvoiceResponse)
        return answer

    def pay(self, amount: str, **other: Any) -> pb.RecordPaymentResponse:  # noqa: ANN401
        """Record a payment."""
        asked = {"number": self.invoice, "currency": "USD", "payment_id": f"{self.name}-p"} | other
        answer = self.office.call("RecordPayment", pb.RecordPaymentRequest(amount=amount, **asked))
        assert isinstance(answer, pb.RecordPaymentResponse)
        return answer

    def correct(self, **how: Any) -> list[pb.InvoiceSummary]:  # noqa: ANN401
        """Correct October."""
        asked = {"contract": self.name, "month": "2026-10", "reason": "late"} | how
        return list(self.office.call("CorrectPeriod", pb.CorrectPeriodRequest(**asked)).documents)

    def listed(self, state: int = 0) -> list[tuple[str, str, str]]:
        """Return number, kind and state of its documents."""
        request = pb.ListInvoicesRequest(account=self.name, state=state)  # type: ignore[arg-type]
        return [
            (
                it.number,
                pb.DocumentKind.Name(it.kind).removeprefix("DOCUMENT_KIND_"),
                pb.DocumentState.Name(it.state).removeprefix("DOCUMENT_STATE_"),
            )
            for it in self.office.call("ListInvoices", request).invoices
        ]


@pytest.fixture
def client(office: Office, closed: pb.CloseMonthResponse) -> Client:
    """A client with an invoice of October: 3.00 and 19 % tax."""
    del closed
    client = Client(office, f"doc{next(_NAMES)}")
    office.session.create_account(client.name)
    toml = contract_toml(client.name, covers=client.name, series=client.name.upper(), extra=TAX)
    office.call("SetContract", pb.SetContractRequest(toml=toml))
    office.use(client.name, at=LATE, input=1_000_000)
    assert client.close() == "ISSUED"
    return client


def reason(error: pytest.ExceptionInfo[grpc.RpcError]) -> tuple[str, str]:
    """Return code and reason of a refusal."""
    code, why, _ = reason_of(error.value)
    return code.name, why


def test_credit__of_part_of_a_line(client: Client) -> None:
    """A credit note is told with kind, sums and what it is for; the invoice tells of it too."""
    answer = client.credit(token_count=500_000)
    note = answer.credit_note
    assert answer.issued
    assert (note.kind, note.state) == (pb.DOCUMENT_KIND_CREDIT_NOTE, pb.DOCUMENT_STATE_ISSUED)
    assert (note.net, note.total, note.refers_to) == ("-1.50", "-1.79", client.invoice)
    assert not client.credit(token_count=500_000).issued
    got = client.office.call("GetInvoice", pb.GetInvoiceRequest(number=client.invoice)).invoice
    assert (got.net, got.total, got.credited, got.paid) == ("3.00", "3.57", "1.79", "0.00")


def test_void__and_issued_again(client: Client) -> None:
    """A void invoice, its credit note and the one that replaces it name each other."""
    answer = client.void()
    note = answer.credit_note.number
    assert (answer.invoice.state, answer.invoice.voided_by) == (pb.DOCUMENT_STATE_VOID, note)
    assert client.void() == answer
    assert client.close() == "ISSUED"
    name = client.name.upper()
    assert client.listed() == [
        (client.invoice, "INVOICE", "VOID"),
        (f"{name}-2026-000002", "INVOICE", "ISSUED"),
        (note, "CREDIT_NOTE", "ISSUED"),
    ]
    assert client.listed(pb.DOCUMENT_STATE_VOID) == [(client.invoice, "INVOICE", "VOID")]
    request = pb.GetInvoiceRequest(number=f"{name}-2026-000002")
    assert client.office.call("GetInvoice", request).invoice.replaces == client.invoice


def test_correct__late_usage(client: Client) -> None:
    """Late usage is shown, billed, and then there is none; of more some can be given up."""
    client.office.use(client.name, at=LATE, input=500_000)
    (draft,) = client.correct(dry_run=True)
    assert (draft.number, draft.state, draft.net) == ("", pb.DOCUMENT_STATE_DRAFT, "1.50")
    (made,) = client.correct()
    assert (made.kind, made.net, made.refers_to) == (
        pb.DOCUMENT_KIND_SUPPLEMENTARY_INVOICE,
        "1.50",
        client.invoice,
    )
    assert client.correct() == []
    client.office.use(client.name, at=LATE, input=500_000)
    (given_up,) = client.correct(write_off=True)
    assert (given_up.kind, given_up.total) == (pb.DOCUMENT_KIND_WRITE_OFF, "0.00")


def test_payment__of_all(client: Client) -> None:
    """An invoice is paid once payments and credits come to all of it, and is listed as that."""
    client.credit(amount="1.00")
    answer = client.pay("2.38", receive_date="2026-11-20", note="by wire")
    assert answer.recorded
    assert (answer.invoice.state, answer.invoice.paid) == (pb.DOCUMENT_STATE_PAID, "2.38")
    assert not client.pay("2.38", note="by wire").recorded
    assert client.listed(pb.DOCUMENT_STATE_PAID) == [(client.invoice, "INVOICE", "PAID")]


def test_refusal__of_credits(client: Client) -> None:
    """More than is left, another credit of its name, and what is void or no invoice is refused."""
    note = client.credit(amount="1.00").credit_note.number
    found = []
    for part in (
        {"amount": "2.01", "credit_id": "a"},
        {"amount": "1.01"},
        {"number": note, "credit_id": "b"},
        {"line": 2, "credit_id": "c"},
        {"number": "NO-2026-000001"},
    ):
        with pytest.raises(grpc.RpcError) as error:
            client.credit(**part)
        found.append(reason(error))
    client.void()
    with pytest.raises(grpc.RpcError) as error:
        client.credit(credit_id="d")
    found.append(reason(error))
    assert found == [
        ("FAILED_PRECONDITION", "CREDIT_TOO_HIGH"),
        ("FAILED_PRECONDITION", "CREDIT_CONFLICT"),
        ("FAILED_PRECONDITION", "KIND_REFUSED"),
        ("NOT_FOUND", "LINE_NOT_FOUND"),
        ("NOT_FOUND", "INVOICE_NOT_FOUND"),
        ("FAILED_PRECONDITION", "INVOICE_VOID"),
    ]


def test_refusal__of_payments(client: Client) -> None:
    """More than is left, and another payment of its name, is refused; what is paid stays."""
    client.pay("1.00")
    found = []
    for amount, name in (("2.58", "b"), ("1.01", f"{client.name}-p")):
        with pytest.raises(grpc.RpcError) as error:
            client.pay(amount, payment_id=name)
        found.append(reason(error))
    with pytest.raises(grpc.RpcError) as error:
        client.void()
    found.append(reason(error))
    assert found == [
        ("FAILED_PRECONDITION", "PAYMENT_TOO_HIGH"),
        ("FAILED_PRECONDITION", "PAYMENT_CONFLICT"),
        ("FAILED_PRECONDITION", "INVOICE_PAID"),
    ]


def test_refusal__of_corrections(client: Client) -> None:
    """A month that is open, has no period, or has usage without a price is not corrected."""
    found = []
    for month in ("2026-11", "2026-05"):
        with pytest.raises(grpc.RpcError) as error:
            client.correct(month=month)
        found.append(reason(error))
    client.office.use("thin", at=LATE, output=1)
    toml = contract_toml(
        "of-thick", covers="thick", book="thin-book", series=f"TK{client.name.upper()}"
    )
    client.office.session.create_account("thick")
    client.office.call("SetContract", pb.SetContractRequest(toml=toml))
    client.office.use("thick", at=LATE, input=1_000_000)
    request = pb.CloseMonthRequest(month="2026-10", account="thick", early=True)
    client.office.call("CloseMonth", request)
    client.office.use("thick", at=LATE, output=5)
    with pytest.raises(grpc.RpcError) as error:
        client.correct(contract="of-thick")
    found.append(reason(error))
    assert found == [
        ("FAILED_PRECONDITION", "PERIOD_OPEN"),
        ("NOT_FOUND", "PERIOD_NOT_FOUND"),
        ("FAILED_PRECONDITION", "USAGE_UNPRICED"),
    ]


def test_commands__say_what_came_of_it(client: Client) -> None:
    """The commands do what the calls do, and say when it was done before."""
    shell = Shell(client.office.meter.target, client.office.meter.api_key)
    number, why = client.invoice, ("--reason", "slow")
    credit = ("invoices", "credit", number, "1", "--tokens", "500000", *why)
    assert "credit note" in shell.run(*credit).stdout
    assert "was given before" in shell.run(*credit).stderr
    told = shell.run_json("invoices", "credit", number, "1", "--amount", "0.50", *why)
    assert (told["issued"], told["credit_note"]["net"]) == (True, "-0.50")
    assert "give one" in shell.run(*credit, "--amount", "1", code=2).stderr
    assert "CREDIT_TOO_HIGH" in shell.run(*credit[:4], "--tokens", "900000", *why, code=3).stderr
    pay = ("invoices", "pay", number, "1.18", "--id", f"{client.name}-bank", "--date", "2026-11-20")
    assert "paid" in shell.run(*pay).stdout
    assert "was recorded before" in shell.run(*pay).stderr
    assert not shell.run_json(*pay)["recorded"]
    assert "INVOICE_PAID" in shell.run("invoices", "void", number, *why, code=3).stderr
    correct = ("invoices", "correct", client.name, "2026-10", *why)
    assert "nothing is left" in shell.run(*correct).stdout
    client.office.use(client.name, at=LATE, input=1_000_000)
    assert [it["net"] for it in shell.run_json(*correct, "--dry-run")] == ["3.00"]
    assert "supplementary invoice" in shell.run(*correct).stdout
    second = f"{client.name.upper()}-2026-000002"
    assert "void, by" in shell.run("invoices", "void", second, *why).stdout
    assert shell.run_json("invoices", "void", second, *why)["invoice"]["state"] == "void"
    listed = shell.run_json("invoices", "list", client.name, "--state", "void")
    assert [it["number"] for it in listed] == [second]


ODD: list[tuple[str, Any]] = [
    ("CreditInvoice", {"line": 0}),
    ("CreditInvoice", {"reason": ""}),
    ("CreditInvoice", {"reason": " "}),
    ("CreditInvoice", {"reason": "x" * 501}),
    ("CreditInvoice", {"reason": "a\0b"}),
    ("CreditInvoice", {"credit_id": ""}),
    ("CreditInvoice", {"credit_id": "x" * 65}),
    ("CreditInvoice", {"token_count": 0}),
    ("CreditInvoice", {"token_count": -1}),
    *(
        ("CreditInvoice", {"amount": it})
        for it in ("", "-1", "0", "0.001", "1e3", "NaN", "1,00", " 1", "٣", "9" * 25)
    ),
    *(("RecordPayment", {"amount": it}) for it in ("", "-1", "0", "0.001", "1e3", "Infinity")),
    ("RecordPayment", {"currency": "EUR"}),
    ("RecordPayment", {"currency": ""}),
    ("RecordPayment", {"payment_id": "\n"}),
    *(("RecordPayment", {"receive_date": it}) for it in ("2026-02-30", "20261120", "today")),
    ("RecordPayment", {"note": "x" * 501}),
    ("VoidInvoice", {"reason": ""}),
    ("CorrectPeriod", {"reason": ""}),
    ("CorrectPeriod", {"month": "October"}),
    ("ListInvoices", {"state": pb.DOCUMENT_STATE_DRAFT}),
    ("ListInvoices", {"page_size": -1}),
]
WHOLE: Final[dict[str, dict[str, Any]]] = {
    "CreditInvoice": {"number": "NG-2026-000001", "line": 1, "reason": "x", "credit_id": "odd"},
    "RecordPayment": {
        "number": "NG-2026-000001",
        "amount": "1",
        "currency": "USD",
        "payment_id": "odd",
    },
    "VoidInvoice": {"number": "NG-2026-000001", "reason": "x"},
    "CorrectPeriod": {"contract": "acme-2026", "month": "2026-10", "reason": "x"},
    "ListInvoices": {},
}


@pytest.mark.parametrize(("name", "odd"), ODD)
def test_call__with_an_odd_word(
    office: Office, closed: pb.CloseMonthResponse, name: str, odd: dict[str, Any]
) -> None:
    """What nobody can mean is an error that names the field, and changes nothing."""
    del closed
    request = getattr(pb, f"{name}Request")(**(WHOLE[name] | odd))
    with pytest.raises(grpc.RpcError) as error:
        office.call(name, request)
    assert reason(error) == ("INVALID_ARGUMENT", "ARGUMENT_INVALID")


@pytest.mark.parametrize("name", ["CreditInvoice", "RecordPayment", "VoidInvoice", "CorrectPeriod"])
def test_call__of_who_may_only_read(
    office: Office, closed: pb.CloseMonthResponse, name: str
) -> None:
    """Who may read the whole contract changes none of its documents."""
    del closed
    key = office.key_for("acme", [account_service_pb2.ROLE_READER])
    reader = Office(office.meter, api_key=key)
    with pytest.raises(grpc.RpcError) as error:
        reader.call(name, getattr(pb, f"{name}Request")(**WHOLE[name]))
    assert reason_of(error.value)[1] == "SCOPE_MISSING"
