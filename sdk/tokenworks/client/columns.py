"""Events to the bytes of a UsageColumns message.

Reading arguments one by one costs several microseconds an event, on the machine that serves. So a
batch is read column by column by C code first, which needs every argument to be of a plain type;
only a batch with anything unusual in it is read event by event.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, cast
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from tokenworks.client import limits
from tokenworks.client.events import (
    NOT_STATED,
    TEXT_CLASSES,
    DimensionKey,
    Event,
    RawEvent,
    end_ms_from_seconds,
    read,
)
from tokenworks.client.foreign import Unfit, guarded
from tokenworks.client.usage_objects import UsageObject, pack
from tokenworks.client.vocabulary import Finish, Mode, Quality, Source, TokenClass
from tokenworks.meter.v1 import usage_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedBatch:
    """Events that travel together; the bytes never change again. It has no number yet."""

    payload: bytes
    """A serialised UsageColumns message, at most `BATCH_BYTES_MAX` bytes."""
    event_count: int
    """1 to `BATCH_EVENTS_MAX`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """What became of some events."""

    batches: Sequence[SealedBatch]
    unfit: Mapping[str, int]
    """How many events the wire cannot carry, by kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    """Values of n events that fit the wire; an empty column means its default for all."""

    end_ms: Sequence[int]
    dimensions: Sequence[DimensionKey]
    counts: Sequence[Sequence[int]]
    other_counts: Mapping[int, Sequence[int]] = field(default_factory=dict)
    duration_ms: Sequence[int] = ()
    finish: Sequence[int] = ()
    quality: Sequence[int] = ()
    request_id: Sequence[str] = ()
    attempt: Sequence[int] = ()
    event_ids: bytes = b""
    reported_input_count: Sequence[int] = ()
    reported_output_count: Sequence[int] = ()
    usage: Sequence[UsageObject | None] = ()


class ColumnEncoder:
    """Encodes events, and keeps the bytes of dimensions that were seen before."""

    def __init__(self, *, defaults: DimensionKey, source: Source | None = None) -> None:
        """`defaults` stand in for dimensions that an event leaves open; `source` is who reports."""
        self._defaults = defaults
        self._source = pb.SOURCE_UNSPECIFIED if source is None else _SOURCES[source]
        self._framed: dict[DimensionKey, bytes] = {}

    def encode(self, raws: Sequence[RawEvent]) -> Encoded:
        """Encode 1 to `BATCH_EVENTS_MAX` events, as one batch where they allow it."""
        assert 0 < len(raws) <= limits.BATCH_EVENTS_MAX
        try:
            columns = _plain_columns(raws)
            payload = None if columns is None else self._serialise(columns)
        except (TypeError, ValueError, OverflowError):
            # A value that does not fit its field: found and mended event by event below.
            payload = None
        if payload is not None and len(payload) <= limits.BATCH_BYTES_MAX:
            return Encoded(batches=[SealedBatch(payload=payload, event_count=len(raws))], unfit={})
        return self._encode_one_by_one(raws)

    def _encode_one_by_one(self, raws: Sequence[RawEvent]) -> Encoded:
        groups: dict[tuple[int, bool, bool], list[Event]] = {}
        unfit: Counter[str] = Counter()
        for raw in raws:
            try:
                event = guarded(read, raw)
            except Unfit as error:
                unfit[str(error)] += 1
            else:
                groups.setdefault(_group(event), []).append(event)
        batches = [batch for events in groups.values() for batch in self._seal(events)]
        return Encoded(batches=batches, unfit=unfit)

    def _seal(self, events: Sequence[Event]) -> Iterable[SealedBatch]:
        try:
            payload = self._serialise(_columns_from_events(events))
        except ValueError:
            # The values fit: it is the usage objects that are too large together.
            payload = None
        if payload is not None and len(payload) <= limits.BATCH_BYTES_MAX:
            return [SealedBatch(payload=payload, event_count=len(events))]
        assert len(events) > 1, "one event of bounded strings fits"
        middle = len(events) // 2
        return chain(self._seal(events[:middle]), self._seal(events[middle:]))

    def _serialise(self, columns: _Columns) -> bytes:
        """Serialise, or raise TypeError or ValueError where a value does not fit its field."""
        distinct = dict.fromkeys(columns.dimensions)
        index = dict(zip(distinct, range(len(distinct)), strict=True))
        base_ms = min(columns.end_ms)
        seconds, milliseconds = divmod(base_ms, 1000)
        message = pb.UsageColumns(
            base_time=Timestamp(seconds=seconds, nanos=milliseconds * 1_000_000),
            dimensions_index=map(index.__getitem__, columns.dimensions),
            end_offset_ms=[end_ms - base_ms for end_ms in columns.end_ms],
            duration_ms=columns.duration_ms,
            event_ids=columns.event_ids,
            finish=cast("Sequence[pb.Finish.ValueType]", columns.finish),
            quality=cast("Sequence[pb.Quality.ValueType]", columns.quality),
            request_id=columns.request_id,
            attempt=columns.attempt,
            reported_input_count=columns.reported_input_count,
            reported_output_count=columns.reported_output_count,
            source=self._source,
            usage=pack(columns.usage) if columns.usage and self._source else b"",
        )
        text_counts = zip(TEXT_CLASSES, columns.counts, strict=True)
        for token_class, counts in chain(text_counts, columns.other_counts.items()):
            if any(counts):
                number = cast("pb.TokenClass.ValueType", int(token_class))
                message.tokens.add(token_class=number, counts=counts)
        # The fields of a message may come in any order, so bytes that are kept can be put first.
        return b"".join(map(self._framed_dimensions, distinct)) + message.SerializeToString()

    def _framed_dimensions(self, key: DimensionKey) -> bytes:
        framed = self._framed.get(key)
        if framed is None:
            if len(self._framed) >= limits.DIMENSIONS_CACHED_MAX:
                self._framed.clear()
            framed = self._framed[key] = _framed_dimensions(key, defaults=self._defaults)
        return framed


def _framed_dimensions(key: DimensionKey, *, defaults: DimensionKey) -> bytes:
    account, model, served_model, tier, mode, pool, region = (
        default if value is None else value for value, default in zip(key, defaults, strict=True)
    )
    texts = cast("tuple[str, ...]", (account, model, served_model, tier, pool, region))
    if max(map(len, texts)) > limits.STRING_CHARACTERS_MAX:
        raise ValueError("string too long")
    dimensions = pb.Dimensions(
        account=texts[0],
        model=texts[1],
        served_model=texts[2],
        tier=texts[3],
        mode=cast("pb.Mode.ValueType", mode),
        pool=texts[4],
        region=texts[5],
    )
    return pb.UsageColumns(dimensions=[dimensions]).SerializeToString()


_SOURCES: Final[Mapping[Source, pb.Source.ValueType]] = {
    Source.PROXY: pb.SOURCE_PROXY,
    Source.LITELLM: pb.SOURCE_LITELLM,
    Source.ASGI: pb.SOURCE_ASGI,
}
_NOTHING: Final = frozenset({type(None)})
_INTEGER: Final = frozenset({int})
_INTEGER_OR_NOTHING: Final = _INTEGER | _NOTHING

# The types of each column of plain events. Exact types: no code but Python's own then runs when
# values are compared, hashed or converted.
_PLAIN_TYPES: Final = (
    _INTEGER,  # recorded_ns
    frozenset({tuple}),  # dimensions
    *(_INTEGER for _ in TEXT_CLASSES),
    _NOTHING,  # tokens
    frozenset({type(None), int, float}),  # end_time
    frozenset({int, float}),  # duration_ms
    frozenset({int, Finish}),
    frozenset({int, Quality}),
    frozenset({str}),  # request_id
    _INTEGER,  # attempt
    frozenset({type(None), bytes, UUID}),  # event_id
    _INTEGER_OR_NOTHING,  # reported_input_count
    _INTEGER_OR_NOTHING,  # reported_output_count
    frozenset({type(None), dict}),  # usage, as it is kept
)
_PLAIN_DIMENSION_TYPES: Final = frozenset({str, type(None), int, Mode})
_COUNTS: Final = slice(2, 2 + len(TEXT_CLASSES))
_REST: Final = slice(2 + len(TEXT_CLASSES) + 1, None)
_ID_SIZES: Final = frozenset({16})


def _plain_columns(raws: Sequence[RawEvent]) -> _Columns | None:
    """Columns of events whose arguments are all plain, else None.

    Raises ValueError or OverflowError where a number is not finite.
    """
    columns = tuple(zip(*raws, strict=True))
    for column, plain_types in zip(columns, _PLAIN_TYPES, strict=True):
        if not plain_types.issuperset(map(type, column)):
            return None
    recorded_ns = cast("Sequence[int]", columns[0])
    dimensions = cast("Sequence[DimensionKey]", columns[1])
    if not _PLAIN_DIMENSION_TYPES.issuperset(map(type, chain.from_iterable(dimensions))):
        return None
    ends, durations, finish, quality, request_ids, attempts, ids, inputs, outputs, usages = columns[
        _REST
    ]
    event_ids = _joined_ids(ids)
    end_ms = _joined_ends(ends, recorded_ns=recorded_ns)
    texts = cast("Sequence[str]", request_ids)
    lengths = cast("Sequence[float]", durations)
    if event_ids is None or end_ms is None or max(map(len, texts)) > limits.STRING_CHARACTERS_MAX:
        return None
    return _Columns(
        end_ms=end_ms,
        dimensions=dimensions,
        counts=cast("Sequence[Sequence[int]]", columns[_COUNTS]),
        duration_ms=_unless_all(0, [round(duration) for duration in lengths]),
        finish=_unless_all(Finish.COMPLETED, cast("Sequence[int]", finish)),
        quality=_unless_all(Quality.FINAL, cast("Sequence[int]", quality)),
        request_id=texts if any(texts) else (),
        attempt=_unless_all(0, cast("Sequence[int]", attempts)),
        event_ids=event_ids,
        reported_input_count=_stated(cast("Sequence[int | None]", inputs)),
        reported_output_count=_stated(cast("Sequence[int | None]", outputs)),
        usage=_unless_nothing(cast("Sequence[UsageObject | None]", usages)),
    )


def _joined_ends(ends: Sequence[object], *, recorded_ns: Sequence[int]) -> Sequence[int] | None:
    if ends.count(None) == len(ends):
        return [nanoseconds // 1_000_000 for nanoseconds in recorded_ns]
    times = zip(cast("Sequence[float | None]", ends), recorded_ns, strict=True)
    end_ms = [
        nanoseconds // 1_000_000 if seconds is None else end_ms_from_seconds(seconds)
        for seconds, nanoseconds in times
    ]
    in_range = min(end_ms) >= limits.TIME_MS_MIN and max(end_ms) <= limits.TIME_MS_MAX
    return end_ms if in_range else None


def _joined_ids(ids: Sequence[object]) -> bytes | None:
    kinds = set(map(type, ids))
    if kinds == {type(None)}:
        return b""
    if kinds == {UUID}:
        return b"".join([event_id.bytes for event_id in cast("Sequence[UUID]", ids)])
    if kinds == {bytes}:
        sized = cast("Sequence[bytes]", ids)
        return b"".join(sized) if _ID_SIZES.issuperset(map(len, sized)) else None
    return None


def _stated(counts: Sequence[int | None]) -> Sequence[int]:
    if counts.count(None) == len(counts):
        return ()
    return [NOT_STATED if count is None else count for count in counts]


def _unless_all(default: int, column: Sequence[int]) -> Sequence[int]:
    return () if column.count(default) == len(column) else column


def _unless_nothing(usages: Sequence[UsageObject | None]) -> Sequence[UsageObject | None]:
    return () if usages.count(None) == len(usages) else usages


def _group(event: Event) -> tuple[int, bool, bool]:
    """Events of one group can share a batch.

    Their ends lie near each other; all or none of them have an id; and a class that the meter may
    not know touches no event that lacks it.
    """
    unusual = any(token_class not in _KNOWN_CLASSES for token_class in event.other_counts)
    return event.end_ms // limits.TIME_SPAN_MS, bool(event.event_id), unusual


_KNOWN_CLASSES: Final = frozenset(map(int, TokenClass))


def _columns_from_events(events: Sequence[Event]) -> _Columns:
    columns = tuple(zip(*events, strict=True))
    by_name = dict(zip(Event._fields, columns, strict=True))
    others = cast("Sequence[Mapping[int, int]]", by_name["other_counts"])
    classes = sorted({token_class for counts in others for token_class in counts})
    reported_inputs = cast("Sequence[int]", by_name["reported_input_count"])
    reported_outputs = cast("Sequence[int]", by_name["reported_output_count"])
    return _Columns(
        end_ms=cast("Sequence[int]", by_name["end_ms"]),
        dimensions=cast("Sequence[DimensionKey]", by_name["dimensions"]),
        counts=tuple(zip(*cast("Sequence[Sequence[int]]", by_name["counts"]), strict=True)),
        other_counts={c: [counts.get(c, 0) for counts in others] for c in classes},
        duration_ms=_unless_all(0, cast("Sequence[int]", by_name["duration_ms"])),
        finish=_unless_all(Finish.COMPLETED, cast("Sequence[int]", by_name["finish"])),
        quality=_unless_all(Quality.FINAL, cast("Sequence[int]", by_name["quality"])),
        request_id=cast("Sequence[str]", by_name["request_id"]),
        attempt=_unless_all(0, cast("Sequence[int]", by_name["attempt"])),
        event_ids=b"".join(cast("Sequence[bytes]", by_name["event_id"])),
        reported_input_count=_unless_all(NOT_STATED, reported_inputs),
        reported_output_count=_unless_all(NOT_STATED, reported_outputs),
        usage=_unless_nothing(cast("Sequence[UsageObject | None]", by_name["usage"])),
    )
