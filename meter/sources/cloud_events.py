"""CloudEvents 1.0: an event is a report, of a whole request or of one count. Pure.

`inference.tokens.used` is our own type: one event of it has all that a request took. Events of any
other type are read as OpenMeter's are: `subject` is the account, and `data` has a model, a number
of tokens, and whether they went in or came out. Which of both it is, the type says.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NoReturn

from meter.domain.event import Dimensions
from meter.domain.times import to_ms
from meter.domain.tokens import TokenClass
from meter.sources.observation import Observation, Unreadable
from meter.sources.places import Places
from tokenworks.client.foreign import Unfit
from tokenworks.client.profiles import PROFILES, read_usage
from tokenworks.client.usage_objects import kept

# Kept with the originals: what reads them, and how old that is.
PROFILE: Final = "cloud_events/1"
WHOLE_TYPE: Final = "inference.tokens.used"
# The only form that `data` of that type has had so far; an event need not name it.
WHOLE_SCHEMA: Final = "urn:tokenworks:inference.tokens.used:1"
_SPECVERSION: Final = "1.0"
_NAME_CHARS_MAX: Final = 1_024
_CLASSES: Final[Mapping[str, int]] = {it.name.lower(): int(it) for it in TokenClass}
# What others call a class, where an event has one count.
_KINDS: Final[Mapping[str, int]] = {
    **_CLASSES,
    "prompt": TokenClass.INPUT,
    "completion": TokenClass.OUTPUT,
    "cached": TokenClass.CACHE_READ,
}
# Types whose data is a provider's usage object, and which.
_PROFILES: Final[Mapping[str, str]] = {"litellm_tokens": "openai"}
# The totals of a usage object that anybody can find.
_TOTALS: Final[Mapping[str, tuple[str, str]]] = {
    "openai": ("prompt_tokens", "completion_tokens"),
    "deepseek": ("prompt_tokens", "completion_tokens"),
    "litellm": ("prompt_tokens", "completion_tokens"),
    "openai_responses": ("input_tokens", "output_tokens"),
    "anthropic": ("input_tokens", "output_tokens"),
}
_MODES: Final[Mapping[str, int]] = {"online": 1, "batch": 2}
_FINISHES: Final[Mapping[str, int]] = {"completed": 1, "truncated": 2, "cancelled": 3, "failed": 4}
_QUALITIES: Final[Mapping[str, int]] = {"final": 1, "partial": 2, "estimated": 3}
# No class, mode, finish or quality has this number: the check sets the event aside.
_UNKNOWN: Final = 255
_NO_CLASS: Final = 0
_DIGITS_MAX: Final = 18
# The end of the year 9999, behind which no calendar goes.
_END_MS_MAX: Final = 253_402_300_799_000


class NoCloudEvents(ValueError):
    """What was sent is no CloudEvent: `field` is where, `rule` what it must be instead."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field} must be {rule}")
        self.field = field
        self.rule = rule


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudEvent:
    """What of an event's attributes plays a part, each checked; `time_ms` is None where absent."""

    id: str
    source: str
    type: str
    subject: str
    time_ms: int | None
    dataschema: str
    data: object

    @property
    def report_id(self) -> str:
        """The name of the event among all: ids are unique to their source."""
        source = self.source.replace("%", "%25").replace(":", "%3A")
        return f"ce:{source}:{self.id}"


def parse_structured(body: bytes) -> list[CloudEvent]:
    """Read one event, or a list of them, with their attributes inside; raises NoCloudEvents."""
    content = _parse_json(body, field="the body")
    if not isinstance(content, list):
        return [_to_event(content, field="the event")]
    return [_to_event(each, field=f"event {index}") for index, each in enumerate(content)]


def parse_binary(headers: Mapping[str, str], body: bytes) -> list[CloudEvent]:
    """Read an event whose attributes are headers (names in small letters), and whose data is JSON.

    Raises NoCloudEvents.
    """
    named = {
        name.removeprefix("ce-"): value for name, value in headers.items() if name.startswith("ce-")
    }
    data = _parse_json(body, field="the body")
    return [_to_event({**named, "data": data}, field="the event")]


