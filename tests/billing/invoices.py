"""Invoices for tests: a seller, a buyer, a book, and what was sold of it in October 2026."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from billing.contracts import BillingPeriod, ContractVersion, Party, PriceBy, billing_periods
from billing.difference import find_left
from billing.invoicing import Invoice, Made, draft, issue
from billing.money import Currency
from billing.periods import Month, month_start_ms
from billing.price_book import (
    ONE,
    Band,
    ModelPrices,
    Override,
    PriceBook,
    PriceKey,
    PriceTable,
    Window,
)
from billing.rating import RatedLine, Unpriced
from meter.domain.tokens import Mode, TokenClass

BERLIN: Final = ZoneInfo("Europe/Berlin")
USD: Final = Currency("USD", 2)
JPY: Final = Currency("JPY", 0)
BHD: Final = Currency("BHD", 3)
OCTOBER: Final = Month(2026, 10)
START_MS: Final = month_start_ms(OCTOBER, BERLIN)
DAY_MS: Final = 86_400_000
INPUT, CACHE_READ, OUTPUT = TokenClass.INPUT, TokenClass.CACHE_READ, TokenClass.OUTPUT

SELLER: Final = Party(
    party_id="nimbus-gmbh",
    name="Nimbus GmbH",
    address=("Torstr. 1", "10119 Berlin", "Germany"),
    tax_id="DE123456789",
)
BUYER: Final = Party(
    party_id="acme-sa",
    name="ACME SA",
    address=("1 rue de Rivoli", "75001 Paris", "France"),
    tax_id="FR40303265045",
)
VERSION: Final = ContractVersion(
    contract="acme-2026",
    start_ms=START_MS,
    end_ms=None,
    zone=BERLIN,
    currency=USD,
    book="retail",
    price_by=PriceBy.REQUESTED,
    covers=("acme",),
    seller=SELLER,
    buyer=BUYER,
    series="NG",
    po="4500017731",
    terms_days=30,
    overrides=(),
)


@dataclass(frozen=True, slots=True)
class Sold:
    """Tokens of one class that were sold at one instant; `band` is a place on the ladder."""

    model: str
    tier: str
    token_class: TokenClass
    token_count: int
    mode: Mode = Mode.ONLINE
    band: int = 0
    at_ms: int = START_MS


def prices(*, above: tuple[Band, ...] = (), **by_class: str) -> PriceTable:
    """Return a table of prices by the names of classes; `all` is the price of the others."""
    by_number = {
        TokenClass[name.upper()]: Decimal(price)
        for name, price in by_class.items()
        if name != "all"
    }
    every = Decimal(by_class["all"]) if "all" in by_class else None
    return PriceTable(prices=by_number, all=every, bands=above)


def book(
    models: Mapping[str, ModelPrices] | None = None,
    *,
    currency: Currency = USD,
    start_ms: int = START_MS,
    windows: tuple[Window, ...] = (),
) -> PriceBook:
    """Return a version of the book `retail`, with five tiers and half price for batches."""
    return PriceBook(
        book="retail",
        start_ms=start_ms,
        zone=BERLIN,
        currency=currency,
        same={},
        tiers={
            "free": Decimal(0),
            "medium": Decimal("0.5"),
            "high": ONE,
            "premium": Decimal("1.5"),
            "ultra": Decimal("2.25"),
        },
        modes={Mode.BATCH: Decimal("0.5")},
        windows=windows,
        models=MODELS if models is None else models,
        names={},
    )


def override(index: int = 0, **fields: Any) -> Override:  # noqa: ANN401
    """Return an override of all keys, but for the fields that are given."""
    empty: dict[str, Any] = {"models": (), "tiers": (), "modes": (), "classes": ()}
    terms: dict[str, Any] = {"factor": None, "prices": {}, "all": None}
    return Override(index=index, **(empty | terms | fields))


def make_draft(
    sold: Iterable[Sold],
    *,
    version: ContractVersion = VERSION,
    books: tuple[PriceBook, ...] = (),
    month: Month = OCTOBER,
    unpriced: tuple[Unpriced, ...] = (),
    is_sandbox: bool = False,
    cut_id: int | None = None,
) -> Invoice:
    """Return the draft of what was sold, each at the price of the newest book at its instant."""
    versions = sorted(books or (book(currency=version.currency),), key=lambda it: -it.start_ms)
    lines = [_rate(it, version=version, books=versions) for it in sold]
    (period,) = billing_periods(version, month)
    return draft(
        period,
        [left for it in lines for left in find_left([it], (), currency=version.currency)],
        made=Made(
            cut_id=cut_id,
            counted_until_ms=_counted_until(period, cut_id=cut_id),
            is_sandbox=is_sandbox,
        ),
        unpriced=unpriced,
    )


def make_invoice(
    sold: Iterable[Sold],
    *,
    version: ContractVersion = VERSION,
    books: tuple[PriceBook, ...] = (),
    month: Month = OCTOBER,
    is_sandbox: bool = False,
    number: int = 42,
) -> Invoice:
    """Return the invoice of what was sold, issued eleven hours after the month's end."""
    made = make_draft(
        sold, version=version, books=books, month=month, is_sandbox=is_sandbox, cut_id=31
    )
    return issue(made, number=number, issue_ms=made.span.end_ms + 39_600_000)


def with_names(version: ContractVersion, *, seller: str = "", buyer: str = "") -> ContractVersion:
    """Return a version whose parties have other names."""
    return replace(
        version,
        seller=replace(version.seller, name=seller or version.seller.name),
        buyer=replace(version.buyer, name=buyer or version.buyer.name),
    )


def _rate(sold: Sold, *, version: ContractVersion, books: list[PriceBook]) -> RatedLine:
    key = PriceKey(
        model=sold.model,
        tier=sold.tier,
        mode=sold.mode,
        token_class=sold.token_class,
        band=sold.band,
        at_ms=sold.at_ms,
    )
    in_force = next(it for it in books if it.start_ms <= sold.at_ms)
    price = in_force.find_price(key, version.overrides)
    assert price is not None
    return RatedLine(
        model=sold.model,
        tier=sold.tier,
        mode=sold.mode,
        token_class=sold.token_class,
        price=price,
        token_count=sold.token_count,
    )


def _counted_until(period: BillingPeriod, *, cut_id: int | None) -> int:
    """Return the middle of the month, and a little more, for a preview; else its end."""
    return period.span.start_ms + 13 * DAY_MS + 34_267_389 if cut_id is None else period.span.end_ms


MODELS: Final = {
    "glm-5.1": ModelPrices(
        table=prices(
            input="1.40",
            cache_read="0.26",
            output="4.40",
            all="1.75",
            above=(Band(prompt=200_000, prices={INPUT: Decimal("2.80")}, all=None),),
        ),
        tiers={"premium": prices(output="5.50")},
    ),
    "kimi-k2.6": ModelPrices(
        table=prices(input="0.95", cache_read="0.1625", output="4.00"), tiers={}
    ),
    "*": ModelPrices(
        table=prices(input="0.28", cache_read="0.028", output="0.42", all="0.35"), tiers={}
    ),
}
