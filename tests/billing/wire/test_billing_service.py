"""The billing service of a running sandbox: every call, every reason, who may what."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from tests.billing.town import book_toml, contract_toml
from tests.billing.wire.office import BEGIN, Office, timestamp
from tests.postgres import Cluster
from tests.running_meter import RunningMeter, running_meter_on
from tests.wire.session import reason_of
from tests.wire.talk import read_metric
from tokenworks.billing.v1 import billing_service_pb2 as pb
from tokenworks.meter.v1 import account_service_pb2, usage_pb2

NOVEMBER = "2026-11-01T00:00:00Z"


@pytest.fixture(scope="module")
def meter(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMeter]:
    """A sandbox in October that all tests here share; each has accounts of its own."""
    folder = tmp_path_factory.mktemp("billing")
    settings = {"sandbox_clock": BEGIN}
    with (
        cluster.database() as url,
        running_meter_on(url, folder=folder, settings=settings) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def office(meter: RunningMeter) -> Office:
    """Whoever may do everything, after the accounts and terms of October and its close.

    acme and its team have a contract and usage; thin has usage that its book does not price.
    """
    office = Office(meter)
    for account, parent in (("acme", ""), ("team", "acme"), ("thin", ""), ("free", "")):
        office.session.create_account(account, parent=parent)
    for toml in (book_toml(), book_toml('input = "3"', book="thin-book")):
        office.call("ImportPriceBook", pb.ImportPriceBookRequest(toml=toml))
    for toml in (
        contract_toml(),
        contract_toml("of-thin", covers="thin", book="thin-book", series="TH"),
    ):
        office.call("SetContract", pb.SetContractRequest(toml=toml))
    office.use("acme", input=1_000_000, output=333_333)
    office.use("team", input=2_000_000)
    office.use("thin", input=1, output=2)
    office.use("free", input=5)
    office.advance(NOVEMBER)
    return office


@pytest.fixture(scope="module")
def closed(office: Office) -> pb.CloseMonthResponse:
    """October, closed."""
    answer = office.call("CloseMonth", pb.CloseMonthRequest(month="2026-10"))
    assert isinstance(answer, pb.CloseMonthResponse)
    return answer


def outcomes(answer: pb.CloseMonthResponse) -> dict[str, str]:
    """Return what became of each contract."""
    return {
        it.invoice.contract: pb.CloseOutcome.Name(it.outcome).removeprefix("CLOSE_OUTCOME_")
        for it in answer.periods
    }


def test_close__by_contract(closed: pb.CloseMonthResponse) -> None:
    """One invoice is issued, one is held with its keys named, who is not covered is named too."""
    assert outcomes(closed) == {"acme-2026": "ISSUED", "of-thin": "HELD_UNPRICED"}
    issued, held = closed.periods
    assert (issued.invoice.number, issued.invoice.total) == ("NG-2026-000001", "10.00")
    assert issued.invoice.sandbox
    (unpriced,) = held.unpriced
    assert (unpriced.model, unpriced.token_count, unpriced.band) == ("llama-4", 2, "<32k")
    assert list(closed.uncovered) == ["free"]
    assert closed.cut_id > 0


def test_close__again(office: Office, closed: pb.CloseMonthResponse) -> None:
    """A second close names the first one's invoice and issues nothing."""
    del closed
    request = pb.CloseMonthRequest(month="previous", account="acme")
    answer = office.call("CloseMonth", request)
    assert outcomes(answer) == {"acme-2026": "ALREADY_ISSUED"}
    assert (answer.month, answer.cut_id) == ("2026-10", 0)


def test_close__dry_run(office: Office) -> None:
    """A dry run drafts and cuts nothing."""
    office.session.create_account("dry")
    toml = contract_toml("of-dry", covers="dry", series="DRY")
    office.call("SetContract", pb.SetContractRequest(toml=toml))
    office.use("dry", at="2026-10-20T00:00:00Z", input=1)
    request = pb.CloseMonthRequest(month="2026-10", account="dry", dry_run=True)
    answer = office.call("CloseMonth", request)
    assert (outcomes(answer), answer.cut_id) == ({"of-dry": "DRAFTED"}, 0)


