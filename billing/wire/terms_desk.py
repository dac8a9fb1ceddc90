"""Books and contracts: the part of the billing service that takes terms in and tells of them."""

import asyncio
from typing import Any, TypeAlias

import grpc

from billing.contracts import ContractVersion
from billing.errors import BillingReason
from billing.ports import Terms
from billing.price_book import Override, PriceBook, PriceKey
from billing.shipped import SHIPPED, read_shipped
from billing.wire.desk import Desk
from billing.wire.messages import (
    from_timestamp,
    to_contract_version,
    to_explained_price,
    to_price_version,
    to_timestamp,
)
from meter.domain.account import invalid_argument
from meter.domain.errors import NotFound
from meter.domain.interval import interval_start_ms
from meter.domain.tokens import BAND_EDGES, Mode, TokenClass
from tokenworks.billing.v1 import billing_service_pb2 as pb

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class TermsDesk(Desk):
    """Answers the calls about books and contracts."""

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
