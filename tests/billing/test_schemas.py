"""The JSON schemas of books and contracts: they take what is read, and refuse what has a fault."""

import json
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from jsonschema import Draft202012Validator

import meter.domain.limits
from billing import limits
from billing.contracts import CLOSING_DEFAULT
from billing.file_terms import ALL, CLASSES, MODES
from billing.price_book import DAY_NAMES
from billing.shipped import SHIPPED, read_shipped
from billing.tax import CATEGORIES
from meter.domain.boundary import Boundary
from meter.domain.limits import MODEL_CHARS_MAX, TIER_CHARS_MAX
from meter.domain.tokens import BAND_EDGES
from tests.billing import generated_books
from tests.billing.terms import book_text, cases, contract_text
from tests.billing.test_book_faults import BOOK_FAULTS, PRICE_FAULTS
from tests.billing.test_book_file import EVERYTHING as WHOLE_BOOK
from tests.billing.test_charge_faults import CHARGE_FAULTS, CLOSING_FAULTS, TAX_FAULTS
from tests.billing.test_contract_faults import CONTRACT_FAULTS, OVERRIDE_FAULTS, PARTY_FAULTS
from tests.billing.test_contract_file import EVERYTHING as WHOLE_CONTRACT
from tests.billing.test_windows import WINDOW_FAULTS, a_window

SCHEMAS = Path(__file__).resolve().parents[2] / "billing/schemas"
# What these messages tell takes more than the form of one value to see, or was lost in parsing.
BEYOND = (
    *("no time zone", "went", "1980 to 2200", "no tier that is sold", "names two models"),
    *("no currency that can be paid in", "no book", "the book's", "no account", "is the account"),
    *("no such party", "another party", "neither the seller", "must be after", "never applies"),
    *("same.input: leave it out", "priced as another class", "no model of this", "meets other"),
    *("has no price", "again: ", "of line 9 again", "cannot be printed", "is a text, and must be"),
    *("never billed", "tax_id: is missing", "has the id of", "decimals of USD"),
    *("1.0 ", "32000.0 ", "is empty; the whole day", '"00:00-00:00"', "this window on"),
)


def schema_of(name: str) -> dict[str, Any]:
    """A published schema."""
    schema: dict[str, Any] = json.loads((SCHEMAS / f"{name}.schema.json").read_text("utf-8"))
    Draft202012Validator.check_schema(schema)
    return schema


BOOK_SCHEMA, CONTRACT_SCHEMA = schema_of("price-book"), schema_of("contract")
BOOK, CONTRACT = Draft202012Validator(BOOK_SCHEMA), Draft202012Validator(CONTRACT_SCHEMA)


def parsed(text: str) -> Any:  # noqa: ANN401
    """A text as its TOML is parsed, with dates and times as strings."""
    return json.loads(json.dumps(tomllib.loads(text), default=_to_text))


def _to_text(value: object) -> str:
    return value.isoformat() if isinstance(value, date) else str(value)


@pytest.mark.parametrize("text", [*map(read_shipped, SHIPPED), book_text(), book_text(WHOLE_BOOK)])
def test_book_schema__takes_what_is_read(text: str) -> None:
    """A book without faults is one by the schema."""
    assert not list(BOOK.iter_errors(parsed(text)))


@given(generated_books.BOOKS)
def test_book_schema__takes_any_book(document: dict[str, Any]) -> None:
    """Any book that can be read is one by the schema."""
    text = generated_books.to_toml(document, style=lambda _: "inline")
    assert not list(BOOK.iter_errors(parsed(text)))


@pytest.mark.parametrize("text", [contract_text(), contract_text(WHOLE_CONTRACT)])
def test_contract_schema__takes_what_is_read(text: str) -> None:
    """A contract without faults is one by the schema."""
    assert not list(CONTRACT.iter_errors(parsed(text)))


@pytest.mark.parametrize(
    "text",
    [
        *map(book_text, [*cases(BOOK_FAULTS), *cases(PRICE_FAULTS)]),
        *map(a_window, cases(WINDOW_FAULTS)),
    ],
)
def test_book_schema__refuses_what_has_a_fault(text: str) -> None:
    """A fault that the form of a single value shows is one by the schema too."""
    assert list(BOOK.iter_errors(parsed(text))) or any(words in text for words in BEYOND)


