"""The journal, read back for one key: which segments hold the events of a sum, and which events.

A month may have a hundred million events, of which few are of one key. So segments are read in
parts: what is one of whom (`dimension`) of all of them, and of those that have any of the key the
columns that are needed. Of a segment that lies in one interval the times are not read at all.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Connection,
    Engine,
    Text,
    and_,
    any_,
    func,
    literal,
    or_,
    select,
)

from meter.domain.event import SIGN, Int64Array
from meter.domain.interval import INTERVAL_MS
from meter.domain.limits import EVENT_ID_BYTES
from meter.domain.times import to_ms, to_time
from meter.domain.tokens import BAND_EDGES, PROMPT_CLASSES
from meter.evidence import (
    EventEvidence,
    EvidenceQuery,
    SegmentEvidence,
    UsageEvidence,
    UsageQuery,
)
from meter.runtime.engine import SNAPSHOT, store_faults
from meter.segment import Segment, decode
from meter.store.archived_bodies import ArchivedBodies
from meter.store.journal_parts import Place, SegmentParts, find_places, read_body, read_parts
from meter.store.tables import dimensions, skus, usage

# Intervals since 1970 stay below this for a hundred thousand years.
_INTERVALS_MAX: Final = 2**32
_PROMPT_COLUMNS: Final = tuple(f"tokens.{int(it)}" for it in sorted(PROMPT_CLASSES))


class EvidenceStore:
    """Reads usage, segments by their span of time, and their events by key."""

    def __init__(self, engine: Engine, *, archive: ArchivedBodies | None = None) -> None:
        """Take the engine, and what reads the bodies that left the database."""
        self._engine = engine
        self._archive = archive or ArchivedBodies()

    def find_usage(self, query: UsageQuery) -> Sequence[UsageEvidence]:
        """Return the usage with tokens of the key's class, by interval, account and band."""
        keys = (usage.c.interval_start, usage.c.account_id, usage.c.band)
        models = (skus.c.model, skus.c.served_model)
        tokens = func.sum(usage.c[query.token_class.name.lower()])
        statement = (
            select(*keys, *models, tokens.label("tokens"))
            .join(skus, skus.c.sku_id == usage.c.sku_id)
            .where(
                usage.c.account_id == any_(literal(list(query.account_ids), ARRAY(Text))),
                usage.c.interval_start >= to_time(query.start_ms),
                usage.c.interval_start < to_time(query.end_ms),
                usage.c.cut_id > query.after_cut_id,
                usage.c.cut_id <= query.cut_id,
                *_of_key(query),
            )
            .group_by(*keys, *models)
            .having(tokens != 0)
            .order_by(*keys, *models)
        )
        with store_faults(), self._engine.connect() as connection:
            return [
                UsageEvidence(
                    account_id=row.account_id,
                    interval_start_ms=to_ms(row.interval_start),
                    model=row.model,
                    served_model=row.served_model or row.model,
                    band=row.band,
                    token_count=int(row.tokens),
                )
                for row in connection.execute(statement)
            ]

    def find_segments(self, query: EvidenceQuery) -> Sequence[SegmentEvidence]:
        """Return the segments with tokens of the key's class, by shard and position."""
        with store_faults(), self._engine.connect() as connection:
            connection.execute(SNAPSHOT)
            wanted = _Wanted(query, _select_dimensions(connection, query))
            return [
                SegmentEvidence(
                    shard=it.place.shard,
                    position=it.place.position,
                    event_count=len(it.rows),
                    token_count=int(it.counts.sum()),
                )
                for it in _find(connection, wanted, archive=self._archive)
            ]

    def find_events(self, query: EvidenceQuery) -> Iterator[EventEvidence]:
        """Yield the events themselves, in the order of the journal.

        Whoever takes them slowly holds no connection: what the journal has never changes.
        """
        with store_faults(), self._engine.connect() as connection:
            connection.execute(SNAPSHOT)
            known = _select_dimensions(connection, query)
            every = list(_find(connection, _Wanted(query, known), archive=self._archive))
        for found in every:
            with store_faults(), self._engine.connect() as connection:
                body = read_body(connection, found.place, archive=self._archive)
            yield from _events(found, decode(body), known=known)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dimension:
    """Who, and on what."""

    account_id: str
    model: str
    served_model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A segment's rows of the key, and their tokens of the class."""

    place: Place
    rows: Int64Array
    counts: Int64Array


