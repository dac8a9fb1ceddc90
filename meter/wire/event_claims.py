"""What events that are counted by their ids claim: a key by the id, and a hash of the content."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np

from meter.domain.event import REPORTED, BoolArray, Claims, EventBatch, Origin
from meter.domain.limits import EVENT_ID_BYTES
from meter.sources.identity import event_keys

_HASH_BYTES: Final = 16


def claim_events(
    events: Sequence[bytes],
    kept: EventBatch,
    origin: Origin,
    *,
    keep: BoolArray,
    places: Sequence[int] | None,
) -> Claims:
    """Return the claims of those serialized events of a call that are kept, all of which have ids.

    `places` as in `Claims`.
    """
    assert kept.event_ids is not None or not len(kept), "what is kept has an id"
    return Claims(
        keys=event_keys(origin.account_id, event_ids=ids_of(kept)),
        hashes=content_hashes(kept),
        indexes=np.flatnonzero(keep).tolist(),
        payload=lambda index: events[index],
        places=places,
    )


def ids_of(batch: EventBatch) -> list[bytes]:
    """Return each event's 16 bytes, zeros where it has no id."""
    if batch.event_ids is None:
        return [bytes(EVENT_ID_BYTES)] * len(batch)
    ids: list[bytes] = batch.event_ids.view(f"V{EVENT_ID_BYTES}").ravel().tolist()
    return ids


def content_hashes(batch: EventBatch) -> list[bytes]:
    """Return 16 bytes for each event's content, equal for events that mean the same.

    Hashed is what `repr` has of the dimensions, the numbers, a pair for each class of tokens that
    is not 0, and the request's id, in one tuple: what was claimed before must be known again.
    """
    columns: list[Iterable[Any]] = [
        batch.table.said(batch.dimension.tolist()),
        batch.end_ms.tolist(),
    ]
    form = b"(%b, %d"
    for name, default in REPORTED.items():
        if name in batch.extra:
            form += b", %d"
            columns.append(batch.extra[name].tolist())
        else:
            form += b", %d" % default
    for number, counts in sorted(batch.tokens.items()):
        if counts.all():
            form += b", (%d, %%d)" % number
            columns.append(counts.tolist())
        else:
            form += b"%b"
            pair = b", (%d, %%d)" % number
            columns.append([pair % count if count else b"" for count in counts.tolist()])
    if batch.request_ids is None:
        form += b", '')"
    else:
        form += b", %b)"
        columns.append([repr(it).encode() for it in batch.request_ids])
    said = map(form.__mod__, zip(*columns, strict=True))
    return [hashlib.blake2b(it, digest_size=_HASH_BYTES).digest() for it in said]