@pytest.mark.parametrize(
    ("form", "check"),
    [
        (pb.DOCUMENT_FORMAT_TEXT, lambda it: "NG-2026-000001" in it),
        (pb.DOCUMENT_FORMAT_UNSPECIFIED, lambda it: "SANDBOX" in it),
        (pb.DOCUMENT_FORMAT_HTML, lambda it: it.lstrip().lower().startswith("<!doctype html")),
        (pb.DOCUMENT_FORMAT_JSON, lambda it: json.loads(it)["total"] == "10.00"),
        (pb.DOCUMENT_FORMAT_CSV, lambda it: len(list(csv.DictReader(io.StringIO(it)))) == 2),
    ],
)
def test_invoice__in_every_form(
    office: Office, closed: pb.CloseMonthResponse, form: int, check: Callable[[str], bool]
) -> None:
    """An invoice is had as text, HTML, JSON and CSV."""
    number = closed.periods[0].invoice.number
    request = pb.GetInvoiceRequest(number=number, format=form)  # type: ignore[arg-type]
    answer = office.call("GetInvoice", request)
    assert check(answer.document.decode())
    assert answer.invoice.number == number


def test_invoice__is_listed(office: Office, closed: pb.CloseMonthResponse) -> None:
    """Invoices are listed by number, by account and by month, page by page."""
    del closed
    listed = office.call("ListInvoices", pb.ListInvoicesRequest(page_size=1))
    assert [it.number for it in listed.invoices] == ["NG-2026-000001"]
    rest = pb.ListInvoicesRequest(page_token=listed.invoices[0].number)
    assert not office.call("ListInvoices", rest).invoices
    for account, month, count in (("acme", "2026-10", 1), ("acme", "2026-09", 0), ("free", "", 0)):
        request = pb.ListInvoicesRequest(account=account, month=month)
        assert len(office.call("ListInvoices", request).invoices) == count


def test_explain__a_line(office: Office, closed: pb.CloseMonthResponse) -> None:
    """A line is explained in text and JSON, and adds up."""
    number = closed.periods[0].invoice.number
    forms = (pb.DOCUMENT_FORMAT_TEXT, pb.DOCUMENT_FORMAT_JSON)
    answers = [
        office.call(
            "ExplainInvoiceLine",
            pb.ExplainInvoiceLineRequest(number=number, line=1, format=form),
        )
        for form in forms
    ]
    assert all(answer.closed for answer in answers)
    found = json.loads(answers[1].document)
    assert found["tokens"] == 3_000_000
    assert sum(it["tokens"] for it in found["intervals"]) == 3_000_000
    assert sum(it["tokens"] for it in found["segments"]) == 3_000_000
    assert "3,000,000 tokens × 3 / 1,000,000 = 9 USD" in answers[0].document.decode()


def test_preview__of_a_month(office: Office) -> None:
    """A preview is a document without a number, and names what has no price."""
    request = pb.PreviewInvoiceRequest(
        account="thin", month="2026-10", format=pb.DOCUMENT_FORMAT_JSON
    )
    (preview,) = office.call("PreviewInvoice", request).previews
    assert preview.invoice.number == ""
    assert json.loads(preview.document)["kind"] == "preview"
    assert [it.token_count for it in preview.unpriced] == [2]


def test_prices__are_kept_as_they_came(office: Office) -> None:
    """A version is listed, returned as its file, and told to be there when it comes again."""
    toml = book_toml('all = "7"', start="2027-01-01T00:00:00")
    request = pb.ImportPriceBookRequest(toml=toml)
    assert office.call("ImportPriceBook", request).imported
    assert not office.call("ImportPriceBook", request).imported
    listed = office.call("ListPriceVersions", pb.ListPriceVersionsRequest(book="list")).versions
    assert len(listed) == 2
    at = timestamp("2027-06-01T00:00:00Z")
    assert office.call("GetPriceBook", pb.GetPriceBookRequest(book="list", at=at)).toml == toml
    shipped = pb.ImportPriceBookRequest(shipped="keynote")
    assert office.call("ImportPriceBook", shipped).version.book == "keynote"


def test_price__explained(office: Office) -> None:
    """A price is told factor by factor, with a contract's override; a missing one is missing."""
    office.session.create_account("rebate")
    toml = contract_toml("of-rebate", covers="rebate", series="RB", extra="")
    toml += '[[overrides]]\nmodels = ["llama-4"]\nfactor = "0.85"\n'
    office.call("SetContract", pb.SetContractRequest(toml=toml))
    key: dict[str, Any] = {
        "model": "llama-4",
        "tier": "high",
        "token_class": usage_pb2.TOKEN_CLASS_INPUT,
    }
    answer = office.call("ExplainPrice", pb.ExplainPriceRequest(contract="of-rebate", **key))
    assert (answer.priced, answer.base, answer.unit_price) == (True, "3", "2.55")
    factors = [(it.source, it.value) for it in answer.factors]
    assert factors == [("contract overrides[0]", "0.85")]
    other = pb.ExplainPriceRequest(book="list", **{**key, "model": "unknown"})
    assert not office.call("ExplainPrice", other).priced


