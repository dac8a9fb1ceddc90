"""Events of a source as submissions: by call, and by a stream's batches."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from meter.domain.event import Claims, EventBatch, Origin, SetAside, Uint8Array
from meter.domain.limits import EVENT_ID_BYTES, REQUEST_ID_CHARS_MAX
from meter.domain.outcome import FIRST_QUARANTINED
from meter.journal.commit import Release, Submission
from meter.sources.identity import (
    choice_key,
    distinct_id,
    is_report_key,
    observer_of,
    report_key,
    request_event_id,
)
from meter.sources.observation import Observation, Source
from meter.sources.originals import Original, pack
from meter.wire.report_claims import claim_reports, with_request_ids
from meter.wire.translate import to_event
from tokenworks.client.usage_objects import unpack

# By what table events are read that came as events.
EVENTS_PROFILE: Final = "events/1"
# What may say who reports: nobody, or a source.
SOURCES: Final[frozenset[int]] = frozenset({0, *Source})
BYTES_PER_EVENT: Final = 128


def report_submission(
    origin: Origin,
    *,
    batch: EventBatch,
    outcomes: Uint8Array,
    source: Source,
    profile: str,
    report_keys: Sequence[bytes],
    choices: Sequence[bool],
    originals: Sequence[Mapping[str, object]] = (),
    releases: Release | None = None,
) -> Submission:
    """Return checked events as a submission that claims their requests."""
    keep = outcomes < FIRST_QUARANTINED
    indexes = np.flatnonzero(keep).tolist()
    named = with_request_ids(batch)
    kept = named if keep.all() else named.take(keep)

    def payload(index: int) -> bytes:
        return to_event(named, index).SerializeToString()

    def apart(index: int) -> bytes:
        return _apart(batch, index, report_key=report_keys[index])

    # With its own id: released, it is the same report as ever.
    aside = [
        SetAside(
            index=index,
            outcome=int(outcomes[index]),
            payload=to_event(batch, index).SerializeToString(),
            source=source,
            is_choice=choices[index],
        )
        for index in np.flatnonzero(~keep).tolist()
    ]
    claims = claim_reports(
        kept,
        account_id=origin.account_id,
        source=source,
        profile=profile,
        report_keys=[report_keys[index] for index in indexes],
        choices=[choices[index] for index in indexes],
        indexes=indexes,
        payload=payload,
        apart=apart,
        claims_alone=True,
    )
    body = b""
    if originals:
        # Of what is set aside as well: it may be released.
        claims, body = _with_originals(claims, named, report_keys, originals=originals)
    return Submission(
        origin=origin,
        batch=kept,
        set_aside=aside,
        claims=claims,
        releases=releases,
        size_bytes=4 * BYTES_PER_EVENT * len(batch) + len(body),
    )


def observation_keys(
    observations: Sequence[Observation], *, source: Source, profile: str
) -> list[bytes]:
    """Return the keys of what a source saw, read by a profile."""
    observer = observer_of(source, profile=profile)
    return [
        choice_key(
            observer_of(source, profile=profile, turn=it.turn) if it.turn else observer,
            report_id=it.report_id.encode(errors="replace"),
            arrival_ns=it.arrival_ns,
        )
        if it.is_choice
        else report_key(observer, report_id=it.report_id.encode(errors="replace"))
        for it in observations
    ]


def event_report_key(source: Source, *, event_id: bytes, is_kept: bool) -> bytes:
    """Return the key of an event that a source reports by a call; `is_kept` if it was set aside.

    What a source saw has been kept with its key for an id.
    """
    if is_kept and is_report_key(event_id):
        return event_id
    return report_key(observer_of(source, profile=EVENTS_PROFILE), report_id=event_id)


def place_key(source: Source, *, origin: Origin, index: int) -> bytes:
    """Return the key of a report that has no id but its place in what its producer sends."""
    place = f"{origin.account_id}\0{origin.producer}\0{origin.sequence}\0{index}"
    return report_key(observer_of(source, profile=EVENTS_PROFILE), report_id=place.encode())


def claim_stream(
    batch: EventBatch,
    *,
    origin: Origin,
    source: Source,
    indexes: Sequence[int],
    first_index: int = 0,
    originals: Sequence[Original] = (),
) -> tuple[EventBatch, Claims]:
    """Return a stream's events with the ids of their requests, and what those claim.

    `indexes` are the places in the batch of those that are counted; its first event has the place
    `first_index` in the batch as it was sent. Events without a request id are counted as ever.
    `originals` are of `stream_originals`.
    """
    named = with_request_ids(batch)
    rows = {index: row for row, index in enumerate(indexes)}
    keys = [place_key(source, origin=origin, index=first_index + index) for index in indexes]

    def payload(index: int) -> bytes:
        return to_event(named, rows[index]).SerializeToString()

    def apart(index: int) -> bytes:
        return _apart(batch, rows[index], report_key=keys[rows[index]])

    claims = claim_reports(
        named,
        account_id=origin.account_id,
        source=source,
        profile=EVENTS_PROFILE,
        report_keys=keys,
        choices=[False] * len(named),
        indexes=indexes,
        payload=payload,
        apart=apart,
        claims_alone=False,
    )
    if originals:
        assert claims.reports is not None
        body, count = pack(originals)
        reports = replace(claims.reports, originals=body, original_count=count)
        claims = replace(claims, reports=reports)
    return named, claims


def stream_originals(
    packed: bytes, *, batch: EventBatch, origin: Origin, source: Source
) -> list[Original]:
    """Return the usage objects of a stream's batch, those that are set aside included.

    Without a request id nobody could ask for one: such are not kept, nor is what cannot be read.
    """
    texts = batch.request_ids
    if not packed or texts is None:
        return []
    try:
        usages = unpack(packed, count=len(batch))
    except ValueError:
        return []
    attempts = batch.column("attempt")
    return [
        Original(
            place_key(source, origin=origin, index=place),
            request_event_id(texts[place], attempt=int(attempts[place])),
            usage,
        )
        for place, usage in usages.items()
        if texts[place]
    ]


def _with_originals(
    claims: Claims,
    named: EventBatch,
    report_keys: Sequence[bytes],
    *,
    originals: Sequence[Mapping[str, object]],
) -> tuple[Claims, bytes]:
    """Return the claims with the usage objects as they came, and those alone."""
    reports = claims.reports
    assert reports is not None
    assert named.event_ids is not None
    ids = named.event_ids.tobytes()
    body, count = pack(
        Original(
            key,
            ids[EVENT_ID_BYTES * place : EVENT_ID_BYTES * (place + 1)],
            originals[place],
        )
        for place, key in enumerate(report_keys)
        if originals[place]
    )
    return replace(claims, reports=replace(reports, originals=body, original_count=count)), body


def _apart(batch: EventBatch, place: int, *, report_key: bytes) -> bytes:
    """Return an event of a further call of its request, as it is kept: of a request of its own."""
    event = to_event(batch, place)
    event.request_id = distinct_id(
        event.request_id, report=report_key, chars_max=REQUEST_ID_CHARS_MAX
    )
    return event.SerializeToString()
