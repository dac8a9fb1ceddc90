"""The canonical JSON: equal invoices are equal bytes, back and forth, and the schema holds."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from jsonschema import Draft202012Validator

from billing.documents.canonical import CanonicalWriter, UnknownFormat, from_json, to_json
from billing.invoicing import Invoice
from billing.price_book import MODE_NAMES, class_name
from meter.domain.boundary import Boundary
from meter.domain.tokens import BAND_NAMES, TokenClass
from tests.billing.documents.gallery import SAMPLES
from tests.billing.documents.strategies import invoices

SCHEMA: Final = json.loads(
    (Path(__file__).parents[3] / "billing/schemas/invoice.schema.json").read_text("utf-8")
)
VALIDATOR: Final = Draft202012Validator(SCHEMA)
OPTIONAL_IN_DOCUMENT: Final = (
    *("charges", "credits", "energy", "groups", "net", "preview_of", "reason", "refers_to"),
    *("replaces", "taxes", "terms", "usage_sha256"),
)
OPTIONAL_IN_CONTRACT: Final = (
    *("bank", "by_account", "charges", "closing", "energy", "minimum", "tax", "zero_documents"),
)
Document = dict[str, Any]


@given(invoices())
def test_from_json__of_what_was_written(invoice: Invoice) -> None:
    """Whatever an invoice says, it is read back as it was."""
    assert from_json(to_json(invoice)) == invoice


@given(invoices())
def test_to_json__keeps_to_the_schema(invoice: Invoice) -> None:
    """Whatever an invoice says, the schema allows it."""
    VALIDATOR.validate(json.loads(to_json(invoice)))


@given(invoices())
def test_to_json__is_canonical(invoice: Invoice) -> None:
    """Written by anybody with sorted keys and no blanks, it is the same bytes: UTF-8, a newline."""
    written = to_json(invoice)
    again = json.dumps(
        json.loads(written), ensure_ascii=False, separators=(",", ":"), sort_keys=True
    )
    assert written == again.encode() + b"\n"


@given(invoices(), invoices())
def test_write__after_others(first: Invoice, second: Invoice) -> None:
    """Whatever was written before by the same writer, a document is the same bytes."""
    writer = CanonicalWriter()
    written = [writer.write(it) for it in (first, second, first)]
    assert written == [to_json(it) for it in (first, second, first)]


def test_to_json__of_equal_invoices() -> None:
    """Decimals that are equal are written the same, whatever digits they were made with."""
    invoice = SAMPLES["month"]()
    lines = tuple(
        replace(
            line,
            exact=line.exact.normalize(),
            billed=line.billed * Decimal("1.0000"),
            residue=line.residue + Decimal("0.000000000000000000"),
        )
        for line in invoice.lines
    )
    other = replace(invoice, lines=lines, total=invoice.total + Decimal("0E-9"))
    assert other == invoice
    assert [str(it.billed) for it in other.lines] != [str(it.billed) for it in invoice.lines]
    assert to_json(other) == to_json(invoice)


def test_to_json__of_a_preview() -> None:
    """A preview is called one, has no number, and lists what has no price."""
    document = json.loads(to_json(SAMPLES["preview"]()))
    assert (document["kind"], document["issue"], document["cut_id"]) == ("preview", None, None)
    assert document["counted_until"] == "2026-10-14T07:31:07.389Z"
    assert [(it["model"], it["band"]) for it in document["unpriced"]] == [
        ("glm-6-preview", "<32k"),
        ("glm-6-preview", "≥1M"),
        ("通义千问-企业版-长文本-二〇二六年九月", "<32k"),
    ]


@pytest.mark.parametrize(("name", "expected"), [("sandbox", True), ("month", False)])
def test_to_json__of_a_sandbox(name: str, *, expected: bool) -> None:
    """A sandbox is marked, and nothing else is."""
    assert json.loads(to_json(SAMPLES[name]()))["sandbox"] is expected


def test_to_json__without_energy() -> None:
    """A document without energy does not name it, so that those of before are the same bytes."""
    assert b"energy" not in to_json(SAMPLES["month"]())


@pytest.mark.parametrize("key", OPTIONAL_IN_DOCUMENT)
def test_to_json__of_engine_1(key: str) -> None:
    """A document of before has none of the keys that came since: it is the same bytes."""
    document = json.loads(to_json(SAMPLES["month"]()))
    assert key not in document
    assert not set(document["contract"]) & set(OPTIONAL_IN_CONTRACT)
    assert all({"group", "origin"}.isdisjoint(line) for line in document["lines"])


def test_to_json__of_a_draft_that_is_no_invoice() -> None:
    """The draft of a credit note says of what it is one, and is read back as that."""
    draft = replace(SAMPLES["credit_note"](), issue=None)
    document = json.loads(to_json(draft))
    assert (document["kind"], document["preview_of"]) == ("preview", "credit_note")
    assert from_json(to_json(draft)) == draft


def test_to_json__net() -> None:
    """The net total is written where there are taxes, and is the total without them."""
    document = json.loads(to_json(SAMPLES["whole"]()))
    taxes = [Decimal(it["amount"]) for it in document["taxes"]]
    assert Decimal(document["net"]) + sum(taxes) == Decimal(document["total"])


def test_to_json__energy() -> None:
    """Energy is exact in millijoules, and in kilowatt-hours that tell each of them."""
    invoice = SAMPLES["with_energy"]()
    document = json.loads(to_json(invoice))
    assert document["contract"]["energy"] == "facility"
    energy = document["energy"]
    assert energy["energy_mj"] == sum(it["facility_mj"] for it in energy["sites"])
    assert energy["pools_mj"] == sum(it["pools_mj"] for it in energy["sites"])
    back = Decimal(energy["kwh"]) * 3_600_000_000
    assert back.quantize(Decimal(1)) == energy["energy_mj"]


@pytest.mark.parametrize(
    "document", [b'{"format":2}', b'{"format":"1"}', b"{}", b"[]", b"null", b'"invoice"']
)
def test_from_json__of_an_unknown_format(document: bytes) -> None:
    """What another version wrote is refused and not guessed at."""
    with pytest.raises(UnknownFormat):
        from_json(document)


def test_schema__is_one() -> None:
    """The schema is itself valid, and refuses what it does not name, at every place."""
    Draft202012Validator.check_schema(SCHEMA)
    objects = [it for it in _objects(SCHEMA) if "properties" in it and "type" in it]
    assert len(objects) == 21
    assert all(it["additionalProperties"] is False for it in objects)
    # What a document has none of is left out, as in those of before there was any.
    missing = [set(it["properties"]) - set(it["required"]) for it in objects]
    assert [sorted(it) for it in missing if it] == [
        sorted(OPTIONAL_IN_DOCUMENT),
        sorted(OPTIONAL_IN_CONTRACT),
        ["group", "origin"],
        ["origin"],
    ]
    assert all(set(it["required"]) <= set(it["properties"]) for it in objects)
    fields = [it for of in objects for it in of["properties"].values()]
    assert all({"description", "$ref"} & set(it) for it in fields)


def test_schema__knows_the_words() -> None:
    """Token classes, modes and bands are those of the code."""
    assert SCHEMA["$defs"]["token_class"]["enum"] == [class_name(it) for it in TokenClass]
    assert SCHEMA["$defs"]["mode"]["enum"] == list(MODE_NAMES.values())
    boundary = SCHEMA["$defs"]["energy"]["properties"]["boundary"]
    assert boundary["enum"] == list(Boundary)
    assert SCHEMA["$defs"]["contract"]["properties"]["energy"]["enum"] == list(Boundary)
    band = SCHEMA["$defs"]["unpriced"]["properties"]["band"]
    assert band["enum"] == list(BAND_NAMES)


def _set(*path: str | int, to: object) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        _at(document, *path[:-1])[path[-1]] = to

    return change


def _drop(*path: str | int) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        del _at(document, *path[:-1])[path[-1]]

    return change


@pytest.mark.parametrize(
    "change",
    [
        _set("format", to=2),
        _set("kind", to="receipt"),
        _set("kind", to="preview"),
        _set("issue", to=None),
        _set("cut_id", to=None),
        _set("cut_id", to=0),
        _set("sandbox", to="false"),
        _set("engine", to=0),
        _set("currency", to="usd"),
        _set("exponent", to=5),
        _set("total", to=3769.25),
        _set("total", to="3,769.25"),
        _set("total", to="-0.00"),
        _set("residue", to="0.10"),
        _set("residue", to="-0"),
        _set("counted_until", to="2026-11-01T00:00:00+01:00"),
        _set("period", "month", to="2026-13"),
        _set("period", "note", to=""),
        _set("contract", "terms_days", to=366),
        _set("contract", "overrides", 0, "factor", to="-1"),
        _set("contract", "overrides", 0, "prices", to={"words": "1"}),
        _set("seller", "name", to=""),
        _set("issue", "number", to="NG-2026-42"),
        _set("issue", "due_date", to="1 December 2026"),
        _set("lines", 0, "quantity", to="41220118"),
        _set("lines", 0, "quantity", to=1.5),
        _set("lines", 0, "mode", to="BATCH"),
        _set("lines", 0, "token_class", to="words"),
        _set("lines", 0, "price", "unit_price", to="1e-3"),
        _set("lines", 0, "price", "factors", 0, "value", to=""),
        _set("lines", 0, "line", to=0),
        _set("unpriced", to=[{}]),
        _set("preview_of", to="credit_note"),
        _set("taxes", to=[]),
        _set("usage_sha256", to="3F"),
        _set("terms", to=[{"kind": "letter"}]),
        _drop("sandbox"),
        _drop("buyer"),
        _drop("lines", 0, "exact"),
        _drop("lines", 0, "price", "source"),
        _drop("contract", "covers"),
    ],
)
def test_schema__refuses(change: Callable[[Document], None]) -> None:
    """One wrong fact makes the document invalid."""
    document = json.loads(to_json(SAMPLES["month"]()))
    VALIDATOR.validate(document)
    changed = copy.deepcopy(document)
    change(changed)
    assert changed != document
    assert not VALIDATOR.is_valid(changed)


def test_schema__refuses_an_invoice_with_unpriced_keys() -> None:
    """What has no price makes no invoice: the very key that a preview may list."""
    preview = json.loads(to_json(SAMPLES["preview"]()))
    VALIDATOR.validate(preview)
    document = json.loads(to_json(SAMPLES["month"]()))
    assert not VALIDATOR.is_valid(document | {"unpriced": preview["unpriced"]})


def _at(document: Any, *path: str | int) -> Any:  # noqa: ANN401
    for name in path:
        document = document[name]
    return document


def _objects(schema: object) -> list[Document]:
    """Return every object in a schema, itself included."""
    if isinstance(schema, list):
        return [it for value in schema for it in _objects(value)]
    if not isinstance(schema, dict):
        return []
    return [schema, *(it for value in schema.values() for it in _objects(value))]
