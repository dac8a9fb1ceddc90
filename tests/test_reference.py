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

import meter.store.tables
from cli.settings import Settings
from meter.domain.errors import Reason
from meter.domain.outcome import Outcome
from meter.domain.tokens import TokenClass
from tokenworks.meter.v1 import error_reason_pb2, outcome_pb2, usage_pb2

ROOT = Path(__file__).resolve().parent.parent
# The name in the code and the name in the database.
TABLES = {
    name: table.name
    for name, table in vars(meter.store.tables).items()
    if isinstance(table, sqlalchemy.Table)
}
WRITERS = {"insert", "update", "delete", "pg_insert"}
READERS = {"select", "exists", "select_from", "join", "outerjoin"}
WRITTEN_IN_SQL = re.compile(r"\b(?:INSERT INTO|COPY|UPDATE|DELETE FROM)\s+(\w+)", re.IGNORECASE)
READ_IN_SQL = re.compile(r"(?<!DELETE )\b(?:FROM|JOIN)\s+(\w+)", re.IGNORECASE)
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
    assert set(_numbers(error_reason_pb2.ErrorReason.DESCRIPTOR)) == {word.value for word in Reason}
    assert _numbers(usage_pb2.TokenClass.DESCRIPTOR) == {
        word.name: word.value for word in TokenClass
    }


def test_table__is_written_and_read_by_the_store() -> None:
    """No table only fills up, and none is asked that nobody fills."""
    written: set[str] = set()
    read: set[str] = set()
    for module in (ROOT / "meter/store").rglob("*.py"):
        if module.name != "tables.py":
            tree = ast.parse(module.read_text(encoding="utf-8"))
            written.update(_tables_written(tree))
            read.update(_tables_read(tree))
    assert set(TABLES.values()) == set(meter.store.tables.metadata.tables)
    assert not [name for name in TABLES if not {name, TABLES[name]} & written]
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
        target = call.func.value if isinstance(call.func, ast.Attribute) else None
        yield from _names(*call.args[:1], *([target] if target else []))
    for text in _texts(tree):
        yield from WRITTEN_IN_SQL.findall(text)


def _tables_read(tree: ast.AST) -> Iterator[str]:
    """Tables that stand anywhere in a reading call, or are named so in a text of SQL."""
    for call in _calls(tree, names=READERS):
        yield from _names(*call.args)
    for text in _texts(tree):
        yield from READ_IN_SQL.findall(text)


def _calls(tree: ast.AST, *, names: set[str]) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _last_name(node.func) in names:
            yield node


def _last_name(function: ast.expr) -> str:
    return ast.unparse(function).rpartition(".")[2]


def _names(*nodes: ast.AST) -> Iterator[str]:
    """Every name and attribute below these nodes."""
    for root in nodes:
        for node in ast.walk(root):
            if isinstance(node, ast.Name):
                yield node.id
            elif isinstance(node, ast.Attribute):
                yield node.attr


def _texts(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _words(tree: ast.AST) -> Iterator[str]:
    """Texts, the names of keyword arguments, and the flags among a text's words."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg:
            yield node.arg
    for text in _texts(tree):
        yield text
        yield from (word.partition("=")[0] for word in text.split() if word.startswith("--"))
