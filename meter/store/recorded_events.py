"""Recorded events, found again: by the id that they carry, or by their place in a batch.

A segment is looked into when it overlaps the time in question and has the bytes that are looked for
somewhere in it; decoding it decides. What corrections have written is never found here: an event is
found where it was recorded first.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Final

import numpy as np
from sqlalchemy import ColumnElement, Connection, bindparam, func, select, text

from meter.corrections import ById, CorrectableEvent, EventRow, RecordedEvent, Reported, Search
from meter.domain.errors import NotFound, Reason, Refused
from meter.domain.event import DEFAULTS, Dimensions, Origin
from meter.domain.limits import EVENT_ID_BYTES, INSTANCE_BYTES
from meter.domain.outcome import Outcome
from meter.domain.times import to_iso, to_time
from meter.quarantine import QuarantineState
from meter.segment import Segment, decode
from meter.store.archived_bodies import Archived, ArchivedBodies
from meter.store.tables import api_keys, dimensions, journal, quarantine, skus

# Segments are large: each may hold some hundred thousand events.
_SEGMENTS_AT_ONCE: Final = 10
_ARCHIVED_AT_ONCE: Final = 64
_ARCHIVED: Final = text("""
SELECT shard, position, archive_id, place, sha256 FROM journal_segments
WHERE archive_id IS NOT NULL AND last_end_time >= :start
  AND (CAST(:end AS timestamptz) IS NULL OR first_end_time < CAST(:end AS timestamptz))
ORDER BY shard, position
""")
# Of several events that are meant, so many are named.
_NAMED_MAX: Final = 4
# After so many the search ends: which one is meant is not known by then.
_MEANT_MAX: Final = 100
_WHOLE: Final = -1


def find_recorded(
    connection: Connection, search: Search, *, archive: ArchivedBodies
) -> RecordedEvent:
    """Return the one event that is meant, in the database or in files.

    Raises NotFound (EVENT_NOT_FOUND) and Refused (CORRECTION_REFUSED), and as reading files does.
    """
    others: set[str] = set()
    if isinstance(search.event, ById):
        segments = _segments(connection, search, [search.event.event_id], archive=archive)
        found = _by_id(connection, search, search.event.event_id, segments, others=others)
    else:
        needles = [f'"{search.event.producer}"'.encode(), f",{search.event.sequence},".encode()]
        segments = _segments(connection, search, needles, archive=archive)
        found = _by_place(connection, search, search.event, segments, others=others)
    own = list(islice(found, _MEANT_MAX))
    if len(own) == 1:
        return own[0]
    if own:
        raise _ambiguous(own, is_by_id=isinstance(search.event, ById))
    if others:
        accounts = sorted(it or "the installation" for it in others)
        raise Refused(
            Reason.CORRECTION_REFUSED,
            f"It was reported with a key of {' and of '.join(accounts[:_NAMED_MAX])}: say whose"
            " key, by `account`, which is empty for the installation's own.",
        )
    if not isinstance(search.event, ById):
        _refuse_quarantined(connection, search.event, account_id=search.account_id)
    until = "" if search.end_ms is None else f" and before {to_iso(search.end_ms)}"
    raise NotFound(
        Reason.EVENT_NOT_FOUND,
        "No such event was recorded, of those that ended from"
        f" {to_iso(search.start_ms)} on{until}. Look earlier with start_time, or in quarantine.",
    )


def read_recorded(
    connection: Connection,
    segment: Segment,
    row: EventRow,
    *,
    known: dict[int, Dimensions] | None = None,
) -> RecordedEvent:
    """Return the event in a row of its segment; `known` takes dimensions that were looked up."""
    origin, first = _batch_of(segment, row.row)
    index = _index_in_batch(connection, origin, row=row.row - first) if origin.producer else 0
    return RecordedEvent(
        row=row,
        account_id=origin.account_id,
        key_id=origin.key_id,
        event=_to_event(connection, segment, row.row, known={} if known is None else known),
        reported=Reported(producer=origin.producer, sequence=origin.sequence, index=index),
    )


def batch_index(row: int, *, aside: Sequence[int]) -> int:
    """Return the place in the batch as it was sent of its recorded row, both from 0.

    `aside` has the places that were set aside, in order.
    """
    index = row
    for place in aside:
        if place <= index:
            index += 1
    return index


def batch_row(index: int, *, aside: Sequence[int]) -> int | None:
    """Return the recorded row of a place in the batch as it was sent; None when set aside."""
    if index in aside:
        return None
    return index - sum(place < index for place in aside)


def _by_id(
    connection: Connection,
    search: Search,
    event_id: bytes,
    segments: Iterator[tuple[int, int, Segment]],
    *,
    others: set[str],
) -> Iterator[RecordedEvent]:
    """Yield the events of the search's account; note the others that have one, in `others`.

    Those cost no question more: anybody may have reported the same id any number of times.
    """
    wanted = np.frombuffer(event_id, np.uint8)
    for shard, position, segment in segments:
        if not segment.event_ids:
            continue
        ids = np.frombuffer(segment.event_ids, np.uint8).reshape(-1, EVENT_ID_BYTES)
        for row in np.flatnonzero((ids == wanted).all(axis=1)).tolist():
            origin, _ = _batch_of(segment, row)
            if _is_own(segment, row, origin, search=search, others=others):
                yield read_recorded(connection, segment, EventRow(shard, position, row))


def _by_place(
    connection: Connection,
    search: Search,
    place: Reported,
    segments: Iterator[tuple[int, int, Segment]],
    *,
    others: set[str],
) -> Iterator[RecordedEvent]:
    """Yield the events of the search's account; note the others that have one, in `others`."""
    for shard, position, segment in segments:
        first = 0
        for origin, count in segment.origins:
            if (origin.producer, origin.sequence) == (place.producer, place.sequence):
                row = _row_in_batch(connection, origin, index=place.index)
                if (
                    row is not None
                    and row < count
                    and _is_own(segment, first + row, origin, search=search, others=others)
                ):
                    yield read_recorded(connection, segment, EventRow(shard, position, first + row))
            first += count