def read(
    events: Sequence[CloudEvent], *, places: Places, received_ms: int
) -> Iterator[Observation | Unreadable]:
    """Yield what the events report; one without any count yields nothing.

    An event without a time ended when it was received.
    """
    for event in events:
        try:
            if event.type == WHOLE_TYPE:
                yield _read_whole(event, places=places, received_ms=received_ms)
            else:
                observation = _read_other(event, places=places, received_ms=received_ms)
                if observation is not None:
                    yield observation
        except Unfit as error:
            yield Unreadable(reason=str(error))


def reread(original: Mapping[str, object]) -> dict[int, int] | None:
    """Return what today's tables make of counts without a convention; None where none are there.

    Counts above 0 by the numbers of their classes.
    """
    tokens = original.get("tokens")
    if isinstance(tokens, Mapping):
        return _classes(tokens)
    number = _KINDS.get(str(original.get("type")))
    if number is None or not isinstance(tokens, int):
        return None
    return {number: tokens} if tokens else {}


def _read_whole(event: CloudEvent, *, places: Places, received_ms: int) -> Observation:
    if event.dataschema not in ("", WHOLE_SCHEMA):
        raise Unfit("dataschema is not known")
    data = event.data
    if not isinstance(data, Mapping):
        raise Unfit("data is no object")
    usage, profile = data.get("usage"), _text(data, "profile")
    if usage is None:
        tokens = _classes(data.get("tokens"))
        totals = (_find_count(data, "reported_input"), _find_count(data, "reported_output"))
        original: dict[str, object] = {"tokens": dict(_kept_classes(data["tokens"]))}
    else:
        tokens, totals, original = _read_profile(usage, profile=profile)
    return Observation(
        report_id=event.report_id,
        request_id=_text(data, "request_id"),
        dimensions=places.to_dimensions(
            account=_text(data, "account") or event.subject,
            model=_text(data, "model"),
            served_model=_text(data, "served_model"),
            tier=_text(data, "tier"),
            mode=_word(data, "mode", _MODES),
            pool=_text(data, "pool"),
            region=_text(data, "region"),
        ),
        end_ms=received_ms if event.time_ms is None else event.time_ms,
        tokens=tokens,
        attempt=_find_count(data, "attempt", absent=0),
        duration_ms=_find_count(data, "duration_ms", absent=0),
        finish=_word(data, "finish", _FINISHES),
        quality=_word(data, "quality", _QUALITIES),
        reported_input=totals[0],
        reported_output=totals[1],
        original=original,
    )


def _read_other(event: CloudEvent, *, places: Places, received_ms: int) -> Observation | None:
    """Read an event as OpenMeter has them; None where it has no count."""
    data, own = event.data, places.cloud_events
    if not isinstance(data, Mapping):
        return None
    profile = own.profiles.get(event.type) or _PROFILES.get(event.type)
    if profile is not None:
        tokens, totals, original = _read_profile(data, profile=profile)
    elif own.tokens in data:
        tokens, totals, original = _read_count(data, places=places)
    else:
        return None
    return Observation(
        report_id=event.report_id,
        # Input and output of one request are two events: neither is the request's only report.
        request_id="",
        dimensions=_other_dimensions(event, data, places=places),
        end_ms=received_ms if event.time_ms is None else event.time_ms,
        tokens=tokens,
        reported_input=totals[0],
        reported_output=totals[1],
        original=original,
    )


def _other_dimensions(
    event: CloudEvent, data: Mapping[str, object], *, places: Places
) -> Dimensions:
    own = places.cloud_events
    return places.to_dimensions(
        account=event.subject,
        model=_text(data, own.model),
        tier=_text(data, own.tier),
        pool=_text(data, own.pool),
        region=_text(data, own.region),
    )


def _read_count(
    data: Mapping[str, object], *, places: Places
) -> tuple[dict[int, int], tuple[int, int], dict[str, object]]:
    own = places.cloud_events
    count, kind = _count(data[own.tokens], name="tokens"), _text(data, own.kind)
    kind = own.kinds.get(kind, kind).lower()
    number = _KINDS.get(kind, _NO_CLASS)
    original = {"tokens": count, "type": kind if number else ""}
    return ({number: count} if count else {}), (-1, -1), original


