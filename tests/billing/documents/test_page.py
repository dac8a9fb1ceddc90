"""`docs/reference/invoice.md`: its examples are what is written, its tables are whole, it runs."""

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from billing.documents.energy import ENERGY_TITLE
from billing.documents.table import COLUMNS
from billing.documents.text import to_text
from tests.billing.documents.gallery import SAMPLES, WRITERS
from tests.billing.documents.test_canonical import SCHEMA

ROOT: Final = Path(__file__).parents[3]
PAGE: Final = (ROOT / "docs/reference/invoice.md").read_text("utf-8")
BLOCK: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DEFS: Final = SCHEMA["$defs"]
OBJECTS: Final = {
    "The document": SCHEMA,
    "`period`": DEFS["period"],
    "`issue`": DEFS["issue"],
    "`seller` and `buyer`": DEFS["party"],
    "`contract`": DEFS["contract"],
    "`contract.overrides`": DEFS["override"],
    "`lines`": DEFS["line"],
    "`lines[].price`": DEFS["price"],
    "`lines[].price.factors`": DEFS["price"]["properties"]["factors"]["items"],
    "`unpriced`": DEFS["unpriced"],
    "`contract.tax`": DEFS["tax"],
    "`contract.charges`": DEFS["charge"],
    "`contract.closing`": DEFS["closing"],
    "`lines[].origin`": DEFS["origin"],
    "`charges`": DEFS["charge_line"],
    "`credits`": DEFS["credit_line"],
    "`groups`": DEFS["group"],
    "`taxes`": DEFS["tax_total"],
    "`terms`": DEFS["terms_file"],
    "`energy`": DEFS["energy"],
    "`energy.sites`": DEFS["energy_site"],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the example in each form, and the schema."""
    for suffix, write in WRITERS.items():
        (tmp_path / f"invoice.{suffix}").write_bytes(write(SAMPLES["two_lines"]()))
    schema = (ROOT / "billing/schemas/invoice.schema.json").read_bytes()
    (tmp_path / "invoice.schema.json").write_bytes(schema)
    return tmp_path


def test_page__shows_what_is_written(folder: Path) -> None:
    """The texts and the line of JSON on the page are those of the examples."""
    text = to_text(SAMPLES["with_energy"]()).decode()
    energy = text[text.index(ENERGY_TITLE) :].partition("\n\n")[0]
    assert _blocks("text") == [(folder / "invoice.txt").read_text("utf-8"), f"{energy}\n"]
    (line,) = map(json.loads, _blocks("json"))
    assert line == json.loads((folder / "invoice.json").read_bytes())["lines"][0]


def test_page__has_programs_that_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both checks on the page pass on the example, and fail on one that was changed."""
    monkeypatch.chdir(folder)
    programs = _blocks("python")
    assert len(programs) == 2
    for program in programs:
        exec(compile(program, "invoice.md", "exec"), {})  # noqa: S102
    for name, before, after in (("json", '"86.40"', '"86.41" '), ("csv", ",86.40,", ",86.41,")):
        text = (folder / f"invoice.{name}").read_text("utf-8")
        assert before in text
        (folder / f"invoice.{name}").write_text(text.replace(before, after), "utf-8")
    for program in programs:
        with pytest.raises(AssertionError):
            exec(compile(program, "invoice.md", "exec"), {})  # noqa: S102


@pytest.mark.parametrize("title", OBJECTS)
def test_page__has_every_field(title: str) -> None:
    """Each object of the schema has its table, with each field and what it means."""
    schema = OBJECTS[title]
    rows = "".join(f"| `{name}` | {text} |\n" for name, text in _fields(schema))
    table = f"**{title}.** {schema['description']}\n\n| field | means |\n|---|---|\n{rows}"
    assert table in PAGE


def test_page__has_every_object() -> None:
    """No object of the schema is left out."""
    objects = [it for it in DEFS.values() if it.get("type") == "object"]
    assert [it for it in objects if it not in OBJECTS.values()] == []


def test_page__has_every_column(folder: Path) -> None:
    """Each column of the CSV is in the table, in order, with its value in the example."""
    table = PAGE.partition("| column | example | means |\n|---|---|---|\n")[2].partition("\n\n")[0]
    cells = [row.strip("|").split("|") for row in table.splitlines()]
    assert [name.strip(" `") for name, _, _ in cells] == list(COLUMNS)
    text = (folder / "invoice.csv").read_bytes().decode()
    row = next(csv.DictReader(io.StringIO(text, newline="")))
    assert {name.strip(" `"): value.strip(" `") for name, value, _ in cells} == row
    assert all(means.strip() for _, _, means in cells)


def _blocks(language: str) -> list[str]:
    return [content for name, content in BLOCK.findall(PAGE) if name == language]


def _fields(schema: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, field in schema["properties"].items():
        reference = field.get("$ref", "").removeprefix("#/$defs/")
        yield name, field.get("description") or DEFS[reference]["description"]
