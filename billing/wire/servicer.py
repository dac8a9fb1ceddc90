"""BillingService: thin, each method asks who calls, translates, and hands on to a use case."""

import asyncio
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import grpc

from billing.closing import Closing
from billing.contracts import ContractVersion
from billing.errors import BillingReason
from billing.explaining import Explaining
from billing.invoicing import Invoice
from billing.money import write
from billing.pool_revenue import revenue_by_pool
from billing.ports import InvoiceStore, Terms, TermsStore
from billing.price_book import Override, PriceBook, PriceKey
from billing.revenue import Pricing, revenue_by_tier
from billing.shipped import SHIPPED, read_shipped
from billing.wire.messages import (
    from_month,
    from_span,
    from_timestamp,
    to_close_response,
    to_contract_version,
    to_explained_price,
    to_price_version,
    to_summary,
    to_timestamp,
    to_unpriced,
)
from billing.wire.rendering import RENDER, RENDER_EXPLANATION
from meter.domain.account import invalid_argument
from meter.domain.credential import Credential, Permission
from meter.domain.errors import NotFound
from meter.domain.interval import interval_start_ms
from meter.domain.tokens import BAND_EDGES, Mode, TokenClass
from meter.hosting import Door, Host
from tokenworks.billing.v1 import billing_service_pb2 as pb
from tokenworks.billing.v1 import billing_service_pb2_grpc

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_PAGE: Final = 100
_PAGE_MAX: Final = 1000
_PREVIOUS: Final = "previous"
_FORMATS: Final = {
    pb.DOCUMENT_FORMAT_UNSPECIFIED: "text",
    pb.DOCUMENT_FORMAT_TEXT: "text",
    pb.DOCUMENT_FORMAT_JSON: "json",
    pb.DOCUMENT_FORMAT_HTML: "html",
    pb.DOCUMENT_FORMAT_CSV: "csv",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BillingParts:
    """The use cases and stores that the service stands on."""

    terms: TermsStore
    invoices: InvoiceStore
    closing: Closing
    explaining: Explaining


class BillingServicer(billing_service_pb2_grpc.BillingServiceServicer):
    """Answers the calls; whatever touches the database or prices runs on a thread."""

    def __init__(self, parts: BillingParts, *, host: Host, door: Door) -> None:
        """Take the use cases, and what the meter lends."""
        self._parts = parts
        self._host = host
        self._door = door

    async def ImportPriceBook(
        self, request: pb.ImportPriceBookRequest, context: _Context
    ) -> pb.ImportPriceBookResponse:
        """Take in a version of a book."""
        credential = self._administrator(context)
        if request.shipped and request.shipped not in SHIPPED:
            raise invalid_argument("shipped", f"one of {', '.join(SHIPPED)}")
        toml = read_shipped(request.shipped) if request.shipped else request.toml
        book, is_new = await asyncio.to_thread(
            self._parts.terms.add_book,
            toml,
            key_id=credential.key_id,
            now_ms=self._host.clock.now_ms(),
        )
        return pb.ImportPriceBookResponse(version=to_price_version(book), imported=is_new)

    async def ListPriceVersions(
        self, request: pb.ListPriceVersionsRequest, context: _Context
    ) -> pb.ListPriceVersionsResponse:
        """List versions of books."""
        self._reader(context)
        terms = await self._terms()
        if request.book and request.book not in terms.books:
            raise _no_book(request.book)
        return pb.ListPriceVersionsResponse(
            versions=[to_price_version(it) for it in terms.books if request.book in ("", it.book)]
        )

    async def GetPriceBook(
        self, request: pb.GetPriceBookRequest, context: _Context
    ) -> pb.GetPriceBookResponse:
        """Return a version of a book."""
        self._reader(context)
        at_ms = self._at(request)
        book = _find_book(await self._terms(), request.book, at_ms)
        stored = await asyncio.to_thread(self._parts.terms.find_book_text, book.book, book.start_ms)
        assert stored is not None, "what was loaded is stored"
        return pb.GetPriceBookResponse(
            version=to_price_version(book),
            toml=stored.toml,
            import_time=to_timestamp(stored.time_ms),
        )

    async def ExplainPrice(
        self, request: pb.ExplainPriceRequest, context: _Context
    ) -> pb.ExplainPriceResponse:
        """Explain a price."""
        self._reader(context)
        terms, at_ms = await self._terms(), interval_start_ms(self._at(request))
        if bool(request.book) == bool(request.contract):
            raise invalid_argument("book", "given, or else contract, not both")
        name, overrides = request.book, tuple[Override, ...]()
        if request.contract:
            version = _find_contract(terms, request.contract, at_ms)
            name, overrides = version.book, version.overrides
        book = _find_book(terms, name, at_ms)
        return to_explained_price(book.find_price(_to_key(request, at_ms), overrides), book)

    async def SetContract(
        self, request: pb.SetContractRequest, context: _Context
    ) -> pb.SetContractResponse:
        """Take in a version of a contract."""
        credential = self._administrator(context)
        version, is_new = await asyncio.to_thread(
            self._parts.terms.set_contract,
            request.toml,
            key_id=credential.key_id,
            now_ms=self._host.clock.now_ms(),
        )
        return pb.SetContractResponse(version=to_contract_version(version), changed=is_new)

    async def ListContracts(
        self, request: pb.ListContractsRequest, context: _Context
    ) -> pb.ListContractsResponse:
        """List versions of contracts."""
        self._reader(context)
        terms = await self._terms()
        if request.contract and not terms.contracts.versions(request.contract):
            raise _no_contract(request.contract)
        return pb.ListContractsResponse(
            versions=[
                to_contract_version(it)
                for it in terms.contracts
                if request.contract in ("", it.contract)
            ]
        )

    async def GetContract(
        self, request: pb.GetContractRequest, context: _Context
    ) -> pb.GetContractResponse:
        """Return a version of a contract."""
        self._reader(context)
        terms = await self._terms()
        at_ms = from_timestamp(request.at, "at") if request.HasField("at") else None
        version = _find_contract(terms, request.contract, at_ms)
        stored = await asyncio.to_thread(
            self._parts.terms.find_contract_text, version.contract, version.start_ms
        )
        assert stored is not None, "what was loaded is stored"
        return pb.GetContractResponse(
            version=to_contract_version(version),
            toml=stored.toml,
            set_time=to_timestamp(stored.time_ms),
            revision=stored.revision,
        )

    async def PreviewInvoice(
        self, request: pb.PreviewInvoiceRequest, context: _Context
    ) -> pb.PreviewInvoiceResponse:
        """Draft invoices of all that is counted."""
        credential = self._door.caller(context)
        self._door.require(credential, Permission.READ, request.account)
        self._host.tree().get(request.account)
        month = from_month(request.month) if request.month else None
        found = await asyncio.to_thread(self._parts.closing.preview, request.account, month)
        # A contract's invoice is of all that it covers: who reads one account may not see others.
        for invoice in found:
            self._require_all(credential, invoice)
        render = RENDER[_FORMATS[request.format]]
        return pb.PreviewInvoiceResponse(
            previews=[
                pb.Preview(
                    invoice=to_summary(invoice),
                    document=render(invoice),
                    unpriced=to_unpriced(invoice.unpriced),
                )
                for invoice in found
            ]
        )

    async def CloseMonth(
        self, request: pb.CloseMonthRequest, context: _Context
    ) -> pb.CloseMonthResponse:
        """Issue a month's invoices."""
        self._administrator(context)
        closing = self._parts.closing
        is_previous = request.month == _PREVIOUS
        month = closing.previous_month() if is_previous else from_month(request.month)
        if request.account:
            self._host.tree().get(request.account)
        result = await asyncio.to_thread(
            closing.close_month,
            month,
            account_id=request.account or None,
            dry_run=request.dry_run,
        )
        return to_close_response(result)

    async def ListInvoices(
        self, request: pb.ListInvoicesRequest, context: _Context
    ) -> pb.ListInvoicesResponse:
        """List invoices."""
        account_id = request.account or None
        credential = self._door.caller(context)
        self._door.require(credential, Permission.READ, account_id)
        if not 0 <= request.page_size <= _PAGE_MAX:
            raise invalid_argument("page_size", f"0 to {_PAGE_MAX}")
        contracts = None
        if account_id is not None:
            self._host.tree().get(account_id)
            terms = await self._terms()
            contracts = sorted({it.contract for it in terms.contracts if account_id in it.covers})
        size = request.page_size or _PAGE
        found = await asyncio.to_thread(
            self._parts.invoices.list_invoices,
            contracts=contracts,
            month=from_month(request.month) if request.month else None,
            after=request.page_token,
            limit=size + 1,
        )
        page = found[:size]
        last = page[-1].issue if len(found) > size else None
        return pb.ListInvoicesResponse(
            # Who reads one account of a contract may not see what it bills to others.
            invoices=[to_summary(it) for it in page if self._may_read(credential, it)],
            next_page_token="" if last is None else last.number,
        )

    async def GetInvoice(
        self, request: pb.GetInvoiceRequest, context: _Context
    ) -> pb.GetInvoiceResponse:
        """Return an invoice."""
        invoice = await self._readable_invoice(request.number, context)
        document = RENDER[_FORMATS[request.format]](invoice)
        return pb.GetInvoiceResponse(invoice=to_summary(invoice), document=document)

    async def ExplainInvoiceLine(
        self, request: pb.ExplainInvoiceLineRequest, context: _Context
    ) -> pb.ExplainInvoiceLineResponse:
        """Explain a line."""
        await self._readable_invoice(request.number, context)
        form = _FORMATS[request.format]
        if form not in RENDER_EXPLANATION:
            raise invalid_argument("format", "text or JSON")
        explanation = await asyncio.to_thread(
            self._parts.explaining.explain_line, request.number, request.line
        )
        return pb.ExplainInvoiceLineResponse(
            document=RENDER_EXPLANATION[form](explanation), closed=explanation.is_closed
        )

    async def QueryRevenue(
        self, request: pb.QueryRevenueRequest, context: _Context
    ) -> pb.QueryRevenueResponse:
        """Sum what usage comes to."""
        self._reader(context)
        span = from_span(request.start_time, request.end_time)
        pricing, facts = Pricing(await self._terms(), self._host.tree()), self._host.facts
        if request.by_pool:
            found = await asyncio.to_thread(
                revenue_by_pool, pricing, facts, self._host.consumption, span=span
            )
        else:
            found = await asyncio.to_thread(revenue_by_tier, pricing, facts, span)
        return pb.QueryRevenueResponse(
            rows=[
                pb.RevenueRow(
                    tier=it.tier, currency=it.currency, amount=write(it.amount), pool=it.pool
                )
                for it in found
            ]
        )

    async def _terms(self) -> Terms:
        return await asyncio.to_thread(self._parts.terms.load)

    async def _readable_invoice(self, number: str, context: _Context) -> Invoice:
        credential = self._door.caller(context)
        try:
            invoice = await asyncio.to_thread(self._parts.explaining.get_invoice, number)
        except NotFound:
            # Which numbers there are is nobody's business who may not read them all.
            self._door.require(credential, Permission.READ, None)
            raise
        self._require_all(credential, invoice)
        return invoice

    def _may_read(self, credential: Credential, invoice: Invoice) -> bool:
        tree, now_ms = self._host.tree(), self._host.clock.now_ms()
        return all(
            credential.may(Permission.READ, account_id, tree=tree, at_ms=now_ms)
            for account_id in invoice.version.covers
        )

    def _require_all(self, credential: Credential, invoice: Invoice) -> None:
        for account_id in invoice.version.covers:
            self._door.require(credential, Permission.READ, account_id)

    def _administrator(self, context: _Context) -> Credential:
        credential = self._door.caller(context)
        self._door.require(credential, Permission.ADMINISTER, None)
        return credential

    def _reader(self, context: _Context) -> None:
        self._door.require(self._door.caller(context), Permission.READ, None)

    def _at(self, request: pb.GetPriceBookRequest | pb.ExplainPriceRequest) -> int:
        if request.HasField("at"):
            return from_timestamp(request.at, "at")
        return self._host.clock.now_ms()


def _find_book(terms: Terms, book: str, at_ms: int) -> PriceBook:
    found = terms.books.find_at(book, at_ms)
    if found is None:
        raise _no_book(book)
    return found


def _find_contract(terms: Terms, contract: str, at_ms: int | None) -> ContractVersion:
    versions = terms.contracts.versions(contract)
    found = [it for it in versions if at_ms is None or it.holds_at(at_ms)]
    if not found:
        raise _no_contract(contract)
    return found[-1]


def _no_book(book: str) -> NotFound:
    return NotFound(
        BillingReason.BOOK_NOT_FOUND, f"No version of a book {book} is there at that time."
    )


def _no_contract(contract: str) -> NotFound:
    return NotFound(
        BillingReason.CONTRACT_NOT_FOUND, f"No version of a contract {contract} is there then."
    )


def _to_key(request: pb.ExplainPriceRequest, at_ms: int) -> PriceKey:
    modes = {0: Mode.ONLINE, **{int(it): it for it in Mode}}
    classes = {int(it): it for it in TokenClass}
    if int(request.mode) not in modes:
        raise invalid_argument("mode", "online or batch")
    if int(request.token_class) not in classes:
        raise invalid_argument("token_class", "a class that there is")
    if request.prompt_tokens < 0:
        raise invalid_argument("prompt_tokens", "0 or more")
    return PriceKey(
        model=request.model,
        tier=request.tier,
        mode=modes[int(request.mode)],
        token_class=classes[int(request.token_class)],
        band=sum(1 for edge in BAND_EDGES if edge <= request.prompt_tokens),
        at_ms=at_ms,
    )
