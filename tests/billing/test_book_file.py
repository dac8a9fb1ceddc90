"""Price books from TOML: what is read, and what that is bounded by."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given

from billing.book_file import read_book
from billing.limits import NAMES_MAX, PATTERNS_MAX
from billing.money import Currency
from billing.price_book import MODE_NAMES, PriceBook, PriceTable, Window, class_name
from meter.domain.limits import LIST_ENTRIES_MAX
from meter.domain.times import to_ms, to_time
from meter.domain.tokens import Mode, TokenClass
from meter.toml_file import FileFaults
from tests.billing import generated_books
from tests.billing.terms import TIERS, a_book, book_text, check_book_faults

EVERYTHING = """
from = 2026-10-01T00:00:00
zone = "America/Los_Angeles"
missing = "hold"
same = { reasoning = "output" }
tiers = { free = "0", high = "1" }
modes = { batch = "0.5" }
[windows.off_peak]
days = ["mon", "tue"]
hours = ["20:00-06:00", "12:00-12:15"]
models = ["glm-*"]
tiers = ["high"]
modes = ["online"]
factor = "0.75"
[models."glm-5.1"]
names = ["glm-5.1-fp8", "lora/glm-5.1/*"]
input = "1.40"
all = "9"
tier.premium = { output = "5.50", above = [{ prompt = 32_000, all = "6" }] }
[[models."glm-5.1".above]]
prompt = 32_000
input = "2"
[[models."glm-5.1".above]]
prompt = 200_000
output = "3"
"""


def test_read_book__everything() -> None:
    """A book that uses each key becomes what it says."""
    book = a_book(EVERYTHING)
    assert (book.book, book.currency, book.zone.key) == (
        *("retail", Currency("USD", 2), "America/Los_Angeles"),
    )
    assert book.start_ms == to_ms(datetime(2026, 10, 1, 7, tzinfo=UTC))
    assert book.same == {TokenClass.REASONING: TokenClass.OUTPUT}
    assert book.tiers == {"free": Decimal(0), "high": Decimal(1)}
    assert book.modes == {Mode.BATCH: Decimal("0.5")}
    assert book.windows == (
        Window(
            name="off_peak",
            days=frozenset({0, 1}),
            hours=((20 * 60, 30 * 60), (12 * 60, 12 * 60 + 15)),
            models=("glm-*",),
            tiers=("high",),
            modes=(Mode.ONLINE,),
            factor=Decimal("0.75"),
        ),
    )
    assert book.names == {"glm-5.1-fp8": "glm-5.1", "lora/glm-5.1/*": "glm-5.1"}
    model = book.models["glm-5.1"]
    assert model.table.prices == {TokenClass.INPUT: Decimal("1.40")}
    assert model.table.all == 9
    assert [it.prompt for it in model.table.bands] == [200_000, 32_000]
    assert model.table.bands[0].prices == {TokenClass.OUTPUT: 3}
    assert model.tiers["premium"].prices == {TokenClass.OUTPUT: Decimal("5.50")}
    assert model.tiers["premium"].bands[0].all == 6


def test_read_book__least() -> None:
    """A book of a header and one price is a book; no tier, mode or window has a factor."""
    book = a_book()
    assert (book.tiers, book.modes, book.windows, book.same) == (None, {}, (), {})
    assert book.models["m"].table == PriceTable(prices={}, all=Decimal(1))


@pytest.mark.parametrize("key", ["format", "book", "from", "zone", "currency", "models"])
def test_read_book__key_is_missing(key: str) -> None:
    """Each key that a book cannot be without is asked for."""
    with pytest.raises(FileFaults) as caught:
        read_book(book_text(without=[key]), tiers=TIERS)
    assert [tuple(it) for it in caught.value.faults] == [(1, key, "is missing")]


def test_read_book__all_faults_at_once() -> None:
    """One reading tells all that is wrong, wherever it is, in the order of the lines."""
    check_book_faults(
        "format = 2  #! format: must be 1\n"
        'book = "Retail"  #! book: must match\n'
        "from = 2026-10-01T00:00:00Z  #! from: has an offset\n"
        'zone = "Mars"  #! zone: no time zone\n'
        'currency = "XAU"  #! currency: no currency\n'
        'same = { input = "input" }  #! same.input: own price\n'
        'tiers = { gold = "1" }  #! tiers.gold: no tier that is sold\n'
        'modes = { batch = "x" }  #! modes.batch: no plain decimal\n'
        "[windows.w]  #! windows.w.factor: is missing\n"
        'days = ["monday"]  #! windows.w.days[0]: no day\n'
        'hours = ["1-2"]  #! windows.w.hours[0]: must be hours\n'
        "[models.m]\n"
        'input = 1.4  #! models.m.input: "1.4"\n'
        'outptu = "1"  #! models.m.outptu: no such key\n'
        "[models.n]  #! models.n: has no price\n"
    )


def test_read_book__limits() -> None:
    """More names and patterns than are compared in seconds are refused, and longer lists."""
    names = "\n".join(f'[models.m{it}]\nall = "1"' for it in range(NAMES_MAX))
    assert len(a_book(names).models) == NAMES_MAX
    names += '\n[models.n]\nall = "1"'
    check_book_faults(book_text(names).replace("[models.m0]", "[models.m0]  #! models: names"))
    patterns = ", ".join(f'"{it}*"' for it in range(PATTERNS_MAX + 1))
    check_book_faults(book_text(f'[models.m]  #! models: names\nall = "1"\nnames = [{patterns}]'))
    many = ", ".join(f'"a{it}"' for it in range(LIST_ENTRIES_MAX))
    assert len(a_book(f'[models.m]\nall = "1"\nnames = [{many}]').names) == LIST_ENTRIES_MAX
    many += ', "b"'
    check_book_faults(
        book_text(
            f'[models.m]\nall = "1"\nnames = [{many}]  #! models.m.names: more than 1,000 entr'
        )
    )


def test_read_book__thousands_of_models() -> None:
    """A book of some thousand models, each with an adapter's pattern and a window, is read."""
    models = "\n".join(
        f'[models."m{it:04}"]\nnames = ["alias-{it:04}"]\ninput = "1"\noutput = "2"'
        for it in range(2_000)
    )
    patterns = "\n".join(f'[models."lora/{it:04}/*"]\ninput = "1"' for it in range(PATTERNS_MAX))
    book = a_book(f"{models}\n{patterns}")
    assert book.find_model("alias-1999") == "m1999"
    assert book.find_model("lora/0499/x") == "lora/0499/*"


