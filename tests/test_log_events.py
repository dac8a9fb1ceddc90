"""The log is closed: no call site logs an event, level or field that the table does not have."""

import ast
import json
import logging
from collections.abc import Iterator
from contextvars import Context, copy_context
from pathlib import Path

import pytest

from cli.log_events import CATALOGUE, FIELDS
from cli.logs import FieldFormatter, JsonFormatter
from meter.call_context import begin_call, note_account, note_key, note_producer
from meter.domain.errors import Overloaded, Reason
from meter.domain.limits import REFUSALS_LOGGED_MAX
from meter.log_events import CONTEXT
from meter.wire.refusals import RefusalLog
from tests.clock import FakeClock

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("meter", "billing", "cli", "migrations")
METHODS = ("debug", "info", "warning", "error", "exception", "critical", "log")
EVENTS = {event.name: event for event in CATALOGUE}


def test_log__has_only_what_the_table_has() -> None:
    """Each call site logs an event of the table, at its level, with all its fields and no other."""
    found = [
        (place, name, level, fields)
        for place, call, function in _sites()
        for name, level, fields in _logged(call, function)
    ]
    wrong = [
        (place, name)
        for place, name, level, fields in found
        if name not in EVENTS or (level, fields) != (EVENTS[name].level, set(EVENTS[name].fields))
    ]
    assert not wrong
    assert {name for _, name, _, _ in found} == EVENTS.keys()


def test_log_events__are_told_apart() -> None:
    """Names are unique and sorted, and each field is explained once and used."""
    names = [event.name for event in CATALOGUE]
    assert names == sorted(set(names))
    used = {field for event in CATALOGUE for field in event.fields}
    assert used | CONTEXT.keys() == FIELDS.keys()
    assert not FIELDS.keys() & vars(logging.makeLogRecord({})).keys()


def test_loggers__are_called_log() -> None:
    """Where logging is imported, what writes is `_log`, so that the test above sees each site."""
    for path, tree in _modules():
        if path == "cli/logs.py":
            continue
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        made = [call for call in calls if ast.unparse(call.func) == "logging.getLogger"]
        assigned = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_log"
        ]
        assert len(made) == len(assigned), path
        direct = {f"logging.{method}" for method in METHODS}
        assert not [call for call in calls if ast.unparse(call.func) in direct], path


def test_format__json_is_an_object_a_line() -> None:
    """With JSON a line is an object: its event, its fields as they are, its call, its traceback."""
    fault = ValueError("two\nlines")
    record = _record(exc_info=(type(fault), fault, None), events=400)
    line = copy_context().run(_called, JsonFormatter(), record)
    assert "\n" not in line
    told = json.loads(line)
    assert told.pop("traceback") == "ValueError: two\nlines"
    assert told == {
        "time": "2026-11-23T14:12:48.250Z",
        "level": "warning",
        "logger": "meter.journal",
        "event": "group_committed",
        "rpc": "MeterService/StreamUsage",
        "key_id": "key_1",
        "account": "acme",
        "producer": "gpu-1",
        "events": 400,
    }


def test_format__text_bears_what_callers_sent() -> None:
    """With text a line stays one, whatever a caller has written."""
    # Outside any call, whatever ran before in this process.
    line = Context().run(FieldFormatter().format, _record(says="no\nsuch 'thing'"))
    assert line == (
        "2026-11-23T14:12:48.250Z warning meter.journal group_committed says=\"no\\nsuch 'thing'\""
    )


def test_refusals__have_a_bound(caplog: pytest.LogCaptureFixture) -> None:
    """Above so many a second, refusals are counted, and the next second tells how many."""
    clock = FakeClock(now=5_000)
    refusals = RefusalLog(clock.monotonic_seconds)
    error = Overloaded(Reason.OVERLOADED, "Wait.")
    for _ in range(REFUSALS_LOGGED_MAX + 7):
        refusals.note(error, code="RESOURCE_EXHAUSTED")
    assert [it.message for it in caplog.records] == ["call_refused"] * REFUSALS_LOGGED_MAX
    caplog.clear()
    clock.now = 6_000
    refusals.note(error, code="RESOURCE_EXHAUSTED")
    assert [it.message for it in caplog.records] == ["calls_refused_more", "call_refused"]
    assert vars(caplog.records[0])["count"] == 7


def _called(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """Format it within a call, of which all is known."""
    begin_call("/tokenworks.meter.v1.MeterService/StreamUsage")
    note_key("key_1")
    note_account("other")
    note_producer("acme", "gpu-1")
    return formatter.format(record)


def _record(*, exc_info: object = None, **fields: object) -> logging.LogRecord:
    given = {"name": "meter.journal", "levelname": "WARNING", "msg": "group_committed"}
    record = logging.makeLogRecord({**given, "exc_info": exc_info, **fields})
    record.created = 1_795_443_168.25
    return record


def _modules() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            text = path.read_text("utf-8")
            if "import logging" in text:
                yield str(path.relative_to(ROOT)), ast.parse(text)


def _sites() -> Iterator[tuple[str, ast.Call, list[ast.AST]]]:
    """Each call that logs, its place, and where names in it are explained, the nearest first."""
    for path, tree in _modules():
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for call in ast.walk(function):
                if (
                    isinstance(call, ast.Call)
                    and isinstance(call.func, ast.Attribute)
                    and call.func.attr in METHODS
                    and ast.unparse(call.func.value) == "_log"
                ):
                    yield f"{path}:{call.lineno}", call, [function, tree]


def _logged(call: ast.Call, scopes: list[ast.AST]) -> Iterator[tuple[str, str, set[str]]]:
    """What a call logs: an event's name, of which it may choose between two, level and fields."""
    assert isinstance(call.func, ast.Attribute)
    (argument,) = call.args
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    assert given.keys() <= {"extra", "exc_info"}, ast.unparse(call)
    fields = _keys(given["extra"], scopes) if "extra" in given else set()
    names = [argument.body, argument.orelse] if isinstance(argument, ast.IfExp) else [argument]
    for name in names:
        assert isinstance(name, ast.Constant), ast.unparse(call)
        yield str(name.value), call.func.attr, fields


def _keys(value: ast.expr, scopes: list[ast.AST]) -> set[str]:
    """The keys of a dictionary: written out there, under a name, or by a function of the module."""
    if isinstance(value, ast.Name | ast.Call):
        written = next(filter(None, (list(_written(value, scope)) for scope in scopes)))
        assert len(written) == 1, ast.unparse(value)
        return _keys(written[0], scopes)
    assert isinstance(value, ast.Dict), ast.unparse(value)
    keys: set[str] = set()
    for key, part in zip(value.keys, value.values, strict=True):
        if key is None:
            keys |= _keys(part, scopes)
        else:
            assert isinstance(key, ast.Constant)
            keys.add(str(key.value))
    return keys


def _written(value: ast.Name | ast.Call, scope: ast.AST) -> Iterator[ast.expr]:
    """What a name is assigned in a scope, or what a function of it returns."""
    for node in ast.walk(scope):
        if isinstance(value, ast.Name) and isinstance(node, ast.Assign):
            if ast.unparse(node.targets[0]) == value.id:
                yield node.value
        elif isinstance(value, ast.Call) and getattr(node, "name", "") == ast.unparse(value.func):
            assert isinstance(node, ast.FunctionDef)
            yield from (it.value for it in node.body if isinstance(it, ast.Return) and it.value)