def test_contracts__are_kept_as_they_came(office: Office) -> None:
    """A contract is listed, returned as its file, and set anew as its next revision."""
    office.session.create_account("kept")
    toml = contract_toml("of-kept", covers="kept", series="KE")
    request = pb.SetContractRequest(toml=toml)
    assert office.call("SetContract", request).changed
    assert not office.call("SetContract", request).changed
    (listed,) = office.call("ListContracts", pb.ListContractsRequest(contract="of-kept")).versions
    assert (list(listed.covers), listed.zone) == (["kept"], "Europe/Berlin")
    office.call("SetContract", pb.SetContractRequest(toml=toml + 'po = "9"\n'))
    got = office.call("GetContract", pb.GetContractRequest(contract="of-kept"))
    assert (got.revision, 'po = "9"' in got.toml) == (2, True)


def test_revenue__by_tier(office: Office) -> None:
    """What usage comes to is summed by tier, exact, and shown as a metric as it is counted."""
    request = pb.QueryRevenueRequest(
        start_time=timestamp("2026-10-01T00:00:00Z"), end_time=timestamp("2026-10-15T00:00:00Z")
    )
    (row,) = office.call("QueryRevenue", request).rows
    assert (row.tier, row.currency, row.amount) == ("high", "USD", "10.000002")
    name = "tokenworks_revenue_total"
    assert read_metric(office.meter, name, currency="USD", tier="high", pool="") > 10
    unpriced = "tokenworks_unpriced_tokens_total"
    assert read_metric(office.meter, unpriced, tier="high", model="llama-4") >= 2 + 5


REFUSALS: list[tuple[str, Any, str, str]] = [
    (
        "ImportPriceBook",
        pb.ImportPriceBookRequest(toml="book = 1"),
        "INVALID_ARGUMENT",
        "BOOK_INVALID",
    ),
    (
        "ImportPriceBook",
        pb.ImportPriceBookRequest(toml=book_toml('all = "4"')),
        "FAILED_PRECONDITION",
        "BOOK_CHANGED",
    ),
    (
        "ImportPriceBook",
        pb.ImportPriceBookRequest(toml=book_toml(start="2026-10-02T00:00:00")),
        "FAILED_PRECONDITION",
        "PERIOD_ISSUED",
    ),
    (
        "ImportPriceBook",
        pb.ImportPriceBookRequest(shipped="nothing"),
        "INVALID_ARGUMENT",
        "ARGUMENT_INVALID",
    ),
    (
        "ListPriceVersions",
        pb.ListPriceVersionsRequest(book="none"),
        "NOT_FOUND",
        "BOOK_NOT_FOUND",
    ),
    (
        "SetContract",
        pb.SetContractRequest(toml="contract = 1"),
        "INVALID_ARGUMENT",
        "CONTRACT_INVALID",
    ),
    (
        "SetContract",
        pb.SetContractRequest(toml=contract_toml("other-one")),
        "FAILED_PRECONDITION",
        "COVER_TAKEN",
    ),
    ("GetContract", pb.GetContractRequest(contract="none"), "NOT_FOUND", "CONTRACT_NOT_FOUND"),
    ("ListContracts", pb.ListContractsRequest(contract="none"), "NOT_FOUND", "CONTRACT_NOT_FOUND"),
    (
        "PreviewInvoice",
        pb.PreviewInvoiceRequest(account="free"),
        "NOT_FOUND",
        "ACCOUNT_NOT_COVERED",
    ),
    ("PreviewInvoice", pb.PreviewInvoiceRequest(account="no"), "NOT_FOUND", "ACCOUNT_NOT_FOUND"),
    (
        "CloseMonth",
        pb.CloseMonthRequest(month="2026-12"),
        "FAILED_PRECONDITION",
        "MONTH_NOT_ENDED",
    ),
    (
        "CloseMonth",
        pb.CloseMonthRequest(month="2026-13"),
        "INVALID_ARGUMENT",
        "ARGUMENT_INVALID",
    ),
    ("GetInvoice", pb.GetInvoiceRequest(number="NG-1"), "NOT_FOUND", "INVOICE_NOT_FOUND"),
    (
        "ExplainInvoiceLine",
        pb.ExplainInvoiceLineRequest(number="NG-2026-000001", line=99),
        "NOT_FOUND",
        "LINE_NOT_FOUND",
    ),
    (
        "ExplainInvoiceLine",
        pb.ExplainInvoiceLineRequest(
            number="NG-2026-000001", line=1, format=pb.DOCUMENT_FORMAT_HTML
        ),
        "INVALID_ARGUMENT",
        "ARGUMENT_INVALID",
    ),
    ("ListInvoices", pb.ListInvoicesRequest(page_size=-1), "INVALID_ARGUMENT", "ARGUMENT_INVALID"),
    (
        "QueryRevenue",
        pb.QueryRevenueRequest(start_time=timestamp(NOVEMBER), end_time=timestamp(BEGIN)),
        "INVALID_ARGUMENT",
        "ARGUMENT_INVALID",
    ),
    (
        "ExplainPrice",
        pb.ExplainPriceRequest(model="m", tier="high"),
        "INVALID_ARGUMENT",
        "ARGUMENT_INVALID",
    ),
]


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: f"{case[0]}-{case[3]}")
@pytest.mark.usefixtures("closed")
def test_call__refused(office: Office, case: tuple[str, Any, str, str]) -> None:
    """What cannot be is refused with its gRPC code and its reason."""
    name, request_, code, reason = case
    with pytest.raises(grpc.RpcError) as error:
        office.call(name, request_)
    found_code, found_reason, _ = reason_of(error.value)
    assert (found_code.name, found_reason) == (code, reason)


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
]


