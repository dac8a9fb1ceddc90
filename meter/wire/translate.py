"""Between protobuf and the meter's words: events in rows or columns ⇄ `EventBatch`."""

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from meter.domain import limits
from meter.domain.event import (
    DEFAULTS,
    REPORTED,
    BoolArray,
    Dimensions,
    DimensionTable,
    EventBatch,
    Int64Array,
    IntArray,
)
from meter.domain.outcome import Outcome
from meter.sources.observation import Observation
from meter.wire.event_ids import id_bytes, is_id, uuids_of
from meter.wire.known_dimensions import KnownDimensions
from meter.wire.packed import UnusableBatch, read_columns_message
from meter.wire.planar import PairMemory, read_account, read_numbers, read_service, read_sheet
from meter.wire.rows import Rows, Unusual, read_rows, tokens_of
from tokenworks.meter.v1 import usage_pb2

# Fewer are read sooner one by one.
_ROWS_TOGETHER_MIN: Final = 64
# The calendar of google.protobuf.Timestamp, years 1 to 9999, less the reach of an offset.
_FIRST_MS: Final = -62_135_596_800_000 + 2**31
_LAST_MS: Final = 253_402_300_799_999 - 2**31


class Translator:
    """Reads events; keeps the dimensions that it has met, by their bytes."""

    def __init__(self) -> None:
        """Begin with no dimensions."""
        self._table = DimensionTable()
        self._known = KnownDimensions(self._intern)
        # Of observations: their dimensions as they came.
        self._seen: dict[Dimensions, int] = {}
        self.pairs = PairMemory()
        self._forgotten_count = 0

    @property
    def met_count(self) -> int:
        """How many dimensions were new to it so far; those that it has forgotten are new again."""
        return self._forgotten_count + len(self._table)

    def from_columns(self, columns: Any) -> EventBatch:  # noqa: ANN401
        """Read UsageColumns whose columns are unread bytes.

        Raises UnusableBatch, or DecodeError when a part is no protobuf at all.
        """
        values = read_columns_message(columns)
        blobs = list(columns.dimensions)
        index = values.pop("dimensions_index")
        table = self.room()
        handles = self._known.find(blobs)
        base_ms = milliseconds(columns.base_time)
        return EventBatch(
            table=table,
            dimension=handles[index],
            end_ms=values.pop("end_offset_ms") + base_ms,
            tokens={int(name): v for name, v in values.items() if name not in DEFAULTS},
            extra=_extra({name: v for name, v in values.items() if name in DEFAULTS}),
            event_ids=id_array(b"".join([columns.event_ids]), len(index)),
            request_ids=list(columns.request_id) or None,
        )

    def from_planes(self, planes: Any) -> EventBatch:  # noqa: ANN401
        """Read UsagePlanes whose accounts and services are unread bytes.

        Raises UnusableBatch, or DecodeError when a service is no protobuf at all.
        """
        sheet = read_sheet(planes)
        values, spans = read_numbers(sheet, count=planes.event_count)
        table = self.room()

        def intern(service: bytes, account: bytes) -> int:
            said = _bounded(read_service(service))
            name = read_account(account)[: limits.ACCOUNT_CHARS_MAX + 1]
            return table.intern(replace(said, account=name))

        handles = self.pairs.find(
            list(planes.services),
            list(planes.accounts),
            service=values.pop("service_index"),
            account=values.pop("account_index"),
            intern=intern,
        )
        base_ms = milliseconds(planes.base_time)
        lowest, highest = spans.pop("end_offset_ms")
        end_ms = values.pop("end_offset_ms") + np.int64(base_ms)
        return EventBatch(
            table=table,
            dimension=handles,
            end_ms=end_ms,
            tokens={int(name): v for name, v in values.items() if name not in DEFAULTS},
            extra=_extra({name: v for name, v in values.items() if name in DEFAULTS}),
            event_ids=id_array(sheet.event_ids, len(handles)),
            request_ids=list(planes.request_id) or None,
            spans={
                "end_ms": (lowest + base_ms, highest + base_ms),
                **{name if name in DEFAULTS else int(name): span for name, span in spans.items()},
            },
        )

    def from_unread_rows(self, events: Collection[bytes]) -> tuple[EventBatch, BoolArray]:
        """Read serialized UsageEvent messages; also tell which have a class twice or a wrong id.

        Raises UnusableBatch above `BATCH_EVENTS_MAX`, or DecodeError when one is no protobuf.
        """
        # Before any of them is made an object.
        if len(events) > limits.BATCH_EVENTS_MAX:
            raise UnusableBatch(Outcome.BATCH_TOO_LARGE)
        if len(events) >= _ROWS_TOGETHER_MIN:
            try:
                return self._from_rows_together(read_rows(events))
            except (Unusual, UnicodeDecodeError):
                # Protobuf finds out what is right of it.
                pass
        return self.from_rows_one_by_one([usage_pb2.UsageEvent.FromString(it) for it in events])

    def _from_rows_together(self, rows: Rows) -> tuple[EventBatch, BoolArray]:
        tokens, wrong = tokens_of(rows)
        event_ids = None
        if rows.ids is not None:
            event_ids = uuids_of(rows.ids)
            if event_ids is None:
                ids = [it.decode() for it in rows.ids.each()]
                wrong |= np.array([not is_id(it) for it in ids], np.bool_)
                event_ids = id_array(b"".join(map(id_bytes, ids)), len(rows))
        request_ids = None
        if rows.request_ids is not None:
            request_ids = [it.decode() for it in rows.request_ids.each()]
        extra = _extra(rows.numbers)
        table = self.room()
        handles = self._known.find_texts(rows.dimensions)
        batch = EventBatch(
            table=table,
            dimension=handles,
            # Beyond the calendar all seconds are one.
            end_ms=np.clip(
                np.minimum(rows.seconds, _LAST_MS) * 1000 + rows.nanos // 1_000_000,
                _FIRST_MS,
                _LAST_MS,
            ),
            tokens=tokens,
            extra={name: it for name, it in extra.items() if (it != DEFAULTS[name]).any()},
            event_ids=event_ids,
            request_ids=request_ids,
        )
        return batch, wrong

    def from_rows(self, events: Sequence[Any]) -> tuple[EventBatch, BoolArray]:
        """Read UsageEvent messages; also tell which have a class twice or a wrong id.

        Raises UnusableBatch above `BATCH_EVENTS_MAX`.
        """
        if len(events) >= _ROWS_TOGETHER_MIN:
            # To write them again takes a tenth of what it takes to ask each for its fields.
            return self.from_unread_rows([event.SerializeToString() for event in events])
        return self.from_rows_one_by_one(events)

    def from_rows_one_by_one(self, events: Sequence[Any]) -> tuple[EventBatch, BoolArray]:
        """Do the same, by protobuf alone, with at most `BATCH_EVENTS_MAX`."""
        count = len(events)
        tokens, twice = _row_tokens(events)
        wrong = np.array([not is_id(event.event_id) for event in events], np.bool_) | twice
        request_ids = [event.request_id for event in events]
        extra = {
            "duration_ms": [event.duration_ms for event in events],
            "finish": [event.finish or DEFAULTS["finish"] for event in events],
            "quality": [event.quality or DEFAULTS["quality"] for event in events],
            "attempt": [event.attempt for event in events],
            "reported_input": [_reported(event, "reported_input_count") for event in events],
            "reported_output": [_reported(event, "reported_output_count") for event in events],
        }
        table = self.room()
        handles = self._known.find([event.dimensions.SerializeToString() for event in events])
        batch = EventBatch(
            table=table,
            dimension=handles,
            end_ms=np.array([milliseconds(event.end_time) for event in events], np.int64),
            tokens=tokens,
            # A column of defaults says nothing, and would be checked all the same.
            extra={
                name: np.array(values, np.int64)
                for name, values in extra.items()
                if values.count(DEFAULTS[name]) < count
            },
            event_ids=id_array(b"".join(id_bytes(event.event_id) for event in events), count),
            request_ids=request_ids if any(request_ids) else None,
        )
        return batch, wrong

    def from_observations(
        self, observations: Sequence[Observation], *, keys: Sequence[bytes]
    ) -> EventBatch:
        """Read what a source saw; the keys of the reports are the event ids.

        Numbers that no column holds become the nearest that one does.
        """
        count = len(observations)
        tokens: dict[int, list[int]] = {}
        for place, each in enumerate(observations):
            for number, value in each.tokens.items():
                counts = tokens.get(number)
                if counts is None:
                    counts = tokens[number] = [0] * count
                counts[place] = value
        table = self.room()
        extra = {
            "duration_ms": [it.duration_ms for it in observations],
            "finish": [it.finish for it in observations],
            "quality": [it.quality for it in observations],
            "attempt": [it.attempt for it in observations],
            "reported_input": [it.reported_input for it in observations],
            "reported_output": [it.reported_output for it in observations],
        }
        request_ids = [_utf8(it.request_id) for it in observations]
        return EventBatch(
            table=table,
            dimension=np.array(
                [self._intern_observed(it.dimensions) for it in observations], np.int64
            ),
            end_ms=_to_int64([it.end_ms for it in observations]),
            tokens={number: _to_int64(counts) for number, counts in tokens.items()},
            extra={
                name: _to_int64(values)
                for name, values in extra.items()
                if values.count(DEFAULTS[name]) < count
            },
            event_ids=np.frombuffer(b"".join(keys), np.uint8).reshape(-1, limits.EVENT_ID_BYTES),
            request_ids=request_ids if any(request_ids) else None,
        )

    def room(self) -> DimensionTable:
        """Return the table of dimensions, a new one where the last has grown too large."""
        most = max(len(self._table), len(self._known), len(self._seen))
        if most > limits.DIMENSIONS_INTERNED_MAX:
            # Batches under way keep the old table; memory stays bounded.
            self._forgotten_count += len(self._table)
            self._table, self._seen = DimensionTable(), {}
            self._known = KnownDimensions(self._intern)
            self.pairs = PairMemory()
        elif self.pairs.is_full():
            self.pairs = PairMemory()
        return self._table

    def _intern(self, blob: bytes) -> int:
        # A string is kept to one character beyond its limit: enough to be found too long.
        return self._table.intern(_bounded(usage_pb2.Dimensions.FromString(blob)))

    def _intern_observed(self, dimensions: Dimensions) -> int:
        """Return the handle of dimensions that nobody has bounded or checked."""
        handle = self._seen.get(dimensions)
        if handle is None:
            said = _bounded(dimensions)
            handle = self._table.intern(
                Dimensions(
                    _utf8(said.account),
                    _utf8(said.model),
                    _utf8(said.served_model),
                    _utf8(said.tier),
                    said.mode,
                    _utf8(said.pool),
                    _utf8(said.region),
                )
            )
            if _size(dimensions) <= limits.DIMENSIONS_BYTES_REMEMBERED:
                self._seen[dimensions] = handle
        return handle


