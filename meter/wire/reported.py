"""Events of a source as submissions: by call, and by a stream's batches."""

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from meter.domain.event import Claims, EventBatch, Origin, SetAside, Uint8Array
from meter.domain.limits import EVENT_ID_BYTES
from meter.domain.outcome import FIRST_QUARANTINED
from meter.journal.commit import Release, Submission
from meter.sources.identity import report_key, request_event_id
from meter.sources.observation import Source
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
    report_ids: Sequence[bytes],
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

    aside = []
    for index in np.flatnonzero(~keep).tolist():
        event = to_event(batch, index)
        # Released, it is the same report as ever.
        event.event_id = str(uuid.UUID(bytes=report_ids[index]))
        aside.append(
            SetAside(
                index=index,
                outcome=int(outcomes[index]),
                payload=event.SerializeToString(),
                source=source,
                is_choice=choices[index],
            )
        )
    keys = [report_key(source, report_id=it) for it in report_ids]
    claims = claim_reports(
        kept,
        account_id=origin.account_id,
        source=source,
        profile=profile,
        report_keys=[keys[index] for index in indexes],
        choices=[choices[index] for index in indexes],
        indexes=indexes,
        payload=payload,
        claims_alone=True,
    )
    body = b""
    if originals:
        # Of what is set aside as well: it may be released.
        claims, body = _with_originals(claims, named, keys, originals=originals)
    return Submission(
        origin=origin,
        batch=kept,
        set_aside=aside,
        claims=claims,
        releases=releases,
        size_bytes=4 * BYTES_PER_EVENT * len(batch) + len(body),
    )


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

    def payload(index: int) -> bytes:
        return to_event(named, rows[index]).SerializeToString()

    claims = claim_reports(
        named,
        account_id=origin.account_id,
        source=source,
        profile=EVENTS_PROFILE,
        report_keys=[
            report_key(source, report_id=_place_id(origin, first_index + index))
            for index in indexes
        ],
        choices=[False] * len(named),
        indexes=indexes,
        payload=payload,
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
            report_key(source, report_id=_place_id(origin, place)),
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


def _place_id(origin: Origin, index: int) -> bytes:
    """Return what stands for a report's id: its place in what its producer sends."""
    place = f"{origin.account_id}\0{origin.producer}\0{origin.sequence}\0{index}"
    return hashlib.blake2b(place.encode(), digest_size=EVENT_ID_BYTES).digest()
