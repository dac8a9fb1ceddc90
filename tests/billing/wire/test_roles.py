"""Who may what of the billing service: every call, own and foreign accounts."""

from typing import Any

import grpc
import pytest

from tests.billing.town import contract_toml
from tests.billing.wire.office import Office
from tests.wire.session import reason_of
from tokenworks.billing.v1 import billing_service_pb2 as pb
from tokenworks.meter.v1 import account_service_pb2

CALLS: list[tuple[str, Any]] = [
    ("ImportPriceBook", pb.ImportPriceBookRequest(shipped="keynote")),
    ("ListPriceVersions", pb.ListPriceVersionsRequest()),
    ("GetPriceBook", pb.GetPriceBookRequest(book="list")),
    ("ExplainPrice", pb.ExplainPriceRequest(book="list")),
    ("SetContract", pb.SetContractRequest(toml=contract_toml())),
    ("ListContracts", pb.ListContractsRequest()),
    ("GetContract", pb.GetContractRequest(contract="acme-2026")),
    ("PreviewInvoice", pb.PreviewInvoiceRequest(account="acme")),
    ("CloseMonth", pb.CloseMonthRequest(month="2026-10")),
    ("ListInvoices", pb.ListInvoicesRequest()),
    ("ListInvoices", pb.ListInvoicesRequest(account="acme")),
    ("GetInvoice", pb.GetInvoiceRequest(number="NG-2026-000001")),
    ("ExplainInvoiceLine", pb.ExplainInvoiceLineRequest(number="NG-2026-000001", line=1)),
    ("QueryRevenue", pb.QueryRevenueRequest()),
    ("PreviewTerms", pb.PreviewTermsRequest(contract=contract_toml())),
    ("DiffPrices", pb.DiffPricesRequest(month="2026-10")),
    ("ListPeriods", pb.ListPeriodsRequest()),
    ("ListPeriods", pb.ListPeriodsRequest(contract="acme-2026")),
    ("ApproveInvoice", pb.ApproveInvoiceRequest(contract="acme-2026", month="2026-10")),
    ("ReopenPeriod", pb.ReopenPeriodRequest(contract="acme-2026", month="2026-10")),
    ("CorrectPeriod", pb.CorrectPeriodRequest(contract="acme-2026", month="2026-10")),
    ("CreditInvoice", pb.CreditInvoiceRequest(number="NG-2026-000001", line=1)),
    ("VoidInvoice", pb.VoidInvoiceRequest(number="NG-2026-000001")),
    ("RecordPayment", pb.RecordPaymentRequest(number="NG-2026-000001")),
    ("ListLineEvents", pb.ListLineEventsRequest(number="NG-2026-000001", line=1)),
    ("ListLineEvents", pb.ListLineEventsRequest(number="NG-2026-999999", line=1)),
]
# What a customer may ask for about itself.
OWN = ("PreviewInvoice", "ListInvoices", "GetInvoice", "ExplainInvoiceLine", "ListLineEvents")
ANSWERS = pb.DESCRIPTOR.services_by_name["BillingService"].methods_by_name


def ask(office: Office, name: str, request: Any) -> list[Any]:  # noqa: ANN401
    """Make a call, and return all its answers."""
    answer = office.call(name, request)
    return list(answer) if ANSWERS[name].server_streaming else [answer]


def test_calls__are_all_there() -> None:
    """Who may make a call is asked of each that there is."""
    assert {name for name, _ in CALLS} == set(ANSWERS)


@pytest.mark.parametrize(("name", "request_"), CALLS)
def test_call__of_a_foreign_key(
    office: Office,
    closed: pb.CloseMonthResponse,
    name: str,
    request_: Any,  # noqa: ANN401
) -> None:
    """A key of another account, and one of an account below the contract's, are let in nowhere."""
    del closed
    everything = list(account_service_pb2.Role.values())[1:]
    for account in ("thin", "team"):
        stranger = Office(office.meter, api_key=office.key_for(account, everything))
        with pytest.raises(grpc.RpcError) as error:
            ask(stranger, name, request_)
        assert reason_of(error.value)[1] == "SCOPE_MISSING"


def test_call__of_the_customer(office: Office, closed: pb.CloseMonthResponse) -> None:
    """A key that may read the contract's account sees its invoices, and the events behind them."""
    number = closed.periods[-1].invoice.number
    key = office.key_for("acme", [account_service_pb2.ROLE_READER])
    customer = Office(office.meter, api_key=key)
    assert customer.call("GetInvoice", pb.GetInvoiceRequest(number=number)).document
    assert customer.call("ListInvoices", pb.ListInvoicesRequest(account="acme")).invoices
    assert customer.call("PreviewInvoice", pb.PreviewInvoiceRequest(account="acme")).previews
    explained = pb.ExplainInvoiceLineRequest(number=number, line=1)
    assert customer.call("ExplainInvoiceLine", explained).closed
    assert ask(customer, "ListLineEvents", pb.ListLineEventsRequest(number=number, line=1))


@pytest.mark.parametrize(("name", "request_"), [it for it in CALLS if it[0] not in OWN])
def test_call__of_a_customer_with_all_roles(
    office: Office,
    closed: pb.CloseMonthResponse,
    name: str,
    request_: Any,  # noqa: ANN401
) -> None:
    """Whatever a key may do to its account, it changes no month, and sees no terms or periods."""
    del closed
    everything = list(account_service_pb2.Role.values())[1:]
    customer = Office(office.meter, api_key=office.key_for("acme", everything))
    with pytest.raises(grpc.RpcError) as error:
        ask(customer, name, request_)
    assert reason_of(error.value)[1] == "SCOPE_MISSING"


def test_call__of_one_of_two_covered_accounts(office: Office) -> None:
    """Who may read one account of a contract sees no invoice, for it bills the other one too."""
    for account in ("left", "right"):
        office.session.create_account(account)
    toml = contract_toml("of-both", covers="left", series="BO")
    toml = toml.replace('["id:left"]', '["id:left", "id:right"]')
    office.call("SetContract", pb.SetContractRequest(toml=toml))
    office.use("left", at="2026-10-20T00:00:00Z", input=1_000_000)
    request = pb.CloseMonthRequest(month="2026-10", account="left", early=True)
    closed = office.call("CloseMonth", request)
    number = closed.periods[-1].invoice.number
    listed = pb.ListInvoicesRequest(account="left")
    assert [it.number for it in office.call("ListInvoices", listed).invoices] == [number]
    key = office.key_for("left", [account_service_pb2.ROLE_READER])
    half = Office(office.meter, api_key=key)
    assert not half.call("ListInvoices", listed).invoices
    for unknown in (number, "BO-2026-000099"):
        with pytest.raises(grpc.RpcError) as error:
            half.call("GetInvoice", pb.GetInvoiceRequest(number=unknown))
        assert reason_of(error.value)[1] == "SCOPE_MISSING"
