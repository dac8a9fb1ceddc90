"""The price of a key: one rule at a time, at its edges."""

from decimal import Decimal

import pytest

from billing.price_book import (
    Factor,
    PriceKey,
    explain,
)
from meter.domain.tokens import BAND_EDGES, Mode, TokenClass
from tests.billing.terms import NIGHT_BOOK, a_book, a_contract, a_key, unit_price

INPUT, OUTPUT, REASONING = TokenClass.INPUT, TokenClass.OUTPUT, TokenClass.REASONING
CACHE_READ, IMAGE_INPUT = TokenClass.CACHE_READ, TokenClass.IMAGE_INPUT

TABLES = """
same = { reasoning = "output", image_input = "input" }
[models.m]
input = "1"
output = "2"
[[models.m.above]]
prompt = 32_000
output = "4"
all = "5"
[[models.m.above]]
prompt = 200_000
input = "7"
"""


@pytest.mark.parametrize(
    ("token_class", "band", "price", "above", "source"),
    [
        (INPUT, 0, "1", 0, "input"),
        (OUTPUT, 0, "2", 0, "output"),
        (REASONING, 0, "2", 0, "output"),
        (IMAGE_INPUT, 0, "1", 0, "input"),
        (CACHE_READ, 0, None, 0, ""),
        # A band's own price, the class that it is priced as, and all others, before the table's.
        (OUTPUT, 1, "4", 32_000, "above[32000].output"),
        (REASONING, 1, "4", 32_000, "above[32000].output"),
        (INPUT, 1, "5", 32_000, "above[32000].all"),
        (CACHE_READ, 1, "5", 32_000, "above[32000].all"),
        (INPUT, 3, "5", 32_000, "above[32000].all"),
        # From the highest band down, class by class.
        (INPUT, 4, "7", 200_000, "above[200000].input"),
        (IMAGE_INPUT, 4, "7", 200_000, "above[200000].input"),
        (OUTPUT, 4, "4", 32_000, "above[32000].output"),
        (CACHE_READ, 8, "5", 32_000, "above[32000].all"),
    ],
)
def test_find_price__bands_classes_and_all(
    token_class: TokenClass, band: int, price: str | None, above: int, source: str
) -> None:
    """The highest band that was reached and has the class goes first, the table itself last."""
    book = a_book(TABLES)
    found = book.find_price(a_key(token_class=token_class, band=band))
    assert unit_price(found) == (None if price is None else Decimal(price))
    if found is not None:
        assert (found.above, found.source) == (above, f'models."m".{source}')
        assert found.factors == ()


@pytest.mark.parametrize(
    ("band", "price"), [(place, "2" if place >= 4 else "1") for place in range(len(BAND_EDGES) + 1)]
)
def test_find_price__band_begins_at_its_edge(band: int, price: str) -> None:
    """A prompt of exactly an edge is in the band above it, and pays what is written above it."""
    book = a_book('[models.m]\nall = "1"\nabove = [{ prompt = 200_000, all = "2" }]')
    assert BAND_EDGES[3] == 200_000
    assert unit_price(book.find_price(a_key(band=band))) == Decimal(price)


TIER_TABLES = """
tiers = { high = "10", free = "0" }
[models.m]
input = "1"
tier.premium = { output = "7" }
tier.high = { output = "8", above = [{ prompt = 32_000, output = "9" }] }
[models.all]
all = "3"
"""


@pytest.mark.parametrize(
    ("model", "tier", "token_class", "band", "price"),
    [
        # A written price is what it is; the factor of the tier is not applied.
        ("m", "high", OUTPUT, 0, "8"),
        ("m", "high", OUTPUT, 1, "9"),
        # No written price for the class: the model's own, times the factor.
        ("m", "high", INPUT, 0, "10"),
        ("m", "free", INPUT, 0, "0"),
        # A tier without a factor has the prices that are written for it, and no others.
        ("m", "premium", OUTPUT, 0, "7"),
        ("m", "premium", INPUT, 0, None),
        ("all", "premium", INPUT, 0, None),
        ("all", "high", OUTPUT, 0, "30"),
        # The model's own table has none.
        ("m", "free", OUTPUT, 0, None),
    ],
)
def test_find_price__tier(
    model: str, tier: str, token_class: TokenClass, band: int, price: str | None
) -> None:
    """A price that is written for a tier beats the tier's factor; without either there is none."""
    key = a_key(model, tier=tier, token_class=token_class, band=band)
    found = a_book(TIER_TABLES).find_price(key)
    assert unit_price(found) == (None if price is None else Decimal(price))


def test_find_price__no_table_of_tiers() -> None:
    """Where no tier has a factor, all tiers have the model's own prices, and none is listed."""
    found = a_book('[models.m]\nall = "3"').find_price(a_key(tier="ultra"))
    assert found is not None
    assert (found.unit_price, found.factors) == (Decimal(3), ())


def test_find_price__factor_of_1_is_listed() -> None:
    """A factor that applies is in the explanation even where it changes nothing."""
    found = a_book('tiers = { high = "1.0" }\n[models.m]\nall = "3"').find_price(a_key())
    assert found is not None
    assert found.factors == (Factor(source="tiers.high", value=Decimal(1)),)


