"""An event as JSON has it: how commands print one, and how a file gives one."""

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, Literal, TypeAlias

from google.protobuf.json_format import ParseDict, ParseError

from cli.usage.query import FINISHES, MODES, QUALITIES, TOKEN_CLASSES, class_name
from tokenworks.meter.v1 import usage_pb2

_Reported: TypeAlias = Literal["reported_input_count", "reported_output_count"]
_DIMENSIONS: Final = ("account", "model", "served_model", "tier", "pool", "region")
_PLAIN: Final = ("end_time", "duration_ms", "request_id", "attempt")
_REPORTED: Final = ("reported_input_count", "reported_output_count")
_ENUMS: Final[Mapping[str, Collection[str]]] = {
    "mode": MODES.values(),
    "finish": FINISHES.values(),
    "quality": QUALITIES.values(),
}
# Printed with every event; what replaces one keeps its id.
_ID: Final = "event_id"
FIELDS: Final = (*_DIMENSIONS, *_PLAIN, *_REPORTED, *_ENUMS, "tokens")


class WrongEvent(ValueError):
    """A text is no event; says what is wrong."""


def event_to_json(event: usage_pb2.UsageEvent) -> dict[str, object]:
    """Return the event as it came; numbers without a name stay numbers."""
    dimensions = event.dimensions
    return {
        "event_id": event.event_id,
        "end_time": _time_to_json(event),
        "duration_ms": event.duration_ms,
        "account": dimensions.account,
        "model": dimensions.model,
        "served_model": dimensions.served_model,
        "tier": dimensions.tier,
        "mode": MODES.get(dimensions.mode, dimensions.mode),
        "pool": dimensions.pool,
        "region": dimensions.region,
        "tokens": {class_name(item.token_class): item.count for item in event.tokens},
        "finish": FINISHES.get(event.finish, event.finish),
        "quality": QUALITIES.get(event.quality, event.quality),
        "request_id": event.request_id,
        "attempt": event.attempt,
        "reported_input_count": _optional(event, "reported_input_count"),
        "reported_output_count": _optional(event, "reported_output_count"),
    }


def event_from_json(text: str) -> usage_pb2.UsageEvent:
    """Return the event that a JSON object describes, in the words of `event_to_json`.

    `event_id` is read over. Raises WrongEvent.
    """
    try:
        stored = json.loads(text)
    except ValueError as error:
        raise WrongEvent(f"it is no JSON: {error}") from error
    if not isinstance(stored, dict):
        raise WrongEvent("it is no JSON object")
    unknown = sorted(stored.keys() - {*FIELDS, _ID})
    if unknown:
        raise WrongEvent(f"{unknown[0]!r} is none of {', '.join(sorted(FIELDS))}")
    missing = [name for name in ("account", "model", "tier", "end_time") if not stored.get(name)]
    if missing:
        raise WrongEvent(f"{missing[0]} is missing")
    given = {name: value for name, value in stored.items() if value is not None}
    for name, known in _ENUMS.items():
        if name in given:
            given[name] = _enum_name(name, given[name], known=known)
    content = {
        "dimensions": {name: given[name] for name in (*_DIMENSIONS, "mode") if name in given},
        "tokens": _tokens(given.get("tokens", {})),
        **{
            name: given[name]
            for name in (*_PLAIN, *_REPORTED, "finish", "quality")
            if name in given
        },
    }
    try:
        return ParseDict(content, usage_pb2.UsageEvent())
    except (ParseError, ValueError) as error:
        raise WrongEvent(str(error)) from error


def summarise_event(event: usage_pb2.UsageEvent) -> str:
    """Return the event in a line, safe to print whatever was reported."""
    names = (event.dimensions.account, event.dimensions.model, event.dimensions.tier)
    return ", ".join([" ".join(printable(name) for name in names), *_counts(event.tokens)])


def printable(text: str) -> str:
    """Return the text, or how it would be written where it has what a terminal obeys."""
    # What was reported may hold anything, sequences that steer a terminal among it.
    return text if text and text.isprintable() else repr(text)


def _counts(tokens: Iterable[usage_pb2.TokenCount]) -> list[str]:
    return [f"{item.count:,} {class_name(item.token_class).replace('_', ' ')}" for item in tokens]


def _enum_name(name: str, value: object, *, known: Collection[str]) -> str:
    if value not in known:
        raise WrongEvent(f"{name} {value!r} is none of {', '.join(known)}")
    return f"{name.upper()}_{str(value).upper()}"


def _tokens(stored: Any) -> list[dict[str, object]]:  # noqa: ANN401
    if not isinstance(stored, dict):
        raise WrongEvent('tokens is no object of counts by class: {"input": 5}')
    numbers = {name: number for number, name in TOKEN_CLASSES.items()}
    unknown = sorted(stored.keys() - numbers.keys())
    if unknown:
        raise WrongEvent(f"token class {unknown[0]!r} is none of {', '.join(numbers)}")
    return [{"token_class": numbers[name], "count": count} for name, count in stored.items()]


def _optional(event: usage_pb2.UsageEvent, name: _Reported) -> int | None:
    return int(getattr(event, name)) if event.HasField(name) else None


def _time_to_json(event: usage_pb2.UsageEvent) -> str | None:
    try:
        return event.end_time.ToJsonString()
    except ValueError:
        # Too far away for a date: that is why it was set aside.
        return None
