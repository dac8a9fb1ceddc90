"""Random worlds billed by the product, in the oracle's words, so that both can be compared."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from multiprocessing import get_context
from typing import Any, Final

from billing.book_file import read_book
from billing.books import PriceBooks
from billing.contract_file import read_contract
from billing.contracts import BillingPeriod, Contracts, billing_periods
from billing.coverage import Coverage
from billing.difference import find_left
from billing.invoicing import Invoice as Drafted
from billing.invoicing import Made, draft
from billing.money import Currency
from billing.periods import read_month
from billing.ports import Terms
from billing.price_book import MODE_NAMES, class_name
from billing.rating import rate
from meter.domain.account import Account, AccountTree, ParentEdge
from meter.domain.interval import interval_start_ms
from meter.domain.tokens import BAND_EDGES, PROMPT_CLASSES, FinishClass, Mode, TokenClass
from meter.toml_file import FileFaults
from meter.usage import UsageFact
from tests.acceptance.oracle_accounts import Tree, find_account
from tests.acceptance.oracle_bills import (
    Bills,
    Event,
    Invoice,
    Line,
    LineKey,
    Period,
    Unpriced,
    bill,
    to_event,
)
from tests.acceptance.worlds import World, random_world, terms_of

_MODES = {name: mode for mode, name in MODE_NAMES.items()}
_PARTS: Final = 20


def bill_worlds(seeds: range) -> list[str]:
    """Return the seeds whose world product and oracle bill differently, and how."""
    parts = [seeds[part::_PARTS] for part in range(_PARTS)]
    # Spawned, not forked: gRPC, which other tests have used, does not like forks.
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        return [fault for faults in pool.map(_bill_each, parts) for fault in faults]


def _bill_each(seeds: range) -> list[str]:
    found = []
    for seed in seeds:
        world = random_world(seed)
        bills = bill(map(to_event, world.events), terms=terms_of(world), month=world.month)
        try:
            terms = read_terms(world)
        except FileFaults as refusal:
            found.append(f"seed {seed}: {refusal}")
            continue
        by_event = bill_by_product(world, facts_by_event(world), terms=terms)
        by_interval = bill_by_product(world, facts_by_interval(world), terms=terms)
        faults = [*differences(bills, by_interval)]
        if by_event != by_interval:
            faults.append("by event it is not what it is by interval")
        if not all(map(is_exact, by_interval.values())):
            faults.append("its own sums do not close")
        found += [f"seed {seed}: {fault}" for fault in faults]
    return found


def read_terms(world: World) -> Terms:
    """Read a world's files as the product does."""
    books = PriceBooks(read_book(text, tiers=None) for text in world.books)

    def find(written: str, at_ms: int) -> str | None:
        return find_account(world.tree, written, at_ms=at_ms)

    def find_currency(book: str) -> Currency | None:
        versions = books.versions(book)
        return versions[0].currency if versions else None

    contracts = Contracts(
        read_contract(text, tiers=None, find_account=find, find_currency_of_book=find_currency)
        for text in world.contracts
    )
    return Terms(version=1, books=books, contracts=contracts)


def tree_of(tree: Tree) -> AccountTree:
    """Return accounts as the product has them."""
    return AccountTree(
        Account(
            account_id=account_id,
            handle=account.handle,
            create_ms=0,
            close_ms=None,
            parents=tuple(
                ParentEdge(start_ms=start_ms, parent_id=parent)
                for start_ms, parent in account.parents
            ),
        )
        for account_id, account in tree.items()
    )


def facts_by_event(world: World) -> list[UsageFact]:
    """Return usage that was never added up: a fact for each event."""
    return [fact_of(to_event(event), sign=1) for event in world.events]


def facts_by_interval(world: World) -> list[UsageFact]:
    """Return usage as it is kept: added up by everything but the token class."""
    sums: dict[tuple[Any, ...], Counter[TokenClass]] = {}
    for fact in facts_by_event(world):
        key = (fact.account_id, fact.interval_start_ms, fact.model, fact.served_model)
        key = (*key, fact.tier, fact.mode, fact.band)  # type: ignore[assignment]
        sums.setdefault(key, Counter()).update(fact.tokens)
    return [
        UsageFact(
            account_id=account_id,
            interval_start_ms=start_ms,
            model=model,
            served_model=served_model,
            tier=tier,
            mode=mode,
            region="",
            band=band,
            finish_class=FinishClass.DELIVERED,
            tokens=tokens,
            request_count=1,
        )
        for (account_id, start_ms, model, served_model, tier, mode, band), tokens in sums.items()
    ]


