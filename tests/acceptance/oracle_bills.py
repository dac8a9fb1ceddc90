"""What events cost: each is priced on its own, tokens add up by line, and each line rounds once.

Pure: what goes in is data. Money is in fractions, instants in ms since 1970, UTC.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from fractions import Fraction
from itertools import chain
from typing import Any, Final, NamedTuple

from tests.acceptance.oracle_accounts import Tree, find_account, parent_at
from tests.acceptance.oracle_terms import (
    BookVersion,
    ContractVersion,
    Key,
    Price,
    Setting,
    month_span_ms,
    price_of,
    wall_time,
)

# Token classes in the order of their numbers; what the model wrote is no part of the prompt.
CLASSES: Final = (
    *("input", "cache_read", "cache_write_5m", "cache_write_30m", "cache_write_1h"),
    *("cache_write_12h", "output", "reasoning", "audio_input", "audio_cache_read", "audio_output"),
    *("image_input", "image_cache_read", "image_output", "video_input", "video_output"),
)
OUTPUT_CLASSES: Final = {"output", "reasoning", "audio_output", "image_output", "video_output"}
PROMPT_CLASSES: Final = frozenset(CLASSES) - OUTPUT_CLASSES
MODES: Final = ("online", "batch")
BAND_EDGES: Final = (0, 32_000, 64_000, 128_000, 200_000, 256_000, 272_000, 512_000, 1_000_000)
INTERVAL_MS: Final = 900_000
PRICE_UNIT_TOKENS: Final = 1_000_000
# Digits behind the point, where they are not two (ISO 4217).
EXPONENTS: Final = {
    **dict.fromkeys(("JPY", "KRW", "VND", "CLP", "ISK"), 0),
    **dict.fromkeys(("BHD", "KWD", "OMR", "JOD", "TND"), 3),
}


class Event(NamedTuple):
    """A request that ended; an empty `served_model` means `model`."""

    account: str
    model: str
    served_model: str
    tier: str
    mode: str
    classes: Mapping[str, int]
    end_ms: int
    request_id: str


class Period(NamedTuple):
    """What one invoice is for: a contract's local month, or what a version of it rules of that."""

    contract: str
    start_ms: int


class LineKey(NamedTuple):
    """What one line is for."""

    model: str
    tier: str
    mode: str
    token_class: str
    above: int
    window: str
    unit_price: Fraction
    price_start_ms: int


class Line(NamedTuple):
    """Its place on the invoice, from 1, its tokens and its money."""

    number: int
    quantity: int
    exact: Fraction
    billed: Fraction
    residue: Fraction


class Invoice(NamedTuple):
    """An invoice; `account` is the first that the contract covers."""

    account: str
    currency: str
    end_ms: int
    lines: Mapping[LineKey, Line]
    total: Fraction
    residue: Fraction


class Unpriced(NamedTuple):
    """What there is no price for."""

    period: Period
    model: str
    tier: str
    mode: str
    token_class: str


class Rated(NamedTuple):
    """An event's tokens of one class with their price, which is None when there is none."""

    month: str
    period: Period
    setting: Setting
    key: Key
    price: Price | None
    quantity: int


# Tokens by account, tier and class.
Tokens = Counter[tuple[str, str, str]]


@dataclass(kw_only=True)
class Bills:
    """What a month costs; `unpriced` and `sent` count tokens, `sent` all that a contract covers.

    `uncovered` are events of any month: without a contract there is no zone.
    """

    invoices: dict[Period, Invoice] = field(default_factory=dict)
    unpriced: Counter[Unpriced] = field(default_factory=Counter)
    uncovered: list[Event] = field(default_factory=list)
    sent: Tokens = field(default_factory=Counter)

    @property
    def held(self) -> set[Period]:
        """The periods whose invoice waits for a price."""
        return {unpriced.period for unpriced in self.unpriced}


class Terms:
    """Accounts, price books and contracts; every question is answered from scratch."""

    def __init__(
        self,
        tree: Tree,
        *,
        books: Mapping[str, tuple[BookVersion, ...]],
        contracts: tuple[ContractVersion, ...],
    ) -> None:
        self.tree = tree
        self.books = books
        self.contracts = contracts
        self._covering: dict[str, dict[ContractVersion, None]] = defaultdict(dict)
        for contract in contracts:
            for account in covered_accounts(contract, tree=tree):
                self._covering[account][contract] = None

    def find_contract(self, account: str, *, at_ms: int) -> ContractVersion | None:
        """Return the one that covers the account at that instant, or else the nearest above it."""
        place: str | None = account
        while place is not None:
            covering = self._covering.get(place)
            if covering:
                found = [it for it in covering if it.start_ms <= at_ms < it.end_ms]
                if len(found) > 1:
                    raise ValueError(f"{[it.name for it in found]} both cover {place!r}")
                if found:
                    return found[0]
            place = parent_at(self.tree, place, at_ms=at_ms)
        return None

    def setting(self, contract: ContractVersion, *, at_ms: int) -> Setting:
        """Return the newest version of the contract's book that had begun, and its windows then."""
        begun = [it for it in self.books.get(contract.book, ()) if it.start_ms <= at_ms]
        if not begun:
            return Setting(contract, None, ())
        return Setting(contract, begun[-1], begun[-1].windows_at(at_ms))


