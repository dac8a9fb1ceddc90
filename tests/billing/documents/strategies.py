"""Invoices of any content, for properties: whatever a file may say and usage may be."""

from datetime import timedelta
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from billing.contracts import ContractVersion, Party, PriceBy, billing_periods
from billing.energy import InvoiceEnergy, SiteEnergy
from billing.invoicing import Invoice, draft, issue
from billing.money import Currency, multiply
from billing.periods import month_of
from billing.price_book import Factor, Override, Price
from billing.rating import RatedLine, Rating, Unpriced
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


def listed(values: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    """None to three values, no two of them the same."""
    return st.lists(values, max_size=3, unique=True).map(tuple)


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
rated_lines = st.builds(
    RatedLine,
    model=names,
    tier=ids,
    mode=modes,
    token_class=classes,
    price=prices(),
    token_count=counts,
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
    )


@st.composite
def invoices(draw: st.DrawFn) -> Invoice:
    """An invoice, a draft, or a preview with or without keys that have no price."""
    version = draw(versions())
    (period,) = billing_periods(version, month_of(version.start_ms, version.zone))
    is_issued = draw(st.booleans())
    unpriced = () if is_issued else tuple(draw(st.lists(unpriced_keys, max_size=2)))
    made = draft(
        period,
        Rating(lines=tuple(draw(st.lists(rated_lines, max_size=4))), unpriced=unpriced),
        cut_id=draw(st.integers(1, 10**6) if is_issued else st.none() | st.integers(1, 10**6)),
        counted_until_ms=draw(instants),
        is_sandbox=draw(st.booleans()),
        energy=draw(st.none() | energies()),
    )
    if not is_issued:
        return made
    return issue(made, number=draw(st.integers(1, 10**7)), issue_ms=draw(instants))


_MS: Final = timedelta(milliseconds=1)
listed_overrides = st.lists(overrides, max_size=2).map(tuple)