def _bounded(said: Any) -> Dimensions:  # noqa: ANN401
    served_model = said.served_model or said.model
    return Dimensions(
        said.account[: limits.ACCOUNT_CHARS_MAX + 1],
        said.model[: limits.MODEL_CHARS_MAX + 1],
        served_model[: limits.MODEL_CHARS_MAX + 1],
        said.tier[: limits.TIER_CHARS_MAX + 1],
        _fit(said.mode) or 1,
        said.pool[: limits.POOL_CHARS_MAX + 1],
        said.region[: limits.REGION_CHARS_MAX + 1],
    )


def to_event(batch: EventBatch, place: int) -> usage_pb2.UsageEvent:
    """Return one event of a batch as a message, to be kept in quarantine."""
    dimensions = batch.table[int(batch.dimension[place])]
    said = {
        name: default if (column := batch.extra.get(name)) is None else _fit(column[place])
        for name, default in REPORTED.items()
    }
    event = usage_pb2.UsageEvent(
        dimensions=usage_pb2.Dimensions(
            account=dimensions.account,
            model=dimensions.model,
            served_model=dimensions.served_model,
            tier=dimensions.tier,
            pool=dimensions.pool,
            region=dimensions.region,
        ),
        duration_ms=said["duration_ms"],
        attempt=said["attempt"],
    )
    # Numbers that the enums do not have cannot be set through the typed constructor's checks.
    event.dimensions.mode = dimensions.mode  # type: ignore[assignment]
    event.finish = said["finish"]  # type: ignore[assignment]
    event.quality = said["quality"]  # type: ignore[assignment]
    event.end_time.FromMilliseconds(min(max(int(batch.end_ms[place]), _FIRST_MS), _LAST_MS))
    for number, counts in sorted(batch.tokens.items()):
        if counts[place]:
            item = event.tokens.add(count=int(counts[place]))
            item.token_class = number  # type: ignore[assignment]
    for name, wire_name in (("reported_input", "input"), ("reported_output", "output")):
        if said[name] != -1:
            setattr(event, f"reported_{wire_name}_count", said[name])
    if batch.event_ids is not None and batch.event_ids[place].any():
        event.event_id = str(uuid.UUID(bytes=batch.event_ids[place].tobytes()))
    if batch.request_ids is not None:
        event.request_id = batch.request_ids[place]
    return event


