"""Spans of OpenTelemetry as reports of requests. Pure.

A span without usage is none of ours and is passed over. What an attribute says that is not in a
table is never looked at: prompts and answers may be among them.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf.message import DecodeError

from meter.domain.event import Dimensions
from meter.sources.joining import join
from meter.sources.observation import Observation, Source, Unreadable
from meter.sources.otlp_messages import name_of, to_unread, value_of
from meter.sources.otlp_profiles import (
    CACHE_WRITE,
    CACHE_WRITES,
    LITELLM,
    SpanProfile,
    find_profile,
)
from meter.sources.otlp_requests import Edge, cut_id, edge_of, is_own_id, turn_of
from meter.sources.places import COUNT, Places

_NS_PER_MS: Final = 1_000_000
# Some ten MiB: texts of the usual length, and those longer than this are not kept.
_REMEMBERED_MAX: Final = 65_536
_REMEMBERED_CHARS_MAX: Final = 512
_TOTALS: Final = 2
_INPUT, _CACHE_READ, _OUTPUT, _REASONING = 1, 2, 7, 8
_STATUS_ERROR: Final = 2
_COMPLETED, _TRUNCATED, _CANCELLED, _FAILED = 1, 2, 3, 4
_FINISHES: Final[Mapping[str, int]] = {
    "length": _TRUNCATED,
    "max_tokens": _TRUNCATED,
    "abort": _CANCELLED,
    "cancelled": _CANCELLED,
    "error": _FAILED,
}
_WORD: Final = re.compile("[a-z_]+")
_NOTHING: Final[Mapping[str, Any]] = {}
_NO_COUNT: Final = Unreadable(reason="a count of a span is no whole number")
_NO_VALUE: Final = Unreadable(reason="an attribute of a span is damaged")
_NO_ID: Final = Unreadable(reason="a span has no id")
_ID_BYTES: Final = (16, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reports:
    """What one profile has read: who reports, by which table, and the reports."""

    source: Source
    profile: str
    observations: list[Observation] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)


class DimensionMemory:
    """Dimensions by the texts that they came from: the same few are said by span after span."""

    def __init__(self) -> None:
        """Begin empty."""
        self._known: dict[tuple[str, ...], Dimensions] = {}

    def get(self, key: tuple[str, ...]) -> Dimensions | None:
        """Return what is known by these texts."""
        return self._known.get(key)

    def add(self, key: tuple[str, ...], dimensions: Dimensions) -> None:
        """Remember what these texts mean, unless they are long; memory stays bounded."""
        if sum(map(len, key)) > _REMEMBERED_CHARS_MAX:
            return
        if len(self._known) >= _REMEMBERED_MAX:
            self._known.clear()
        self._known[key] = dimensions


def read_spans(
    request: Any,  # noqa: ANN401  an export of traces
    places: Places,
    *,
    memory: DimensionMemory | None = None,
) -> list[Reports]:
    """Read an `ExportTraceServiceRequest`; answers to one prompt that came together are one report.

    Each profile that occurs has one entry. `memory` is of earlier exports, by the same places.
    """
    readers: dict[str, _Reader] = {}
    memory = memory or DimensionMemory()
    request = to_unread(request)
    for group in request.resource_spans:
        resource = texts_of(group.resource.attributes)
        for scoped in group.scope_spans:
            profile = find_profile(scoped.scope.name, resource)
            reader = readers.get(profile.name)
            if reader is None:
                reader = readers[profile.name] = _Reader(profile, places, memory=memory)
            reader.read(scoped.spans, resource)
    return [reader.reports() for reader in readers.values()]


def texts_of(attributes: Iterable[Any]) -> dict[str, str]:
    """Return those attributes that are texts, of a resource or the like."""
    return {each.key: each.value.string_value for each in attributes if each.value.string_value}


def count_of(value: Any) -> int | None:  # noqa: ANN401  an AnyValue
    """Return the whole number >= 0 that an attribute has, also written as a text; None if none."""
    plain = value.int_value
    if 0 < plain < 2**62:
        # Nearly always: no other kind has a number there.
        return int(plain)
    kind = value.WhichOneof("value")
    if kind == "int_value":
        count = int(plain)
    elif kind == "double_value" and value.double_value.is_integer():
        count = int(value.double_value)
    elif kind == "string_value" and value.string_value[:20].isdecimal():
        text = value.string_value
        count = int(text) if len(text) < 20 and text.isascii() else -1  # noqa: PLR2004
    else:
        return None
    return count if 0 <= count < 2**62 else None


def finish_of(words: str) -> int:
    """Return how a request ended, by the first word that is known; completed where none is."""
    for word in _WORD.findall(words[:200].lower()):
        if word in _FINISHES:
            return _FINISHES[word]
    return _COMPLETED


def partition(
    total: int, generated: int, *, cached: int, written: int, written_class: int, reasoning: int
) -> dict[int, int]:
    """Return disjoint classes of two totals that have their parts in them.

    Parts that exceed their total leave nothing beside them, and then sum to something else than
    what is reported: such an event is set aside.
    """
    tokens = {
        _INPUT: total - cached - written,
        _CACHE_READ: cached,
        written_class: written,
        _OUTPUT: generated - reasoning,
        _REASONING: reasoning,
    }
    return {number: count for number, count in tokens.items() if count > 0}


class _Reader:
    """Reads the spans of one profile."""

    def __init__(self, profile: SpanProfile, places: Places, *, memory: DimensionMemory) -> None:
        self._profile = profile
        self._places = places
        self._memory = memory
        counts = frozenset(profile.counts)
        # By an attribute's name: the same as text, and whether it is a count.
        self._wanted = {name.encode(): (name, name in counts) for name in profile.attributes}
        self._texts = (profile.model, profile.served_model, profile.account)
        self._resource: Mapping[str, str] = {}
        self._resource_texts: tuple[str, ...] = ()
        self._found: list[Observation] = []
        self._unreadable: list[Unreadable] = []
        # A collector in between may have heard of a span twice, and say so in one export.
        self._seen: set[str] = set()
        # By the request's id, the engine's of their prompt and when it arrived; numbered ones by
        # the request's id and what they have in common.
        self._prompts: dict[tuple[str, str, int], Observation] = {}
        self._numbered: dict[tuple[str, str | int], list[Observation]] = {}

    def read(self, spans: Iterable[Any], resource: Mapping[str, str]) -> None:
        """Read spans of one resource."""
        self._resource = resource
        own = self._places.otlp
        keys = (own.account, own.model, own.tier, own.pool, own.region)
        self._resource_texts = tuple(resource.get(key, "") for key in keys)
        wanted = self._wanted
        for span in spans:
            counts: dict[str, int] = {}
            texts: dict[str, Any] = {}
            try:
                for attribute in span.attributes:
                    named = wanted.get(name_of(attribute))
                    if named is None:
                        continue
                    name, is_count = named
                    value = value_of(attribute)
                    if not is_count:
                        texts[name] = value
                        continue
                    count = count_of(value)
                    counts[name] = -1 if count is None else count
            except DecodeError:
                self._unreadable.append(_NO_VALUE)
                continue
            if counts:
                self._read_span(span, counts, texts)

    def reports(self) -> Reports:
        """Return what was read; the prompts of one request are one report."""
        for found in self._numbered.values():
            # Known by its first turn, as the first turn of a further call of it is.
            first, *others = sorted(found, key=lambda it: it.turn)
            for other in others:
                join(first, other, is_same_prompt=False)
            self._found.append(first)
        self._numbered.clear()
        if not self._profile.was_seen and self._places.otlp.unseen != COUNT:
            for each in self._found:
                each.is_doubtful = True
        return Reports(
            source=self._profile.source,
            profile=self._profile.name,
            observations=self._found,
            unreadable=self._unreadable,
        )

    def _read_span(
        self,
        span: Any,  # noqa: ANN401
        counts: Mapping[str, int],
        found: Mapping[str, Any],
    ) -> None:
        profile = self._profile
        if min(counts.values()) < 0:
            self._unreadable.append(_NO_COUNT)
            return
        input_count, output_count = _pick(counts, profile.input), _pick(counts, profile.output)
        if input_count is None and output_count is None:
            return
        if profile.skipped and text_of(found, profile.operation) in profile.skipped:
            return
        trace_id, span_id = span.trace_id, span.span_id
        if (len(trace_id), len(span_id)) != _ID_BYTES:
            self._unreadable.append(_NO_ID)
            return
        engine_id = text_of(found, profile.request_id)
        edge = edge_of(span.trace_state, self._places.otlp.tracestate)
        # Mostly there is no other text than the id.
        others = found if not engine_id or len(found) > 1 else _NOTHING
        end_ms = span.end_time_unix_nano // _NS_PER_MS
        if output_count and profile.answer_count and self._is_one_of_several(found):
            counts, input_count = {key: counts[key] for key in profile.output}, None
        observation = Observation(
            report_id=f"otlp:{trace_id.hex()}:{span_id.hex()}",
            request_id=engine_id,
            dimensions=self._dimensions_of(edge, others),
            end_ms=end_ms,
            duration_ms=max(0, end_ms - span.start_time_unix_nano // _NS_PER_MS),
            tokens=self._partition(counts, found, input_count or 0, output_count or 0),
            finish=_finish(span, text_of(others, profile.finish) if others else ""),
            reported_input=-1 if input_count is None else input_count,
            reported_output=-1 if output_count is None else output_count,
            original=self._original(counts, found, engine_id),
            arrival_ns=span.start_time_unix_nano,
        )
        self._add(observation, engine_id, edge_id=edge.request_id)

    def _is_one_of_several(self, found: Mapping[str, Any]) -> bool:
        """Tell whether a span is of one of several answers, whose prompt another span tells."""
        values = (found[key] for key in self._profile.answer_count if key in found)
        return any((count_of(value) or 0) > 1 for value in values)

    def _partition(
        self, counts: Mapping[str, int], found: Mapping[str, Any], total: int, generated: int
    ) -> dict[int, int]:
        profile = self._profile
        if len(counts) <= _TOTALS and total and generated:
            return {_INPUT: total, _OUTPUT: generated}
        written = _pick(counts, profile.cache_write) or 0
        provider = text_of(found, profile.provider) if written else ""
        return partition(
            total,
            generated,
            cached=_pick(counts, profile.cache_read) or 0,
            written=written,
            written_class=CACHE_WRITES.get(provider, CACHE_WRITE),
            reasoning=_pick(counts, profile.reasoning) or 0,
        )

    def _original(
        self, counts: Mapping[str, int], found: Mapping[str, Any], engine_id: str
    ) -> Mapping[str, object]:
        """Return what is kept: counts, the id, and whose cache it was where one was written to."""
        original = {**counts, "request_id": engine_id} if engine_id else counts
        if len(counts) <= _TOTALS or not _pick(counts, self._profile.cache_write):
            return original
        provider = text_of(found, self._profile.provider)
        return {**original, "provider": provider if provider in CACHE_WRITES else ""}

    def _dimensions_of(self, edge: Edge, found: Mapping[str, Any]) -> Dimensions:
        model = served_model = owner = ""
        if found:
            model, served_model, owner = [text_of(found, keys) for keys in self._texts]
        key = (edge.account, edge.tier, model, served_model, owner, *self._resource_texts)
        dimensions = self._memory.get(key)
        if dimensions is None:
            places, resource = self._places, self._resource
            own = places.otlp
            dimensions = places.to_dimensions(
                account=edge.account or owner or resource.get(own.account, ""),
                model=model or resource.get(own.model, ""),
                served_model="" if served_model == model else served_model,
                tier=edge.tier or resource.get(own.tier, ""),
                pool=resource.get(own.pool, ""),
                region=resource.get(own.region, ""),
            )
            self._memory.add(key, dimensions)
        return dimensions

    def _add(self, observation: Observation, engine_id: str, *, edge_id: str) -> None:
        """Add a report, to that of the same prompt, or of another prompt of one request."""
        profile = self._profile
        # All prompts and answers of one call arrive together.
        call: str | int = observation.arrival_ns
        if observation.report_id in self._seen:
            return
        self._seen.add(observation.report_id)
        if profile is LITELLM:
            observation.is_doubtful = self._places.otlp.litellm != COUNT
        if profile.has_only_own_ids:
            self._add_unnamed(observation, edge_id)
            return
        if not (profile.cuts_ids and engine_id):
            self._found.append(observation)
            return
        if profile.has_own_ids and is_own_id(engine_id):
            # A turn of a response: only the edge can tell of which request it is.
            request_id, is_numbered = edge_id, bool(edge_id)
            call, observation.turn = turn_of(engine_id)
            observation.is_doubtful = not edge_id and self._places.otlp.unnamed != COUNT
        else:
            request_id, is_numbered = cut_id(engine_id)
        observation.request_id = request_id
        if not (profile.has_choices and request_id):
            self._found.append(observation)
            return
        observation.is_choice = True
        prompt = (request_id, engine_id, observation.arrival_ns)
        known = self._prompts.get(prompt)
        if known is not None:
            join(known, observation, is_same_prompt=True)
            return
        self._prompts[prompt] = observation
        if is_numbered:
            self._numbered.setdefault((request_id, call), []).append(observation)
        else:
            self._found.append(observation)

    def _add_unnamed(self, observation: Observation, edge_id: str) -> None:
        """Add a report of which only the edge can tell the request; that may have several."""
        observation.request_id = edge_id
        if not edge_id:
            observation.is_doubtful = self._places.otlp.unnamed != COUNT
            self._found.append(observation)
            return
        observation.is_choice = True
        self._numbered.setdefault((edge_id, observation.arrival_ns), []).append(observation)


def _finish(span: Any, words: str) -> int:  # noqa: ANN401
    if span.status.code == _STATUS_ERROR:
        return _FAILED
    return finish_of(words) if words else _COMPLETED


def _pick(counts: Mapping[str, int], keys: Sequence[str]) -> int | None:
    for key in keys:
        if key in counts:
            return counts[key]
    return None


def text_of(found: Mapping[str, Any], keys: Sequence[str]) -> str:
    """Return the first of these attributes that is a text, or has one as its first element."""
    for key in keys:
        value = found.get(key)
        if value is None:
            continue
        if value.string_value:
            return str(value.string_value)
        if value.WhichOneof("value") == "array_value" and value.array_value.values:
            return str(value.array_value.values[0].string_value)
    return ""
