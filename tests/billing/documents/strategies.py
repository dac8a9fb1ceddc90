"""Invoices of any content, for properties: whatever a file may say and usage may be."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Final, TypeVar
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from billing.charges import Charge
from billing.contracts import ClosingTerms, ContractVersion, Party, PriceBy, billing_periods
from billing.energy import InvoiceEnergy, SiteEnergy
from billing.invoicing import (
    ChargeLine,
    CreditLine,
    DocumentKind,
    Group,
    Invoice,
    InvoiceLine,
    Origin,
    TermsFile,
    issue,
)
from billing.money import Currency, add_up, amount_of, multiply, round_half_up, subtract
from billing.periods import Month, month_of
from billing.price_book import Factor, Override, Price
from billing.rating import Unpriced
from billing.tax import CATEGORIES, Tax, tax_totals
from meter.domain.boundary import Boundary
from meter.domain.interval import INTERVAL_MS
from meter.domain.tokens import BAND_EDGES, BAND_NAMES, Mode, TokenClass

# With and without summer time, off the full hour, and where clocks go over a midnight.
ZONES: Final = (
    *("UTC", "Europe/Berlin", "America/Los_Angeles", "Asia/Kathmandu", "America/Sao_Paulo"),
    *("Pacific/Apia", "Asia/Beirut", "Pacific/Kiritimati"),
)
CURRENCIES: Final = (Currency("USD", 2), Currency("JPY", 0), Currency("BHD", 3))
# The edges of 2000 to 2100.
EDGES: Final = (946_684_800_000 // INTERVAL_MS, 4_102_444_800_000 // INTERVAL_MS)
NASTY: Final = "<>&\"'=+-@\t漢字한글🙂é·;,\r\n\u202e\u0301"

_Line = TypeVar("_Line", InvoiceLine, ChargeLine, CreditLine)
ids = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,15}", fullmatch=True)
names = st.text(min_size=1, max_size=20) | st.text(NASTY, min_size=1, max_size=12)
edges = st.integers(*EDGES).map(lambda place: place * INTERVAL_MS)
instants = st.integers(EDGES[0] * INTERVAL_MS, EDGES[1] * INTERVAL_MS)
counts = st.integers(-(10**13), 10**13)
classes = st.sampled_from(TokenClass)
modes = st.sampled_from(Mode)
unsigned = st.builds(
    lambda digits, place: Decimal(digits).scaleb(-place), st.integers(0, 10**9), st.integers(0, 12)
)


def listed(values: st.SearchStrategy[Any], most: int = 3) -> st.SearchStrategy[tuple[Any, ...]]:
    """None to three values, or as many, no two of them the same."""
    return st.lists(values, max_size=most, unique=True).map(tuple)


parties = st.builds(
    Party,
    party_id=ids,
    name=names,
    address=st.lists(names, max_size=3).map(tuple),
    tax_id=st.just("") | names,
)
overrides = st.builds(
    Override,
    index=st.integers(0, 99),
    models=listed(names),
    tiers=listed(ids),
    modes=listed(modes),
    classes=listed(classes),
    factor=st.none() | unsigned,
    prices=st.dictionaries(classes, unsigned, max_size=3),
    all=st.none() | unsigned,
)


@st.composite
def prices(draw: st.DrawFn) -> Price:
    """A price with its factors."""
    base = draw(unsigned)
    factors = draw(st.lists(st.builds(Factor, source=names, value=unsigned), max_size=3))
    return Price(
        base=base,
        source=draw(names),
        factors=tuple(factors),
        unit_price=multiply(base, *(it.value for it in factors)),
        above=draw(st.sampled_from((0, *BAND_EDGES))),
        window=draw(st.just("") | ids),
        book=draw(ids),
        version_start_ms=draw(edges),
    )


millijoules = st.integers(1, 10**18)
site_energies = st.builds(
    SiteEnergy,
    site=names,
    pools_mj=millijoules,
    pue=st.decimals(1, 3, places=4),
    is_measured=st.booleans(),
)
amounts = st.builds(
    lambda digits, place: Decimal(digits).scaleb(-place),
    st.integers(-(10**9), 10**9),
    st.integers(0, 12),
)
rates = st.builds(lambda digits: Decimal(digits).scaleb(-2), st.integers(0, 2_500))
taxes = st.builds(
    lambda category, rate, note: Tax(
        category=category, rate=rate if category == "S" else Decimal(0), note=note
    ),
    st.sampled_from(CATEGORIES),
    rates,
    st.just("") | names,
)
months = st.builds(Month, st.integers(2000, 2099), st.integers(1, 12))
numbers = st.from_regex(r"NG-20[0-9]{2}-[0-9]{6}", fullmatch=True)
hashes = st.binary(min_size=32, max_size=32).map(bytes.hex)
origins = st.builds(
    Origin, month=months, start_ms=edges, number=st.just("") | numbers, line=st.integers(0, 10**4)
)
charges = st.builds(
    Charge,
    charge_id=ids,
    text=names,
    quantity=amounts,
    unit=st.just("") | names,
    unit_price=amounts,
    on=st.none() | st.dates(date(2000, 1, 1), date(2099, 12, 31)),
    tax=st.none() | taxes,
)
closings = st.builds(
    ClosingTerms,
    collect_hours=st.integers(0, 120),
    hold_first=st.booleans(),
    hold_jump=st.none() | unsigned,
)
groups = st.builds(Group, account_id=ids, path=names)
terms_files = st.builds(
    TermsFile,
    kind=st.sampled_from(("book", "contract")),
    name=ids,
    start_ms=edges,
    sha256=hashes,
)


@st.composite
def lines_in(draw: st.DrawFn, currency: Currency) -> InvoiceLine:
    """A line of tokens; its number is given to it later."""
    price, token_count = draw(prices()), draw(counts)
    exact = amount_of(token_count, unit_price=price.unit_price)
    billed = round_half_up(exact, currency)
    return InvoiceLine(
        line=1,
        model=draw(names),
        tier=draw(ids),
        mode=draw(modes),
        token_class=draw(classes),
        price=price,
        token_count=token_count,
        exact=exact,
        billed=billed,
        residue=subtract(exact, billed),
        group=draw(st.just("") | ids),
        origin=draw(st.none() | origins),
    )


@st.composite
def charge_lines_in(draw: st.DrawFn, currency: Currency) -> ChargeLine:
    """A line of a charge."""
    charge = draw(charges)
    exact = multiply(charge.quantity, charge.unit_price)
    billed = round_half_up(exact, currency)
    return ChargeLine(
        line=1,
        charge_id=charge.charge_id,
        text=charge.text,
        quantity=charge.quantity,
        unit=charge.unit,
        unit_price=charge.unit_price,
        exact=exact,
        billed=billed,
        residue=subtract(exact, billed),
        tax=charge.tax,
        origin=draw(st.none() | origins),
    )


@st.composite
def credit_lines_in(draw: st.DrawFn, currency: Currency) -> CreditLine:
    """Money off a line of another document."""
    return CreditLine(
        line=1,
        number=draw(st.just("") | numbers),
        number_line=draw(st.integers(0, 10**4)),
        text=draw(names),
        token_count=draw(st.none() | st.integers(1, 10**13)),
        amount=round_half_up(draw(amounts), currency),
        tax=draw(st.none() | taxes),
    )


unpriced_keys = st.builds(
    Unpriced,
    model=names,
    tier=ids,
    mode=modes,
    token_class=classes,
    band=st.integers(0, len(BAND_NAMES) - 1),
    token_count=counts,
    first_ms=edges,
)


@st.composite
def energies(draw: st.DrawFn) -> InvoiceEnergy:
    """Energy of any boundary."""
    boundary = draw(st.sampled_from(Boundary))
    sites: tuple[SiteEnergy, ...] = ()
    if boundary is Boundary.FACILITY:
        sites = tuple(draw(st.lists(site_energies, min_size=1, max_size=3)))
    pools_mj = sum(it.pools_mj for it in sites) if sites else draw(millijoules)
    output_tokens = draw(st.integers(0, 10**12))
    return InvoiceEnergy(
        boundary=boundary,
        pools_mj=pools_mj,
        estimated_mj=draw(st.integers(0, pools_mj)),
        output_tokens=output_tokens,
        known_output_tokens=draw(st.integers(0, output_tokens)),
        sites=sites,
        factory_versions=tuple(sorted(draw(st.sets(st.integers(0, 99), min_size=1, max_size=4)))),
    )


@st.composite
def versions(draw: st.DrawFn) -> ContractVersion:
    """A version of a contract, with or without an end."""
    start_ms = draw(edges)
    days = draw(st.none() | st.integers(1, 400))
    end_ms = None if days is None else start_ms + days * timedelta(days=1) // _MS
    return ContractVersion(
        contract=draw(ids),
        start_ms=start_ms,
        end_ms=end_ms,
        zone=ZoneInfo(draw(st.sampled_from(ZONES))),
        currency=draw(st.sampled_from(CURRENCIES)),
        book=draw(ids),
        price_by=draw(st.sampled_from(PriceBy)),
        covers=tuple(draw(st.lists(ids, min_size=1, max_size=3))),
        seller=draw(parties),
        buyer=draw(parties),
        series=draw(st.from_regex(r"[A-Z0-9][A-Z0-9-]{0,7}", fullmatch=True)),
        po=draw(st.just("") | names),
        terms_days=draw(st.integers(0, 365)),
        overrides=draw(listed_overrides),
        energy=draw(st.none() | st.sampled_from(Boundary)),
        tax=draw(st.none() | taxes),
        charges=draw(listed(charges, 1)),
        bank=draw(listed(names, 1)),
        by_account=draw(st.booleans()),
        minimum=draw(unsigned),
        zero_documents=draw(st.booleans()),
        closing=draw(closings),
    )


@st.composite
def invoices(draw: st.DrawFn) -> Invoice:
    """A document of any kind, a draft, or a preview with or without keys that have no price."""
    version = draw(versions())
    (period,) = billing_periods(version, month_of(version.start_ms, version.zone))
    is_issued, currency = draw(st.booleans()), version.currency
    lines = _numbered(draw(st.lists(lines_in(currency), max_size=3)), after=0)
    charged = _numbered(draw(st.lists(charge_lines_in(currency), max_size=1)), after=len(lines))
    credited = _numbered(
        draw(st.lists(credit_lines_in(currency), max_size=1)), after=len(lines) + len(charged)
    )
    billed = [(version.tax, it.billed) for it in lines] + [(it.tax, it.billed) for it in charged]
    billed += [(it.tax, it.amount) for it in credited]
    totals = tax_totals(billed, currency)
    made = Invoice(
        version=version,
        span=period.span,
        issue=None,
        cut_id=draw(st.integers(1, 10**6) if is_issued else st.none() | st.integers(1, 10**6)),
        counted_until_ms=draw(instants),
        engine=draw(st.sampled_from((1, 2))),
        is_sandbox=draw(st.booleans()),
        lines=lines,
        unpriced=() if is_issued else tuple(draw(st.lists(unpriced_keys, max_size=2))),
        total=add_up([*(it for _, it in billed), *(it.amount for it in totals)]),
        residue=add_up([*(it.residue for it in lines), *(it.residue for it in charged)]),
        energy=draw(st.none() | energies()),
        kind=draw(st.sampled_from(DocumentKind)),
        charges=charged,
        credits=credited,
        groups=draw(listed(groups, 1)),
        taxes=totals,
        refers_to=draw(st.just("") | numbers),
        replaces=draw(st.just("") | numbers),
        reason=draw(st.just("") | names),
        usage_sha256=draw(st.just("") | hashes),
        terms=draw(listed(terms_files, 1)),
    )
    if not is_issued:
        return made
    return issue(made, number=draw(st.integers(1, 10**7)), issue_ms=draw(instants))


def _numbered(lines: Sequence[_Line], *, after: int) -> tuple[_Line, ...]:
    return tuple(replace(it, line=after + place) for place, it in enumerate(lines, 1))


_MS: Final = timedelta(milliseconds=1)
listed_overrides = st.lists(overrides, max_size=1).map(tuple)