def _row_tokens(events: Sequence[Any]) -> tuple[dict[int, Int64Array], BoolArray]:
    tokens: dict[int, Int64Array] = {}
    twice = np.zeros(len(events), np.bool_)
    for place, event in enumerate(events):
        for item in event.tokens:
            counts = tokens.get(item.token_class)
            if counts is None:
                if len(tokens) >= limits.BATCH_CLASSES_MAX:
                    raise UnusableBatch(Outcome.BATCH_TOO_LARGE)
                counts = tokens[item.token_class] = np.zeros(len(events), np.int64)
            counts[place] = item.count
        if len(event.tokens) > 1:
            twice[place] = len({item.token_class for item in event.tokens}) < len(event.tokens)
    return tokens, twice


def _extra(columns: Mapping[str, IntArray]) -> dict[str, IntArray]:
    # The enums' zero means their first value.
    return {
        name: np.where(it == 0, DEFAULTS[name], it) if name in ("finish", "quality") else it
        for name, it in columns.items()
    }


def id_array(joined: bytes, count: int) -> Any:  # noqa: ANN401
    """Return event ids as n × 16 bytes; None where there are none."""
    if not joined:
        return None
    return np.frombuffer(joined, np.uint8).reshape(count, limits.EVENT_ID_BYTES)


def _reported(event: Any, name: str) -> int:  # noqa: ANN401
    return getattr(event, name) if event.HasField(name) else -1


def milliseconds(time: Any) -> int:  # noqa: ANN401
    """Return the time, or the end of the calendar that lies before or behind it."""
    milliseconds: int = time.seconds * 1000 + time.nanos // 1_000_000
    return min(max(milliseconds, _FIRST_MS), _LAST_MS)


def _size(of: Dimensions) -> int:
    """Return how many characters the texts have."""
    return sum(map(len, (of.account, of.model, of.served_model, of.tier, of.pool, of.region)))


def _utf8(text: str) -> str:
    """Return the text, or one that no rule takes for valid: JSON may bring halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "\0"
    return text


def _to_int64(values: Sequence[int]) -> Int64Array:
    try:
        return np.array(values, np.int64)
    except OverflowError:
        return np.array([min(max(value, -(2**61)), 2**61) for value in values], np.int64)


def _fit(value: Any) -> int:  # noqa: ANN401
    """Return a number, or the end of 32 bits on its side, which no rule takes for valid either."""
    return min(max(int(value), -(2**31)), 2**31 - 1)