def to_event(truth: Mapping[str, Any]) -> Event:
    """Return the event that a line of truth tells of."""
    return Event(
        truth["account"],
        truth["model"],
        truth.get("served_model", ""),
        truth["tier"],
        truth["mode"],
        truth["classes"],
        truth["end_time_ms"],
        truth["request_id"],
    )


def bill(events: Iterable[Event], *, terms: Terms, month: str) -> Bills:
    """Price each event of the month, add up tokens by line, and round each line once."""
    register = _Register(terms, month=month)
    recorders: dict[int, dict[str, Callable[[Event], None]]] = defaultdict(dict)
    for event in events:
        at_ms = interval_start_ms(event.end_ms)
        record = recorders[at_ms].get(event.account)
        if record is None:
            record = register.recorder(event.account, at_ms=at_ms)
            recorders[at_ms][event.account] = record
        record(event)
    return register.bills()


def price_event(event: Event, *, terms: Terms) -> list[Rated] | None:
    """Price one event of any month, with nothing kept from others; None when it is uncovered."""
    at_ms = interval_start_ms(event.end_ms)
    contract = terms.find_contract(event.account, at_ms=at_ms)
    if contract is None:
        return None
    month, start_ms = month_of(contract, at_ms=at_ms)
    setting = terms.setting(contract, at_ms=at_ms)
    prompt = sum(event.classes.get(name, 0) for name in PROMPT_CLASSES)
    rated = []
    for token_class, quantity in event.classes.items():
        key = Key(sold_model(event, contract), event.tier, event.mode, token_class, prompt)
        price = price_of(key, setting=setting)
        period = Period(contract.name, start_ms)
        rated.append(Rated(month, period, setting, key, price, quantity))
    return [each for each in rated if each.quantity]


def month_of(contract: ContractVersion, *, at_ms: int) -> tuple[str, int]:
    """Return the billing month at that instant, and when the contract's period in it begins.

    Where clocks go back at midnight, the last day may come again after the first has begun.
    """
    wall = wall_time(at_ms, zone=contract.zone)
    months = (f"{day:%Y-%m}" for day in (wall, wall.replace(day=1) + timedelta(days=31)))
    for month in months:
        start_ms, end_ms = month_span_ms(month, zone=contract.zone)
        if start_ms <= at_ms < end_ms:
            return month, max(start_ms, contract.start_ms)
    raise AssertionError(f"no month of {contract.zone} has {at_ms}")


def interval_start_ms(at_ms: int) -> int:
    """Return the begin of the quarter of an hour in which an instant lies, and which decides."""
    return at_ms - at_ms % INTERVAL_MS


def sold_model(event: Event, contract: ContractVersion) -> str:
    """Return the model that the contract sells the event as."""
    return (contract.is_by_served and event.served_model) or event.model


def covered_accounts(contract: ContractVersion, *, tree: Tree) -> list[str]:
    """Return the ids of what `covers` names, by id or by the path as the version begins."""
    return [find_account(tree, text, at_ms=contract.start_ms) for text in contract.covers]


def period_ms(contract: ContractVersion, *, month: str) -> tuple[int, int]:
    """Return begin and end of what a version rules of a month; it is empty if they do not meet."""
    start_ms, end_ms = month_span_ms(month, zone=contract.zone)
    return max(start_ms, contract.start_ms), min(end_ms, contract.end_ms)


def line_key(key: Key, *, price: Price, setting: Setting) -> LineKey:
    """Return the line that tokens at this price stand on."""
    assert setting.book is not None, "there is a price"
    unit, above, window, _ = price
    return LineKey(*key[:4], above, window, unit, setting.book.start_ms)


def line_order(key: LineKey) -> tuple[object, ...]:
    """Return what an invoice's lines are sorted by."""
    numbers = MODES.index(key.mode), CLASSES.index(key.token_class), key.above
    return (key.model, key.tier, *numbers, key.window, key.price_start_ms, key.unit_price)