def _is_own(
    segment: Segment, row: int, origin: Origin, *, search: Search, others: set[str]
) -> bool:
    """Tell whether a row is meant: in its time, and of its account; notes another's account."""
    if not _is_in_time(int(segment.columns["end_ms"][row]), search):
        return False
    if origin.account_id != search.account_id:
        others.add(origin.account_id)
        return False
    return True


def _segments(
    connection: Connection, search: Search, needles: Sequence[bytes], *, archive: ArchivedBodies
) -> Iterator[tuple[int, int, Segment]]:
    """Yield the segments that reports have made, that overlap the time and have all the bytes."""
    for shard, position, body in chain(
        _archived_bodies(connection, search, archive=archive),
        _bodies(connection, search, needles),
    ):
        if all(needle in body for needle in needles):
            segment = decode(body)
            if not segment.is_correction:
                yield shard, position, segment


def _bodies(
    connection: Connection, search: Search, needles: Sequence[bytes]
) -> Iterator[tuple[int, int, bytes]]:
    """Yield those of the database: it looks for the bytes by itself, and sends no others."""
    overlaps = journal.c.last_end_time >= to_time(search.start_ms)
    statement = select(journal.c.shard, journal.c.position, journal.c.body).where(overlaps)
    if search.end_ms is not None:
        statement = statement.where(journal.c.first_end_time < to_time(search.end_ms))
    for number, needle in enumerate(needles):
        name = f"needle{number}"
        has_bytes = text(f"position(:{name} in journal.body) > 0")
        statement = statement.where(has_bytes.bindparams(bindparam(name, needle)))
    statement = statement.order_by(journal.c.shard, journal.c.position)
    options = {"yield_per": _SEGMENTS_AT_ONCE}
    with connection.execute(statement, execution_options=options) as rows:
        for shard, position, body in rows:
            yield shard, position, bytes(body)


def _archived_bodies(
    connection: Connection, search: Search, *, archive: ArchivedBodies
) -> Iterator[tuple[int, int, bytes]]:
    """Yield those that lie in files and overlap the time."""
    end_ms = None if search.end_ms is None else to_time(search.end_ms)
    rows = connection.execute(_ARCHIVED, {"start": to_time(search.start_ms), "end": end_ms}).all()
    for first in range(0, len(rows), _ARCHIVED_AT_ONCE):
        some = rows[first : first + _ARCHIVED_AT_ONCE]
        wanted = [
            Archived(archive_id=it.archive_id, place=it.place, sha256=bytes(it.sha256))
            for it in some
        ]
        for row, body in zip(some, archive.read(connection, wanted), strict=True):
            yield row.shard, row.position, body


def _batch_of(segment: Segment, row: int) -> tuple[Origin, int]:
    """Return the origin of a row's batch, and the batch's first row."""
    first = 0
    for origin, count in segment.origins:
        if row < first + count:
            return origin, first
        first += count
    raise AssertionError("a row lies in one of the batches")


def _row_in_batch(connection: Connection, origin: Origin, *, index: int) -> int | None:
    released = _released_index(connection, origin)
    if released is not None and released != _WHOLE:
        return 0 if released == index else None
    return batch_row(index, aside=_set_aside(connection, origin))


def _index_in_batch(connection: Connection, origin: Origin, *, row: int) -> int:
    released = _released_index(connection, origin)
    if released is not None and released != _WHOLE:
        return released
    return batch_index(row, aside=_set_aside(connection, origin))


def _released_index(connection: Connection, origin: Origin) -> int | None:
    """Return the index of the quarantine entry that a batch was released from; None for others."""
    if not _is_released(origin):
        return None
    statement = select(quarantine.c.event_index).filter_by(
        quarantine_id=int.from_bytes(origin.instance)
    )
    return int(connection.execute(statement).scalar_one())


