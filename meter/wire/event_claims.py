"""What events that are counted by their ids claim: a key by the id, and a hash of the content."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np

from meter.domain.event import REPORTED, BoolArray, Claims, EventBatch, Origin
from meter.sources.identity import event_keys
from tokenworks.meter.v1 import usage_pb2

_HASH_BYTES: Final = 16


def claim_events(
    events: Sequence[usage_pb2.UsageEvent],
    kept: EventBatch,
    origin: Origin,
    *,
    keep: BoolArray,
    places: Sequence[int] | None,
) -> Claims:
    """Return the claims of those events of a call that are kept, all of which have an id.

    `places` as in `Claims`.
    """
    assert kept.event_ids is not None or not len(kept), "what is kept has an id"
    ids = [] if kept.event_ids is None else kept.event_ids.view("V16").ravel().tolist()
    return Claims(
        keys=event_keys(origin.account_id, event_ids=ids),
        hashes=content_hashes(kept),
        indexes=np.flatnonzero(keep).tolist(),
        payload=lambda index: events[index].SerializeToString(),
        places=places,
    )


def content_hashes(batch: EventBatch) -> list[bytes]:
    """Return 16 bytes for each event's content, equal for events that mean the same.

    Hashed is what `repr` has of the dimensions, the numbers, a pair for each class of tokens that
    is not 0, and the request's id, in one tuple: what was claimed before must be known again.
    """
    table = batch.table
    columns: list[Iterable[Any]] = [
        map(table.said, batch.dimension.tolist()),
        batch.end_ms.tolist(),
    ]
    form = "(%s, %d"
    for name, default in REPORTED.items():
        if name in batch.extra:
            form += ", %d"
            columns.append(batch.extra[name].tolist())
        else:
            form += f", {default}"
    for number, counts in sorted(batch.tokens.items()):
        form += "%s"
        columns.append([f", ({number}, {count})" if count else "" for count in counts.tolist()])
    form += ", %r)"
    columns.append(batch.request_ids or [""] * len(batch))
    said = map(form.__mod__, zip(*columns, strict=True))
    return [hashlib.blake2b(it.encode(), digest_size=_HASH_BYTES).digest() for it in said]
