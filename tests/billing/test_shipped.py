"""The books that come along: their prices, and that nothing a server reports is without one."""

import subprocess
import sys
import zipfile
from decimal import Decimal
from itertools import product
from pathlib import Path

import pytest

from billing.book_file import read_book
from billing.price_book import PriceBook, PriceKey, explain
from billing.shipped import SHIPPED, read_shipped
from cli.settings import Settings
from cli.simulate.command import MODELS
from meter.domain.tokens import BAND_EDGES, Mode, TokenClass
from tests.billing.terms import a_key

ROOT = Path(__file__).resolve().parents[2]
TIERS = Settings().tiers
# Thursday, in Los Angeles: 12:00 and 23:00.
NOON, NIGHT = "2026-10-01T19:00", "2026-10-02T06:00"
RETAIL_MODELS = ("kimi-k2.6", "glm-5.1", "glm-5.1-fp8", "lora/glm-5.1/acme/7", *MODELS)


def shipped(name: str) -> PriceBook:
    """A book that comes along, as an installation with the default tiers reads it."""
    return read_book(read_shipped(name), tiers=TIERS)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped__is_read(name: str) -> None:
    """Each book that comes along has no fault, is called as its file is, and is in dollars."""
    book = shipped(name)
    assert (book.book, book.currency.code) == (name, "USD")


@pytest.mark.parametrize(
    ("tier", "price"), [("free", 0), ("medium", 3), ("high", 6), ("premium", 45), ("ultra", 150)]
)
def test_keynote__tier_decides(tier: str, price: int) -> None:
    """In the keynote's book nothing but the tier decides, for any model, class, prompt and hour."""
    book = shipped("keynote")
    for model, mode, token_class, band, at in product(
        ("atlas-large", "lora/a/b"),
        Mode,
        TokenClass,
        range(len(BAND_EDGES) + 1),
        ("2026-01-01", "2026-10-03T22:00"),
    ):
        key = a_key(model, tier=tier, mode=mode, token_class=token_class, band=band, at=at)
        found = book.find_price(key)
        assert found is not None
        assert (found.unit_price, found.factors, found.window) == (Decimal(price), (), "")


def test_keynote__names_each_tier() -> None:
    """The keynote's book has the tiers that an installation sells by default, and no others."""
    (model,) = shipped("keynote").models.values()
    assert set(model.tiers) == set(TIERS)


def test_retail__everything_has_a_price() -> None:
    """Whatever servers report of a model that the retail book sells has a price, free or not."""
    book = shipped("retail")
    for model, tier, mode, token_class, band in product(
        RETAIL_MODELS, TIERS, Mode, TokenClass, range(len(BAND_EDGES) + 1)
    ):
        key = a_key(model, tier=tier, mode=mode, token_class=token_class, band=band)
        found = book.find_price(key)
        assert found is not None, key
        assert (found.unit_price == 0) is (tier == "free")


def test_retail__shows_every_rule() -> None:
    """The retail book has an example of each thing that a book can say."""
    book = shipped("retail")
    assert book.same
    assert book.tiers
    assert book.modes
    assert book.windows
    assert any("*" in name for name in book.names)
    assert any("*" not in name for name in book.names)
    assert any(model.tiers for model in book.models.values())
    assert any(model.table.bands for model in book.models.values())
    assert any(model.table.all is not None for model in book.models.values())


@pytest.mark.parametrize(
    ("key", "arithmetic"),
    [
        (a_key("kimi-k2.6", at=NOON), "0.95 × 1 = 0.95"),
        (a_key("kimi-k2.6", tier="premium", at=NOON), "0.95 × 1.5 = 1.425"),
        (a_key("kimi-k2.6", tier="premium", token_class=TokenClass.OUTPUT, at=NOON), "5.5"),
        (a_key("kimi-k2.6", tier="premium", token_class=TokenClass.REASONING, at=NOON), "5.5"),
        (a_key("glm-5.1-fp8", mode=Mode.BATCH, at=NOON), "1.4 × 1 × 0.5 = 0.7"),
        (a_key("lora/glm-5.1/acme/7", band=4, at=NOON), "2.8 × 1 = 2.8"),
        (a_key("breeze-mini", token_class=TokenClass.VIDEO_OUTPUT, at=NOON), "0.2 × 1 = 0.2"),
        (a_key("atlas-small", at=NIGHT), "0.8 × 1 × 0.75 = 0.6"),
        (a_key("atlas-small", tier="ultra", at=NIGHT), "0.8 × 2.5 = 2"),
    ],
)
def test_retail__prices(key: PriceKey, arithmetic: str) -> None:
    """Some prices of the retail book, as anybody can compute them from its file."""
    found = shipped("retail").find_price(key)
    assert found is not None
    assert explain(found) == arithmetic


def test_wheel__has_the_files_beside_the_code(tmp_path: Path) -> None:
    """What is installed has the books that come along, and the schemas that books are held to."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"billing/shipped/{name}.toml" for name in SHIPPED} <= names
    assert {
        path.relative_to(ROOT).as_posix() for path in ROOT.glob("billing/schemas/*.json")
    } <= names