def _is_released(origin: Origin) -> bool:
    """Tell whether a batch was released from quarantine: its instance is the entry's number."""
    return 0 < len(origin.instance) < INSTANCE_BYTES


def _set_aside(connection: Connection, origin: Origin) -> list[int]:
    """Return the places of a batch that were not counted when it was recorded, in order.

    A driven clock may stand still: entries of other bytes under the same number came later.
    """
    of_number = {
        "producer": origin.producer,
        "sequence": origin.sequence,
        "key_id": origin.key_id,
    }
    statement = select(quarantine.c.quarantine_id, quarantine.c.event_index).filter_by(**of_number)
    rows = connection.execute(
        statement.where(
            (quarantine.c.event_index == _WHOLE)
            | (quarantine.c.received_time == to_time(origin.received_ms))
        ).order_by(quarantine.c.quarantine_id)
    ).all()
    if _is_released(origin):
        first, border = int.from_bytes(origin.instance), math.inf
    else:
        changed = [row.quarantine_id for row in rows if row.event_index == _WHOLE]
        first, border = 0, min(changed, default=math.inf)
    aside = {
        row.event_index
        for row in rows
        if row.event_index != _WHOLE and first < row.quarantine_id < border
    }
    return sorted(aside.union(origin.left_out))


def _refuse_quarantined(connection: Connection, place: Reported, *, account_id: str) -> None:
    """Refuse to correct what was set aside and is not counted; raises Refused."""
    of_key: ColumnElement[str] = func.coalesce(api_keys.c.account_id, "")
    statement = (
        select(quarantine.c.quarantine_id, quarantine.c.outcome, quarantine.c.state)
        .join(api_keys, api_keys.c.key_id == quarantine.c.key_id)
        .where(
            quarantine.c.producer == place.producer,
            quarantine.c.sequence == place.sequence,
            quarantine.c.event_index.in_([place.index, _WHOLE]),
            quarantine.c.state != QuarantineState.RELEASED,
            of_key == account_id,
        )
        .order_by(quarantine.c.event_index.desc(), quarantine.c.quarantine_id)
    )
    entry = connection.execute(statement).first()
    if entry is not None:
        state = QuarantineState(entry.state).name.lower()
        outcome = Outcome(entry.outcome).name
        raise Refused(
            Reason.CORRECTION_REFUSED,
            f"It was set aside as {outcome} and never counted: quarantine entry"
            f" {entry.quarantine_id} is {state}. Decide on that.",
            outcome=outcome,
        )


def _is_in_time(end_ms: int, search: Search) -> bool:
    return search.start_ms <= end_ms and (search.end_ms is None or end_ms < search.end_ms)


def _ambiguous(meant: Sequence[RecordedEvent], *, is_by_id: bool) -> Refused:
    names = "; ".join(map(_describe, meant[:_NAMED_MAX]))
    more = "; …" if len(meant) > _NAMED_MAX else ""
    way = "Name one by its place, or narrow" if is_by_id else "Name it by its event id, or narrow"
    return Refused(
        Reason.CORRECTION_REFUSED,
        f"Several events are meant: {names}{more}. {way} start_time and end_time.",
    )


def _describe(recorded: RecordedEvent) -> str:
    of, ended = recorded.reported, to_iso(recorded.event.end_ms)
    if not of.producer:
        return f"one of a call, ended {ended}"
    return f"producer {of.producer}, batch {of.sequence}, index {of.index}, ended {ended}"


def _to_event(
    connection: Connection, segment: Segment, row: int, *, known: dict[int, Dimensions]
) -> CorrectableEvent:
    number = int(segment.columns["dimension"][row])
    if number not in known:
        known[number] = _dimensions(connection, number)
    extra = {name: int(segment.column(name)[row]) for name in DEFAULTS}
    event_id = segment.event_ids[row * EVENT_ID_BYTES : (row + 1) * EVENT_ID_BYTES]
    return CorrectableEvent(
        dimensions=known[number],
        end_ms=int(segment.columns["end_ms"][row]),
        tokens={number: int(it[row]) for number, it in segment.tokens.items() if it[row]},
        extra={name: value for name, value in extra.items() if value != DEFAULTS[name]},
        event_id=event_id if any(event_id) else b"",
        request_id=segment.request_ids[row] if segment.request_ids else "",
    )


def _dimensions(connection: Connection, dimension_id: int) -> Dimensions:
    statement = (
        select(
            dimensions.c.account_id,
            skus.c.model,
            skus.c.served_model,
            skus.c.tier,
            skus.c.mode,
            dimensions.c.pool,
            skus.c.region,
        )
        .join(skus, skus.c.sku_id == dimensions.c.sku_id)
        .where(dimensions.c.dimension_id == dimension_id)
    )
    account_id, model, served_model, tier, mode, pool, region = connection.execute(statement).one()
    return Dimensions(account_id, model, served_model, tier, mode, pool, region)