def round_half_up(amount: Fraction, *, currency: str) -> Fraction:
    """Return the nearest amount that can be paid; half of the smallest coin goes away from 0."""
    scale = 10 ** EXPONENTS.get(currency, 2)
    coins = (abs(amount) * scale + Fraction(1, 2)) // 1
    return Fraction(coins if amount > 0 else -coins, scale)


class _Sum:
    """Tokens added up event by event; `line` is None when there is no price for the key."""

    __slots__ = ("key", "line", "tokens")

    def __init__(self, key: Key, *, line: LineKey | None) -> None:
        self.key = key
        self.line = line
        self.tokens = 0


class _Till:
    """Takes in the events of one setting; the price of a key is looked up once, and kept."""

    def __init__(self, setting: Setting, *, sent: dict[tuple[str, str], Counter[str]]) -> None:
        self._setting = setting
        self._sent = sent
        self._sums: dict[tuple[str, str, str, int], dict[str, _Sum]] = defaultdict(dict)

    def record(self, event: Event) -> None:
        """Price an event, and add its tokens to their lines."""
        account, _, _, tier, mode, classes, _, _ = event
        model = sold_model(event, self._setting.contract)
        prompt = 0
        for token_class, tokens in classes.items():
            if token_class in PROMPT_CLASSES:
                prompt += tokens
        band = BAND_EDGES[bisect_right(BAND_EDGES, prompt) - 1]
        sums, sent = self._sums[model, tier, mode, band], self._sent[account, tier]
        for token_class, tokens in classes.items():
            if tokens:
                if token_class not in sums:
                    sums[token_class] = self._open(Key(model, tier, mode, token_class, band))
                sums[token_class].tokens += tokens
                sent[token_class] += tokens

    def sums(self) -> Iterator[_Sum]:
        """Return the tokens of each key."""
        return chain.from_iterable(sums.values() for sums in self._sums.values())

    def _open(self, key: Key) -> _Sum:
        price = price_of(key, setting=self._setting)
        return _Sum(key, line=price and line_key(key, price=price, setting=self._setting))


class _Register:
    """The tills of a month, one for each setting, and what passes them by."""

    def __init__(self, terms: Terms, *, month: str) -> None:
        self._terms = terms
        self._spans = {it: period_ms(it, month=month) for it in terms.contracts}
        self._tills: dict[Setting, _Till] = {}
        self._recorders: dict[tuple[ContractVersion, int], Callable[[Event], None]] = {}
        self._sent: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self._bills = Bills()

    def recorder(self, account: str, *, at_ms: int) -> Callable[[Event], None]:
        """Return what takes in the events of an account in the interval that begins then."""
        contract = self._terms.find_contract(account, at_ms=at_ms)
        if contract is None:
            return self._bills.uncovered.append
        start_ms, end_ms = self._spans[contract]
        if not start_ms <= at_ms < end_ms:
            return _pass_by
        record = self._recorders.get((contract, at_ms))
        if record is None:
            setting = self._terms.setting(contract, at_ms=at_ms)
            till = self._tills.setdefault(setting, _Till(setting, sent=self._sent))
            record = self._recorders[contract, at_ms] = till.record
        return record

    def bills(self) -> Bills:
        """Return what all that was recorded costs."""
        quantities: dict[ContractVersion, Counter[LineKey]] = defaultdict(Counter)
        for setting, till in self._tills.items():
            contract = setting.contract
            period = Period(contract.name, self._spans[contract][0])
            for total in till.sums():
                if total.line is None:
                    self._bills.unpriced[Unpriced(period, *total.key[:4])] += total.tokens
                else:
                    quantities[contract][total.line] += total.tokens
        for contract, lines in quantities.items():
            start_ms, end_ms = self._spans[contract]
            account = covered_accounts(contract, tree=self._terms.tree)[0]
            self._bills.invoices[Period(contract.name, start_ms)] = _invoice(
                lines, account=account, currency=contract.currency, end_ms=end_ms
            )
        for place, by_class in self._sent.items():
            self._bills.sent.update({(*place, name): tokens for name, tokens in by_class.items()})
        return self._bills


def _pass_by(_: Event) -> None:
    """Leave an event to another month."""


def _invoice(
    quantities: Mapping[LineKey, int], *, account: str, currency: str, end_ms: int
) -> Invoice:
    lines = {}
    for number, key in enumerate(sorted(quantities, key=line_order), 1):
        exact = quantities[key] * key.unit_price / PRICE_UNIT_TOKENS
        billed = round_half_up(exact, currency=currency)
        lines[key] = Line(number, quantities[key], exact, billed, exact - billed)
    total = sum((line.billed for line in lines.values()), Fraction())
    residue = sum((line.residue for line in lines.values()), Fraction())
    return Invoice(account, currency, end_ms, lines, total, residue)