class _Wanted:
    """Tells a segment's events of a key from all others, by columns."""

    def __init__(self, query: EvidenceQuery, known: dict[int, _Dimension]) -> None:
        self.query = query
        self.dimension_ids = np.array(sorted(known), np.int64)
        self.column = f"tokens.{int(query.token_class)}"
        starts = {start_ms for places in query.places.values() for start_ms in places}
        self.intervals = np.array(sorted(it // INTERVAL_MS for it in starts), np.int64)
        self._bands = None if query.bands is None else np.array(sorted(query.bands), np.int64)
        self._codes = np.array(
            [
                dimension_id * _INTERVALS_MAX + start_ms // INTERVAL_MS
                for dimension_id, it in known.items()
                for start_ms in query.places[it.account_id]
            ],
            np.int64,
        )

    def columns(self, place: Place) -> tuple[str, ...]:
        """Return the columns that are needed of a segment that has the key's dimensions."""
        times = () if place.interval is not None else ("end_ms",)
        return (*times, *(() if self._bands is None else _PROMPT_COLUMNS), self.column, SIGN)

    def find(self, parts: SegmentParts, rows: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Return which of some rows are of the key, and their tokens of the class.

        What a correction takes back is negative; its band is that of its prompt all the same.
        """
        counts = parts.take(self.column, rows)
        intervals: Int64Array | int | None = parts.place.interval
        if intervals is None:
            intervals = parts.take("end_ms", rows) // INTERVAL_MS
        codes = parts.take("dimension", rows) * _INTERVALS_MAX + intervals
        matches = np.isin(codes, self._codes) & (counts != 0)
        if self._bands is not None:
            prompt = sum((parts.take(name, rows) for name in _PROMPT_COLUMNS), np.int64(0))
            matches &= np.isin(np.searchsorted(BAND_EDGES, prompt, "right"), self._bands)
        return rows[matches], (counts * parts.take(SIGN, rows))[matches]


def _find(connection: Connection, wanted: _Wanted, *, archive: ArchivedBodies) -> Iterator[_Found]:
    """Yield what each segment has of the key, of those that have any."""
    if not len(wanted.dimension_ids):
        return
    query = wanted.query
    places = find_places(
        connection,
        cut_id=query.cut_id,
        after_cut_id=query.after_cut_id,
        intervals=wanted.intervals,
    )
    for parts, rows in read_parts(
        connection,
        places,
        dimension_ids=wanted.dimension_ids,
        columns=wanted.columns,
        archive=archive,
    ):
        if not parts.has(wanted.column):
            continue
        own, counts = wanted.find(parts, rows)
        if len(own):
            yield _Found(place=parts.place, rows=own, counts=counts)


def _select_dimensions(connection: Connection, query: EvidenceQuery) -> dict[int, _Dimension]:
    """Return the key's dimensions by their ids."""
    statement = (
        select(
            dimensions.c.dimension_id,
            dimensions.c.account_id,
            skus.c.model,
            skus.c.served_model,
        )
        .join(skus, skus.c.sku_id == dimensions.c.sku_id)
        .where(
            dimensions.c.account_id == any_(literal(list(query.places), ARRAY(Text))),
            *_of_key(query),
        )
    )
    return {
        row.dimension_id: _Dimension(
            account_id=row.account_id,
            model=row.model,
            served_model=row.served_model or row.model,
        )
        for row in connection.execute(statement)
    }


def _of_key(query: EvidenceQuery | UsageQuery) -> list[ColumnElement[bool]]:
    """Return what a key asks of a sku."""
    rules = [skus.c.tier == query.tier, skus.c.mode == int(query.mode)]
    if query.model:
        rules.append(skus.c.model == query.model)
    if query.served_model:
        # A sku that names no other model was served by its own.
        own = and_(skus.c.served_model == "", skus.c.model == query.served_model)
        rules.append(or_(skus.c.served_model == query.served_model, own))
    return rules


def _events(
    found: _Found, segment: Segment, *, known: dict[int, _Dimension]
) -> Iterator[EventEvidence]:
    ends = np.cumsum([count for _, count in segment.origins])
    batches = np.searchsorted(ends, found.rows, "right").tolist()
    end_ms: Any = segment.columns["end_ms"][found.rows].tolist()
    ids = segment.columns["dimension"][found.rows].tolist()
    for place, (row, count) in enumerate(
        zip(found.rows.tolist(), found.counts.tolist(), strict=True)
    ):
        dimension = known[ids[place]]
        event_id = segment.event_ids[EVENT_ID_BYTES * row : EVENT_ID_BYTES * (row + 1)]
        yield EventEvidence(
            shard=found.place.shard,
            position=found.place.position,
            row=row,
            account_id=dimension.account_id,
            end_ms=end_ms[place],
            token_count=count,
            event_id=event_id if any(event_id) else b"",
            request_id=segment.request_ids[row] if segment.request_ids else "",
            model=dimension.model,
            served_model=dimension.served_model,
            key_id=segment.origins[batches[place]][0].key_id,
            is_correction=segment.is_correction,
        )