def bill_by_product(
    world: World, facts: Iterable[UsageFact], *, terms: Terms
) -> dict[Period, Drafted]:
    """Return the drafts of the world's month that have any line or key, by what they are for."""
    coverage = Coverage(terms.contracts, tree_of(world.tree))
    known = list(facts)
    drafts = {}
    for period in _periods(world, terms):
        is_billed = coverage.is_billed_under(period.version.contract)
        billed = [
            fact for fact in known if period.span.holds(fact.interval_start_ms) and is_billed(fact)
        ]
        rating = rate(billed, version=period.version, books=terms.books)
        lines = find_left(rating.lines, (), currency=period.version.currency)
        made = Made(cut_id=1, counted_until_ms=0, is_sandbox=True)
        invoice = draft(period, lines, made=made, unpriced=rating.unpriced)
        if invoice.lines or invoice.unpriced:
            drafts[Period(period.version.contract, period.span.start_ms)] = invoice
    return drafts


def to_oracle(drafted: Drafted) -> Invoice:
    """Return a draft in the oracle's words."""
    lines = {
        LineKey(
            line.model,
            line.tier,
            MODE_NAMES[line.mode],
            class_name(line.token_class),
            line.price.above,
            line.price.window,
            Fraction(line.price.unit_price),
            line.price.version_start_ms,
        ): Line(
            line.line,
            line.token_count,
            Fraction(line.exact),
            Fraction(line.billed),
            Fraction(line.residue),
        )
        for line in drafted.lines
    }
    assert len(lines) == len(drafted.lines), "no two lines are for the same"
    return Invoice(
        drafted.account_id,
        drafted.currency.code,
        drafted.span.end_ms,
        lines,
        Fraction(drafted.total),
        Fraction(drafted.residue),
    )


def differences(bills: Bills, drafts: Mapping[Period, Drafted]) -> Iterator[str]:
    """Yield what the product bills otherwise than the oracle."""
    for period in sorted({*bills.invoices, *bills.held, *drafts}):
        drafted = drafts.get(period)
        if drafted is None:
            yield f"{period}: not drafted"
            continue
        expected = bills.invoices.get(period)
        found = to_oracle(drafted) if drafted.lines else None
        if expected != found:
            yield f"{period}: {found} instead of {expected}"
    unpriced: Counter[Unpriced] = Counter()
    for period, drafted in drafts.items():
        for it in drafted.unpriced:
            mode, name = MODE_NAMES[it.mode], class_name(it.token_class)
            unpriced[Unpriced(period, it.model, it.tier, mode, name)] += it.token_count
    if unpriced != bills.unpriced:
        yield f"unpriced: {unpriced} instead of {bills.unpriced}"


def is_exact(drafted: Drafted) -> bool:
    """Tell whether a draft's own sums close: billed + residue = exact, and lines = total."""
    exact = sum((Fraction(line.exact) for line in drafted.lines), Fraction())
    billed = sum((Fraction(line.billed) for line in drafted.lines), Fraction())
    half = Fraction(1, 2 * 10**drafted.currency.exponent)
    is_bounded = all(abs(Fraction(line.residue)) <= half for line in drafted.lines)
    is_whole = (billed, exact - billed) == (Fraction(drafted.total), Fraction(drafted.residue))
    return is_whole and is_bounded


def fact_of(event: Event, *, sign: int) -> UsageFact:
    """Return the fact of one event that was counted (1), or counted off (-1)."""
    tokens = {TokenClass[name.upper()]: count for name, count in event.classes.items()}
    prompt = sum(tokens.get(token_class, 0) for token_class in PROMPT_CLASSES)
    return UsageFact(
        account_id=event.account,
        interval_start_ms=interval_start_ms(event.end_ms),
        model=event.model,
        served_model=event.served_model or event.model,
        tier=event.tier,
        mode=Mode(_MODES[event.mode]),
        region="",
        band=sum(1 for edge in BAND_EDGES if edge <= prompt),
        finish_class=FinishClass.DELIVERED,
        tokens={token_class: sign * count for token_class, count in tokens.items()},
        request_count=sign,
    )


def _periods(world: World, terms: Terms) -> Iterator[BillingPeriod]:
    month = read_month(world.month)
    for version in terms.contracts:
        yield from billing_periods(version, month)
