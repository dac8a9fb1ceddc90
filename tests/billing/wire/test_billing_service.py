"""The billing service of a running sandbox: every call, every reason, who may what."""

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from tests.billing.town import book_toml, contract_toml
from tests.billing.wire.office import BEGIN, NOVEMBER, Office, timestamp
from tests.wire.session import reason_of
from tests.wire.talk import read_metric
from tokenworks.billing.v1 import billing_service_pb2 as pb
from tokenworks.meter.v1 import usage_pb2


def outcomes(answer: pb.CloseMonthResponse) -> dict[str, str]:
    """Return what became of each contract."""
    return {
        it.invoice.contract: pb.CloseOutcome.Name(it.outcome).removeprefix("CLOSE_OUTCOME_")
        for it in answer.periods
    }


def test_close__by_contract(closed: pb.CloseMonthResponse) -> None:
    """One invoice is issued, one is held with its keys named, who is not covered is named too."""
    assert outcomes(closed) == {"acme-2026": "ISSUED", "of-thin": "HELD_UNPRICED"}
    # What waits for somebody comes first.
    held, issued = closed.periods
    assert (issued.invoice.number, issued.invoice.total) == ("NG-2026-000001", "10.00")
    assert issued.invoice.sandbox
    (unpriced,) = held.unpriced
    assert (unpriced.model, unpriced.token_count, unpriced.band) == ("llama-4", 2, "<32k")
    assert list(closed.uncovered) == ["free"]
    assert closed.cut_id > 0


def test_close__again(office: Office, closed: pb.CloseMonthResponse) -> None:
    """A second close names the first one's invoice and issues nothing."""
    del closed
    request = pb.CloseMonthRequest(month="previous", account="acme", early=True)
    answer = office.call("CloseMonth", request)
    assert outcomes(answer) == {"acme-2026": "ALREADY_ISSUED"}
    assert (answer.month, answer.cut_id) == ("2026-10", 0)


def test_close__dry_run(office: Office) -> None:
    """A dry run drafts and cuts nothing."""
    office.session.create_account("dry")
    book = pb.ImportPriceBookRequest(toml=book_toml(book="dry-book"))
    office.call("ImportPriceBook", book)
    toml = contract_toml("of-dry", covers="dry", book="dry-book", series="DRY")
    office.call("SetContract", pb.SetContractRequest(toml=toml))
    office.use("dry", at="2026-10-20T00:00:00Z", input=1_000_000)
    request = pb.CloseMonthRequest(month="2026-10", account="dry", dry_run=True, early=True)
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
    number = closed.periods[-1].invoice.number
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
    number = closed.periods[-1].invoice.number
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


def test_preview__of_a_closed_month(office: Office, closed: pb.CloseMonthResponse) -> None:
    """It says when the month was closed, as what, and what it comes to beyond that."""
    assert closed.periods
    request = pb.PreviewInvoiceRequest(account="acme", month="2026-10")
    (preview,) = office.call("PreviewInvoice", request).previews
    assert preview.number == "NG-2026-000001"
    assert preview.HasField("close_time")
    assert preview.difference == "0.00"


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


def test_revenue__by_pool(office: Office) -> None:
    """Asked for pools, a tier comes in as many rows; an empty one is of events that name none."""
    start, end = "2026-10-23T05:00:00Z", "2026-10-23T06:00:00Z"
    office.use("acme", at=start, pool="h100", output=2_000_000)
    office.use("team", at=start, pool="h200", output=500_000)
    office.use("acme", at=start, output=1_000_000)
    request = pb.QueryRevenueRequest(
        start_time=timestamp(start), end_time=timestamp(end), by_pool=True
    )
    rows = office.call("QueryRevenue", request).rows
    assert [(row.tier, row.currency, row.pool, row.amount) for row in rows] == [
        ("high", "USD", "", "3"),
        ("high", "USD", "h100", "6"),
        ("high", "USD", "h200", "1.5"),
    ]
    request.by_pool = False
    (row,) = office.call("QueryRevenue", request).rows
    assert (row.pool, row.amount) == ("", "10.5")


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


@pytest.fixture(scope="module")
def payer(office: Office) -> str:
    """An account with a book and a contract that nobody else here uses, and a million tokens."""
    office.session.create_account("payer")
    office.call("ImportPriceBook", pb.ImportPriceBookRequest(toml=book_toml(book="payers")))
    toml = contract_toml("of-payer", covers="payer", book="payers", series="PA")
    office.call("SetContract", pb.SetContractRequest(toml=toml))
    office.use("payer", input=1_000_000)
    return "payer"


def test_preview_terms__say_what_they_change(office: Office, payer: str) -> None:
    """Terms are laid on what was used: contracts, months and amounts are told, nothing is kept."""
    dear = book_toml('all = "4"', book="payers", start="2026-10-02T00:00:00")
    (effect,) = office.call("PreviewTerms", pb.PreviewTermsRequest(book=dear)).effects
    assert (effect.contract, effect.account, effect.month) == ("of-payer", payer, "2026-10")
    assert (effect.currency, effect.before, effect.after) == ("USD", "3.00", "4.00")
    assert (effect.difference, effect.closed, effect.unpriced_tokens) == ("1.00", False, 0)
    half = contract_toml(
        "of-payer",
        covers="payer",
        book="payers",
        series="PA",
        extra='[[overrides]]\nfactor = "0.5"\n',
    )
    (effect,) = office.call("PreviewTerms", pb.PreviewTermsRequest(contract=half)).effects
    assert (effect.after, effect.difference) == ("1.50", "-1.50")
    versions = office.call("ListPriceVersions", pb.ListPriceVersionsRequest(book="payers")).versions
    assert len(versions) == 1


def test_diff_prices__on_a_month(office: Office, payer: str) -> None:
    """A version and a file that is not imported are laid on a month: who pays how much more."""
    request = pb.DiffPricesRequest(
        before=pb.PriceSide(book="payers"),
        after=pb.PriceSide(toml=book_toml('all = "6"', book="idea")),
        month="2026-10",
    )
    answer = office.call("DiffPrices", request)
    (effect,) = answer.effects
    assert (effect.account, effect.before, effect.after) == (payer, "3.00", "6.00")
    (total,) = answer.totals
    assert (total.contract, total.difference, total.currency) == ("", "3.00", "USD")


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
        pb.ImportPriceBookRequest(toml=book_toml('all = "4"', start="2026-10-02T00:00:00")),
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
        "PreviewTerms",
        pb.PreviewTermsRequest(),
        "INVALID_ARGUMENT",
        "ARGUMENT_INVALID",
    ),
    (
        "PreviewTerms",
        pb.PreviewTermsRequest(contract="contract = 1"),
        "INVALID_ARGUMENT",
        "CONTRACT_INVALID",
    ),
    (
        "DiffPrices",
        pb.DiffPricesRequest(before=pb.PriceSide(book="list"), month="2026-10"),
        "INVALID_ARGUMENT",
        "ARGUMENT_INVALID",
    ),
    (
        "DiffPrices",
        pb.DiffPricesRequest(
            before=pb.PriceSide(book="none"), after=pb.PriceSide(book="list"), month="2026-10"
        ),
        "NOT_FOUND",
        "BOOK_NOT_FOUND",
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