@pytest.mark.parametrize(("name", "request_"), CALLS)
def test_call__of_a_foreign_key(
    office: Office,
    closed: pb.CloseMonthResponse,
    name: str,
    request_: Any,  # noqa: ANN401
) -> None:
    """A key of another account, and one of an account below the contract's, are let in nowhere."""
    del closed
    everything = list(account_service_pb2.Permission.values())[1:]
    for account in ("thin", "team"):
        stranger = Office(office.meter, api_key=office.key_for(account, everything))
        with pytest.raises(grpc.RpcError) as error:
            stranger.call(name, request_)
        assert reason_of(error.value)[1] == "SCOPE_MISSING"


def test_call__of_the_customer(office: Office, closed: pb.CloseMonthResponse) -> None:
    """A key that may read the contract's account sees its invoices, and closes nothing."""
    number = closed.periods[0].invoice.number
    key = office.key_for("acme", [account_service_pb2.PERMISSION_READ])
    customer = Office(office.meter, api_key=key)
    assert customer.call("GetInvoice", pb.GetInvoiceRequest(number=number)).document
    assert customer.call("ListInvoices", pb.ListInvoicesRequest(account="acme")).invoices
    assert customer.call("PreviewInvoice", pb.PreviewInvoiceRequest(account="acme")).previews
    explained = pb.ExplainInvoiceLineRequest(number=number, line=1)
    assert customer.call("ExplainInvoiceLine", explained).closed
    with pytest.raises(grpc.RpcError) as error:
        customer.call("CloseMonth", pb.CloseMonthRequest(month="2026-10"))
    assert reason_of(error.value)[1] == "SCOPE_MISSING"


def test_call__of_one_of_two_covered_accounts(office: Office) -> None:
    """Who may read one account of a contract sees no invoice, for it bills the other one too."""
    for account in ("left", "right"):
        office.session.create_account(account)
    toml = contract_toml("of-both", covers="left", series="BO")
    toml = toml.replace('["id:left"]', '["id:left", "id:right"]')
    office.call("SetContract", pb.SetContractRequest(toml=toml))
    office.use("left", at="2026-10-20T00:00:00Z", input=1_000_000)
    closed = office.call("CloseMonth", pb.CloseMonthRequest(month="2026-10", account="left"))
    number = closed.periods[0].invoice.number
    listed = pb.ListInvoicesRequest(account="left")
    assert [it.number for it in office.call("ListInvoices", listed).invoices] == [number]
    key = office.key_for("left", [account_service_pb2.PERMISSION_READ])
    half = Office(office.meter, api_key=key)
    assert not half.call("ListInvoices", listed).invoices
    for unknown in (number, "BO-2026-000099"):
        with pytest.raises(grpc.RpcError) as error:
            half.call("GetInvoice", pb.GetInvoiceRequest(number=unknown))
        assert reason_of(error.value)[1] == "SCOPE_MISSING"
