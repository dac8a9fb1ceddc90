"""What the code offers is written down, and used: pages, settings, tables."""

import ast
import dataclasses
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy
from google.protobuf.descriptor import EnumDescriptor

import billing.store.tables
import meter.store.energy_tables
import meter.store.tables
from billing.errors import BillingReason
from cli.settings import Settings
from meter.domain.errors import Reason
from meter.domain.outcome import Outcome
from meter.domain.tokens import TokenClass
from tokenworks.billing.v1 import error_reason_pb2 as billing_reason_pb2
from tokenworks.meter.v1 import error_reason_pb2, outcome_pb2, usage_pb2

ROOT = Path(__file__).resolve().parent.parent
# The name in the code and the name in the database.
TABLES = {
    name: table.name
    for module in (meter.store.tables, meter.store.energy_tables, billing.store.tables)
    for name, table in vars(module).items()
    if isinstance(table, sqlalchemy.Table)
}
WRITERS = {"insert", "upsert", "update", "delete", "merge_rows"}
READERS = {"select", "exists", "select_from", "join", "outerjoin", "returning"}
WRITTEN_IN_SQL = re.compile(r"\b(?:INSERT INTO|COPY|UPDATE|DELETE FROM)\s+(\w+)", re.IGNORECASE)
READ_IN_SQL = re.compile(r"(?<!DELETE )\b(?:FROM|JOIN)\s+(\w+)|^(\w+) \w JOIN", re.IGNORECASE)
# Filled by migrations: they say of their time what is true for ever.
FILLED_ONCE = {"reports_known", "segment_versions"}
# Stands for what a formatted text is given.
HOLE = "_HOLE_"
PLACE = re.compile(r"\{\w+\}")
# Reads settings only: that a value is taken says nothing about what it does.
TESTS_OF_READING = ROOT / "tests/cli/test_settings.py"


def test_page__is_fresh() -> None:
    """The pages that are made from code and contract say what those say now."""
    made = subprocess.run(
        [sys.executable, ROOT / "docs/generate.py", "--check"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert (made.returncode, made.stderr) == (0, "")


def test_enum__is_that_of_the_contract() -> None:
    """The meter's own words for outcomes, reasons and token classes are those of the wire."""
    assert _numbers(outcome_pb2.Outcome.DESCRIPTOR) == {word.name: word.value for word in Outcome}
    for reasons, words in ((error_reason_pb2, Reason), (billing_reason_pb2, BillingReason)):
        assert set(_numbers(reasons.ErrorReason.DESCRIPTOR)) == {word.value for word in words}
    assert _numbers(usage_pb2.TokenClass.DESCRIPTOR) == {
        word.name: word.value for word in TokenClass
    }


def test_table__is_written_and_read_by_the_store() -> None:
    """No table only fills up, and none is asked that nobody fills."""
    written: set[str] = set()
    read: set[str] = set()
    for module in (*(ROOT / "meter/store").rglob("*.py"), *(ROOT / "billing/store").rglob("*.py")):
        if not module.name.endswith("tables.py"):
            tree = ast.parse(module.read_text(encoding="utf-8"))
            written.update(_tables_written(tree))
            read.update(_tables_read(tree))
    # What others read, they read through views.
    for migration in (ROOT / "migrations/versions").glob("*.py"):
        tree = ast.parse(migration.read_text(encoding="utf-8"))
        read.update(_tables_in_sql(tree, pattern=READ_IN_SQL))
    described = {
        *meter.store.tables.metadata.tables,
        *meter.store.energy_tables.metadata.tables,
        *billing.store.tables.metadata.tables,
    }
    assert set(TABLES.values()) == described
    never = [name for name in TABLES if not {name, TABLES[name]} & written]
    assert set(never) == FILLED_ONCE
    assert not [name for name in TABLES if not {name, TABLES[name]} & read]


def test_setting__is_used_by_a_test_of_what_it_does() -> None:
    """Each setting is set by some test other than those of reading settings."""
    words: set[str] = set()
    for path in (ROOT / "tests").rglob("*.py"):
        if path not in {TESTS_OF_READING, Path(__file__)}:
            words.update(_words(ast.parse(path.read_text(encoding="utf-8"))))
    assert not [
        field.name
        for field in dataclasses.fields(Settings)
        if not {field.name, field.metadata["env"], "--" + field.name.replace("_", "-")} & words
    ]


def _numbers(enum: EnumDescriptor) -> dict[str, int]:
    """The enum's numbers by its names without prefix, without 0, which says nothing."""
    values = {value.name: value.number for value in enum.values if value.number != 0}
    prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.name).upper() + "_"
    return {name.removeprefix(prefix): number for name, number in values.items()}


def _tables_written(tree: ast.AST) -> Iterator[str]:
    """Tables that are the object of a writing call, or named so in a text of SQL."""
    for call in _calls(tree, names=WRITERS):
        yield from _names(*call.args[:1])
    yield from _tables_in_sql(tree, pattern=WRITTEN_IN_SQL)


def _tables_read(tree: ast.AST) -> Iterator[str]:
    """Tables that a function which reads knows of, or that are read in a text of SQL."""
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        if any(_calls(function, names=READERS)):
            written = {id(call.args[0]) for call in _calls(function, names=WRITERS) if call.args}
            yield from _names(*(node for node in ast.walk(function) if id(node) not in written))
    yield from _tables_in_sql(tree, pattern=READ_IN_SQL)


def _tables_in_sql(tree: ast.AST, *, pattern: re.Pattern[str]) -> Iterator[str]:
    """Tables in the texts of SQL; a hole stands for every table whose bare name is a text here."""
    texts = set(_texts(tree))
    for text in texts:
        found = {name for match in pattern.finditer(text) for name in match.groups() if name}
        yield from found
        if HOLE in found:
            yield from texts & set(TABLES.values())


def _calls(tree: ast.AST, *, names: set[str]) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _last_name(node.func) in names:
            yield node


def _last_name(function: ast.expr) -> str:
    return ast.unparse(function).rpartition(".")[2]


def _names(*nodes: ast.AST) -> Iterator[str]:
    """Those of the nodes that are a name."""
    return (node.id for node in nodes if isinstance(node, ast.Name))


def _texts(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield PLACE.sub(HOLE, node.value)
        elif isinstance(node, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else HOLE for part in node.values
            )


def _words(tree: ast.AST) -> Iterator[str]:
    """Texts, the names of keyword arguments, and the flags among a text's words."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg:
            yield node.arg
    for text in _texts(tree):
        yield text
        yield from (word.partition("=")[0] for word in text.split() if word.startswith("--"))