def _read_profile(
    usage: object, *, profile: str
) -> tuple[dict[int, int], tuple[int, int], dict[str, object]]:
    if not isinstance(usage, Mapping):
        raise Unfit("usage is no object")
    if profile not in PROFILES:
        raise Unfit("profile is not known")
    original = {"convention": profile, **kept(usage)}
    try:
        reading = read_usage(usage, profile=profile)
    except Unfit:
        totals = _find_totals(usage, profile=profile)
        if totals is None:
            raise
        return {}, totals, original
    tokens = {int(number): count for number, count in reading.tokens.items()}
    return tokens, (reading.reported_input_count, reading.reported_output_count), original


def _find_totals(usage: Mapping[str, object], *, profile: str) -> tuple[int, int] | None:
    """Return the totals of an object whose parts do not fit them; None where it has none.

    No class sums to them: the check sets the event aside, with them in it.
    """
    totals = [usage.get(name) for name in _TOTALS.get(profile, ())]
    counts = [it for it in totals if isinstance(it, int) and not isinstance(it, bool) and it >= 0]
    if len(counts) != len(("input", "output")) or not any(counts):
        return None
    return counts[0], counts[1]


def _classes(tokens: object) -> dict[int, int]:
    """Return counts by class; those of a class that there is not have a number that is none."""
    if not isinstance(tokens, Mapping):
        raise Unfit("data has neither tokens nor usage")
    found: dict[int, int] = {}
    for name, value in tokens.items():
        count = _count(value, name="a count of tokens")
        if count:
            number = _CLASSES.get(name, _NO_CLASS)
            found[number] = found.get(number, 0) + count
    return found


def _kept_classes(tokens: object) -> Iterator[tuple[str, object]]:
    assert isinstance(tokens, Mapping)
    for name, value in tokens.items():
        if name in _CLASSES:
            yield name, value


def _count(value: object, *, name: str) -> int:
    """Return a whole number, also one that is written as a text or with `.0`."""
    if isinstance(value, str) and value.isdecimal() and len(value) <= _DIGITS_MAX:
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise Unfit(f"{name} is no count")
    return value


def _find_count(data: Mapping[str, object], name: str, *, absent: int = -1) -> int:
    value = data.get(name)
    return absent if value is None else _count(value, name=name)


def _text(data: Mapping[str, object], name: str) -> str:
    value = data.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Unfit("a text of data is no text")
    return value


def _word(data: Mapping[str, object], name: str, known: Mapping[str, int]) -> int:
    """Return what a word stands for: 1 where it is absent, a number of none where it is unknown."""
    word = _text(data, name)
    return known.get(word, _UNKNOWN) if word else 1


def _to_event(content: object, *, field: str) -> CloudEvent:
    if not isinstance(content, Mapping):
        raise NoCloudEvents(field, "an object")
    if content.get("specversion") != _SPECVERSION:
        raise NoCloudEvents(f"specversion of {field}", f'"{_SPECVERSION}"')
    names = {name: _attribute(content, name, field=field) for name in ("id", "source", "type")}
    for name, value in names.items():
        if not value:
            raise NoCloudEvents(f"{name} of {field}", "there")
    return CloudEvent(
        id=names["id"],
        source=names["source"],
        type=names["type"],
        subject=_attribute(content, "subject", field=field),
        time_ms=_time_ms(_attribute(content, "time", field=field), field=field),
        dataschema=_attribute(content, "dataschema", field=field),
        data=content.get("data"),
    )


def _attribute(content: Mapping[str, object], name: str, *, field: str) -> str:
    value = content.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > _NAME_CHARS_MAX or not value.isprintable():
        raise NoCloudEvents(
            f"{name} of {field}", f"a printable text of at most {_NAME_CHARS_MAX} characters"
        )
    return value


def _time_ms(written: str, *, field: str) -> int | None:
    if not written:
        return None
    try:
        time = datetime.fromisoformat(written.replace("t", "T").replace("z", "Z"))
        if time.tzinfo is not None:
            # What lies outside all times is far too early or late, and is set aside as such.
            return min(max(to_ms(time), 0), _END_MS_MAX)
    except ValueError:
        pass
    raise NoCloudEvents(f"time of {field}", "a time with an offset, like 2026-10-01T12:00:00Z")


def _parse_json(body: bytes, *, field: str) -> object:
    try:
        content: object = json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise NoCloudEvents(field, "JSON") from None
    return content


def _refuse(_: str) -> NoReturn:
    raise ValueError("no number of JSON")
