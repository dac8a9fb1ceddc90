"""Books and contracts: the part of the billing service that takes terms in and tells of them."""

import asyncio
from typing import Any, TypeAlias

import grpc

from billing.contracts import ContractVersion
from billing.errors import BillingReason
from billing.money import write_money
from billing.ports import Terms
from billing.price_book import Override, PriceBook, PriceKey
from billing.shipped import SHIPPED, read_shipped
from billing.term_effects import TermsEffect
from billing.wire.desk import Desk
from billing.wire.messages import (
    from_filter,
    from_month,
    from_name,
    from_timestamp,
    to_contract_version,
    to_explained_price,
    to_price_version,
    to_summary,
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
        self, request: pb.ImportPriceBookRequest, _context: _Context
    ) -> pb.ImportPriceBookResponse:
        """Take in a version of a book."""
        if request.shipped and request.shipped not in SHIPPED:
            raise invalid_argument("shipped", f"one of {', '.join(SHIPPED)}")
        toml = read_shipped(request.shipped) if request.shipped else request.toml
        taken = await asyncio.to_thread(
            self._parts.setting.import_book,
            toml,
            key_id=self._door.caller().key_id,
            correct_issued=request.correct_issued,
        )
        return pb.ImportPriceBookResponse(
            version=to_price_version(taken.book),
            imported=taken.is_new,
            corrections=[to_summary(it) for it in taken.corrections],
            effects=[to_effect(it) for it in taken.effects],
        )

    async def ListPriceVersions(
        self, request: pb.ListPriceVersionsRequest, _context: _Context
    ) -> pb.ListPriceVersionsResponse:
        """List versions of books."""
        book = from_filter(request.book, "book")
        terms = await self._terms()
        if book is not None and book not in terms.books:
            raise _no_book(book)
        return pb.ListPriceVersionsResponse(
            versions=[to_price_version(it) for it in terms.books if book in (None, it.book)]
        )

    async def GetPriceBook(
        self, request: pb.GetPriceBookRequest, _context: _Context
    ) -> pb.GetPriceBookResponse:
        """Return a version of a book."""
        name, at_ms = from_name(request.book, "book"), self._at(request)
        book = _find_book(await self._terms(), name, at_ms)
        stored = await asyncio.to_thread(self._parts.terms.find_book_text, book.book, book.start_ms)
        assert stored is not None, "what was loaded is stored"
        return pb.GetPriceBookResponse(
            version=to_price_version(book),
            toml=stored.toml,
            import_time=to_timestamp(stored.time_ms),
        )

    async def ExplainPrice(
        self, request: pb.ExplainPriceRequest, _context: _Context
    ) -> pb.ExplainPriceResponse:
        """Explain a price."""
        terms, at_ms = await self._terms(), interval_start_ms(self._at(request))
        if bool(request.book) == bool(request.contract):
            raise invalid_argument("book", "given, or else contract, not both")
        name, overrides = request.book, tuple[Override, ...]()
        from_name(request.book or request.contract, "book" if request.book else "contract")
        if request.contract:
            version = _find_contract(terms, request.contract, at_ms)
            name, overrides = version.book, version.overrides
        book = _find_book(terms, name, at_ms)
        return to_explained_price(book.find_price(_to_key(request, at_ms), overrides), book)

    async def SetContract(
        self, request: pb.SetContractRequest, _context: _Context
    ) -> pb.SetContractResponse:
        """Take in a version of a contract."""
        taken = await asyncio.to_thread(
            self._parts.setting.set_contract,
            request.toml,
            key_id=self._door.caller().key_id,
            correct_issued=request.correct_issued,
        )
        return pb.SetContractResponse(
            version=to_contract_version(taken.version),
            changed=taken.is_new,
            effects=[to_effect(it) for it in taken.effects],
            corrections=[to_summary(it) for it in taken.corrections],
        )

    async def ListContracts(
        self, request: pb.ListContractsRequest, _context: _Context
    ) -> pb.ListContractsResponse:
        """List versions of contracts."""
        contract = from_filter(request.contract, "contract")
        terms = await self._terms()
        if contract is not None and not terms.contracts.versions(contract):
            raise _no_contract(contract)
        return pb.ListContractsResponse(
            versions=[
                to_contract_version(it) for it in terms.contracts if contract in (None, it.contract)
            ]
        )

    async def GetContract(
        self, request: pb.GetContractRequest, _context: _Context
    ) -> pb.GetContractResponse:
        """Return a version of a contract."""
        terms = await self._terms()
        at_ms = from_timestamp(request.at, "at") if request.HasField("at") else None
        version = _find_contract(terms, from_name(request.contract, "contract"), at_ms)
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

    async def PreviewTerms(
        self, request: pb.PreviewTermsRequest, _context: _Context
    ) -> pb.PreviewTermsResponse:
        """Say what terms would change."""
        written = request.WhichOneof("terms")
        if written is None:
            raise invalid_argument("terms", "a contract or a book")
        setting = self._parts.setting
        preview = setting.preview_book if written == "book" else setting.preview_contract
        effects = await asyncio.to_thread(preview, getattr(request, written))
        return pb.PreviewTermsResponse(effects=[to_effect(it) for it in effects])

    async def DiffPrices(
        self, request: pb.DiffPricesRequest, _context: _Context
    ) -> pb.DiffPricesResponse:
        """Say who would pay how much more by one version of a book than by another."""
        month = from_month(request.month)
        terms = await self._terms()
        before, after = [
            await asyncio.to_thread(self._side, terms, side, field)
            for side, field in ((request.before, "before"), (request.after, "after"))
        ]
        diff = await asyncio.to_thread(self._parts.setting.diff_prices, before, after, month=month)
        return pb.DiffPricesResponse(
            effects=[to_effect(it) for it in diff.effects],
            totals=[to_total(it) for it in diff.totals],
        )

    def _side(self, terms: Terms, side: pb.PriceSide, field: str) -> PriceBook:
        """Return the version that a side of a comparison means."""
        if bool(side.toml) == bool(side.book):
            raise invalid_argument(field, "a book's name, or else its text")
        if side.toml:
            return self._parts.terms.read_book(side.toml)
        at_ms = from_timestamp(side.at, field) if side.HasField("at") else None
        name = from_name(side.book, field)
        return _find_book(terms, name, self._host.clock.now_ms() if at_ms is None else at_ms)

    def _at(self, request: pb.GetPriceBookRequest | pb.ExplainPriceRequest) -> int:
        if request.HasField("at"):
            return from_timestamp(request.at, "at")
        return self._host.clock.now_ms()


def to_effect(effect: TermsEffect) -> pb.TermsEffect:
    """Return what terms change in a month of a contract."""
    message = to_total(effect)
    message.contract = effect.contract
    message.account = effect.account_id
    message.month = str(effect.month)
    message.closed = effect.is_closed
    return message


def to_total(effect: TermsEffect) -> pb.TermsEffect:
    """Return the sums of an effect, of whichever contracts it is."""
    currency = effect.currency
    return pb.TermsEffect(
        currency=currency.code,
        before=write_money(effect.before, currency),
        after=write_money(effect.after, currency),
        difference=write_money(effect.difference, currency),
        unpriced_tokens=effect.unpriced_tokens,
    )


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