@pytest.mark.parametrize(
    ("modes", "mode", "price"),
    [
        ("", Mode.BATCH, "3"),
        ('modes = { batch = "0.5" }', Mode.BATCH, "1.5"),
        ('modes = { batch = "0.5" }', Mode.ONLINE, "3"),
        ('modes = { batch = "0.5", online = "2" }', Mode.ONLINE, "6"),
    ],
)
def test_find_price__mode(modes: str, mode: Mode, price: str) -> None:
    """A mode has a factor where one is written, and none elsewhere."""
    found = a_book(f'{modes}\n[models.m]\nall = "3"').find_price(a_key(mode=mode))
    assert unit_price(found) == Decimal(price)


OVERRIDDEN = """
tiers = { high = "2", free = "0" }
modes = { batch = "0.5" }
[models.m]
names = ["lora/m/*"]
input = "4"
output = "6"
[models.n]
all = "8"
"""


@pytest.mark.parametrize(
    ("overrides", "key", "price"),
    [
        ("", a_key(), "8"),
        # A factor is one more; prices are instead of all.
        ('factor = "0.25"', a_key(mode=Mode.BATCH), "1"),
        ('prices = { input = "3" }', a_key(mode=Mode.BATCH), "3"),
        ('prices = { input = "0" }', a_key(), "0"),
        ('prices = { all = "3" }', a_key(), "3"),
        ('prices = { input = "1", all = "3" }', a_key(), "1"),
        # Prices for other classes leave the key to what comes next.
        ('prices = { output = "3" }', a_key(), "8"),
        ('prices = { output = "3" }\n[[overrides]]\nfactor = "0.5"', a_key(), "4"),
        # No class is priced as another here.
        ('prices = { output = "3" }', a_key(token_class=REASONING), None),
        # The first that is for the key, and no other.
        ('models = ["m"]\nfactor = "0.5"\n[[overrides]]\nfactor = "0.1"', a_key(), "4"),
        ('models = ["m"]\nfactor = "0.5"\n[[overrides]]\nfactor = "0.1"', a_key("n"), "1.6"),
        # What each list leaves out.
        ('tiers = ["free"]\nfactor = "0.5"', a_key(), "8"),
        ('modes = ["batch"]\nfactor = "0.5"', a_key(), "8"),
        ('classes = ["output"]\nfactor = "0.5"', a_key(), "8"),
        ('tiers = ["free", "high"]\nfactor = "0.5"', a_key(), "4"),
        ('modes = ["online"]\nfactor = "0.5"', a_key(), "4"),
        ('classes = ["input"]\nfactor = "0.5"', a_key(), "4"),
        ('models = ["n"]\nfactor = "0.5"', a_key(), "8"),
        # A model is meant by its own name and by the key of its prices.
        ('models = ["m"]\nfactor = "0.5"', a_key("lora/m/x"), "4"),
        ('models = ["lora/m/x"]\nfactor = "0.5"', a_key("lora/m/x"), "4"),
        ('models = ["lora/m/x"]\nfactor = "0.5"', a_key("lora/m/y"), "8"),
        ('models = ["lora/*"]\nfactor = "0.5"', a_key("lora/m/y"), "4"),
        # A factor of what has no price is no price; a price is one for any model and tier.
        ('factor = "0.5"', a_key(tier="ultra"), None),
        ('factor = "0.5"', a_key("nobody"), None),
        ('prices = { all = "3" }', a_key(tier="ultra"), "3"),
        ('prices = { all = "3" }', a_key("nobody"), "3"),
    ],
)
def test_find_price__override(overrides: str, key: PriceKey, price: str | None) -> None:
    """The first override that is for a key multiplies its price, or replaces it and all factors."""
    contract = a_contract(f"[[overrides]]\n{overrides}" if overrides else "")
    found = a_book(OVERRIDDEN).find_price(key, contract.overrides)
    assert unit_price(found) == (None if price is None else Decimal(price))


def test_find_price__replaced_has_no_band_and_no_window() -> None:
    """A contract's own price is one line whatever the prompt and the hour, and says where it is."""
    contract = a_contract(
        '[[overrides]]\nfactor = "1"\nmodels = ["n"]\n[[overrides]]\nprices = { all = "3" }'
    )
    found = a_book(NIGHT_BOOK).find_price(a_key(at="2026-10-06T03:00", band=8), contract.overrides)
    assert found is not None
    assert (found.above, found.window, found.factors) == (0, "", ())
    assert found.source == "contract overrides[1].prices.all"
    assert explain(found) == "3"


def test_explain__each_factor() -> None:
    """The arithmetic has the base, each factor in the order of the rules, and what they make."""
    book = a_book(NIGHT_BOOK)
    contract = a_contract('[[overrides]]\nfactor = "0.9"')
    found = book.find_price(a_key(at="2026-10-06T03:00"), contract.overrides)
    assert found is not None
    assert explain(found) == "4 × 0.5 × 0.9 = 1.8"
    assert [it.source for it in found.factors] == ["windows.night", "contract overrides[0]"]