def test_read_book__again_when_other_tiers_are_sold() -> None:
    """A book that was taken in is read again whatever tiers are sold by then."""
    text = book_text(
        'tiers = { gold = "1" }\n[windows.w]\ndays = ["mon"]\nhours = ["00:00-24:00"]\n'
        'tiers = ["gold"]\nfactor = "1"\n[models.m]\ntier.gold = { all = "1" }'
    )
    assert read_book(text, tiers=None) == read_book(text, tiers=["gold"])
    with pytest.raises(FileFaults):
        read_book(text, tiers=TIERS)


@given(generated_books.BOOKS, generated_books.STYLES)
def test_read_book__written_and_read_again(document: dict[str, Any], style: Any) -> None:  # noqa: ANN401
    """A book is the same in whatever style of TOML it is written, and when written from itself."""
    book = read_book(generated_books.to_toml(document, style=style), tiers=TIERS)
    again = generated_books.to_toml(to_document(book), style=generated_books.to_style(["header"]))
    assert read_book(again, tiers=TIERS) == book


def to_document(book: PriceBook) -> dict[str, Any]:
    """A book as parsed TOML."""
    document: dict[str, Any] = {
        "format": 1,
        "book": book.book,
        "from": to_time(book.start_ms).astimezone(book.zone).replace(tzinfo=None),
        "zone": book.zone.key,
        "currency": book.currency.code,
        "same": {class_name(it): class_name(other) for it, other in book.same.items()},
        "modes": {MODE_NAMES[it]: str(factor) for it, factor in book.modes.items()},
        "windows": {window.name: _to_window(window) for window in book.windows},
        "models": {
            key: {
                **_to_table(model.table),
                "names": [name for name, other in book.names.items() if other == key],
                "tier": {tier: _to_table(table) for tier, table in model.tiers.items()},
            }
            for key, model in book.models.items()
        },
    }
    if book.tiers is not None:
        document["tiers"] = {tier: str(factor) for tier, factor in book.tiers.items()}
    for model in document["models"].values():
        for key in [key for key, it in model.items() if not it]:
            del model[key]
    return document


def _to_table(table: PriceTable) -> dict[str, Any]:
    bands = [{"prompt": it.prompt, **_to_prices(it.prices, it.all)} for it in table.bands]
    return _to_prices(table.prices, table.all) | ({"above": bands} if bands else {})


def _to_prices(prices: Any, every: Decimal | None) -> dict[str, str]:  # noqa: ANN401
    found = {class_name(it): str(price) for it, price in prices.items()}
    return found if every is None else {**found, "all": str(every)}


def _to_window(window: Window) -> dict[str, Any]:
    names = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
    found = {
        "days": [names[it] for it in sorted(window.days)],
        "hours": [f"{_clock(begin)}-{_clock(end)}" for begin, end in window.hours],
        "tiers": list(window.tiers),
        "modes": [MODE_NAMES[it] for it in window.modes],
        "factor": str(window.factor),
    }
    return {key: it for key, it in found.items() if it}


def _clock(minute: int) -> str:
    hour, of_hour = divmod(minute if minute <= 24 * 60 else minute - 24 * 60, 60)
    return f"{hour:02}:{of_hour:02}"