@pytest.mark.parametrize(
    "body",
    [
        *cases(CONTRACT_FAULTS),
        *cases(PARTY_FAULTS),
        *cases(TAX_FAULTS),
        *cases(CHARGE_FAULTS),
        *cases(CLOSING_FAULTS),
        *cases(OVERRIDE_FAULTS),
    ],
)
def test_contract_schema__refuses_what_has_a_fault(body: str) -> None:
    """A fault that the form of a single value shows is one by the schema too."""
    text = contract_text(body)
    assert list(CONTRACT.iter_errors(parsed(text))) or any(words in text for words in BEYOND)


def test_schema__asks_for_what_is_needed() -> None:
    """What a file cannot be without, the schema asks for."""
    for key in ("format", "book", "from", "zone", "currency", "models"):
        assert list(BOOK.iter_errors(parsed(book_text(without=[key]))))
    for key in ("format", "contract", "from", "zone", "currency", "book", "covers", "parties"):
        assert list(CONTRACT.iter_errors(parsed(contract_text(without=[key]))))


def test_schemas__have_the_words_and_limits_of_the_code() -> None:
    """Classes, modes, days, bands and limits are the code's, in both schemas."""
    book, contract = BOOK_SCHEMA["$defs"], CONTRACT_SCHEMA["$defs"]
    assert book["token_class"]["enum"] == list(CLASSES)
    assert contract["token_class"]["enum"] == list(CLASSES)
    assert list(book["prices"]["properties"]) == [*CLASSES, ALL]
    assert list(contract["override"]["properties"]["prices"]["properties"]) == [*CLASSES, ALL]
    assert book["mode"]["enum"] == list(MODES)
    assert list(BOOK_SCHEMA["properties"]["modes"]["properties"]) == list(MODES)
    assert contract["override"]["properties"]["modes"]["items"]["enum"] == list(MODES)
    assert tuple(book["window"]["properties"]["days"]["items"]["enum"]) == DAY_NAMES
    assert tuple(book["band"]["properties"]["prompt"]["enum"]) == BAND_EDGES
    assert book["id"] == contract["id"]
    assert book["decimal"] == contract["decimal"]
    assert book["local_time"] == contract["local_time"]
    assert book["id"]["maxLength"] == limits.ID_CHARS_MAX
    assert book["model"]["maxLength"] == MODEL_CHARS_MAX
    assert book["tiers"]["items"]["maxLength"] == TIER_CHARS_MAX
    assert book["models"]["maxItems"] == meter.domain.limits.LIST_ENTRIES_MAX
    assert f"{{1,{meter.domain.limits.DIGITS_MAX}}}" in book["decimal"]["pattern"]
    assert BOOK_SCHEMA["properties"]["windows"]["maxProperties"] == limits.WINDOWS_MAX
    assert CONTRACT_SCHEMA["properties"]["overrides"]["maxItems"] == limits.OVERRIDES_MAX
    document = CONTRACT_SCHEMA["properties"]["document"]["properties"]
    assert document["terms_days"]["maximum"] == limits.TERMS_DAYS_MAX
    assert document["energy"]["enum"] == list(Boundary)
    assert document["series"]["maxLength"] == limits.SERIES_CHARS_MAX
    assert document["bank"]["maxItems"] == limits.BANK_LINES_MAX
    closing = CONTRACT_SCHEMA["properties"]["closing"]["properties"]
    assert closing["collect_hours"]["maximum"] == limits.COLLECT_HOURS_MAX
    assert closing["collect_hours"]["default"] == CLOSING_DEFAULT.collect_hours
    assert closing["hold_jump"]["default"] == str(CLOSING_DEFAULT.hold_jump)
    assert CONTRACT_SCHEMA["properties"]["charges"]["maxItems"] == limits.CHARGES_MAX
    assert contract["charge"]["properties"]["unit"]["maxLength"] == limits.UNIT_CHARS_MAX
    assert tuple(contract["tax"]["properties"]["category"]["enum"]) == CATEGORIES
    assert contract["text"]["maxLength"] == limits.TEXT_CHARS_MAX
    assert contract["party"]["properties"]["address"]["maxItems"] == limits.ADDRESS_LINES_MAX
