"""What a batch claims whose requests others may report as well."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from meter.domain.event import Claim, Claims, EventBatch, Reports
from meter.domain.limits import EVENT_ID_BYTES
from meter.sources.identity import event_key, request_event_id
from meter.sources.observation import Source, rank


def with_request_ids(batch: EventBatch) -> EventBatch:
    """Return the batch with the event ids by which its requests are found in the journal.

    An event without a request id keeps its own.
    """
    if batch.request_ids is None:
        return batch
    attempts = batch.column("attempt").tolist()
    own = batch.event_ids
    ids = b"".join(
        request_event_id(request_id, attempt=attempts[place])
        if request_id
        else (bytes(EVENT_ID_BYTES) if own is None else own[place].tobytes())
        for place, request_id in enumerate(batch.request_ids)
    )
    return replace(batch, event_ids=np.frombuffer(ids, np.uint8).reshape(-1, EVENT_ID_BYTES))


def claim_reports(
    batch: EventBatch,
    *,
    account_id: str,
    source: Source,
    profile: str,
    report_keys: Sequence[bytes],
    choices: Sequence[bool],
    indexes: Sequence[int],
    payload: Callable[[int], bytes],
    apart: Callable[[int], bytes],
    claims_alone: bool,
) -> Claims:
    """Return the claims of a batch's events, which have their ids of `with_request_ids`.

    `report_keys`, `choices` and `indexes` have an entry for each event. `claims_alone` lets events
    without a request id claim their own id; else they claim nothing and are counted. `apart` is
    that of `Reports`.
    """
    ids = b"" if batch.event_ids is None else batch.event_ids.tobytes()
    texts = batch.request_ids or [""] * len(batch)
    keys = [
        event_key(account_id, event_id=ids[EVENT_ID_BYTES * at : EVENT_ID_BYTES * (at + 1)])
        if claims_alone or text
        else b""
        for at, text in enumerate(texts)
    ]
    hashes, token_counts = _billed(batch)
    ranks = {quality: rank(source, quality=quality) for quality in (1, 2, 3)}
    claims = [
        Claim(key, source, ranks[quality], billed, count, is_choice)
        for key, quality, billed, count, is_choice in zip(
            report_keys,
            batch.column("quality").tolist(),
            hashes,
            token_counts,
            choices,
            strict=True,
        )
    ]
    return Claims(
        keys=keys,
        hashes=(),
        indexes=indexes,
        payload=payload,
        reports=Reports(
            source=source, profile=profile, claims=claims, choices=choices, apart=apart
        ),
    )


def _billed(batch: EventBatch) -> tuple[list[bytes], list[int]]:
    """Return a hash of what is billed by each event, and how many tokens it has."""
    numbers = sorted(batch.tokens)
    counts = [batch.tokens[number].tolist() for number in numbers]
    totals = np.zeros(len(batch), np.int64)
    for number in numbers:
        totals += batch.tokens[number]
    words_of = batch.table.words
    hashes = []
    for place, handle in enumerate(batch.dimension.tolist()):
        said = words_of(handle)
        for number, column in zip(numbers, counts, strict=True):
            count = column[place]
            if count:
                said += f"\0{number}:{count}"
        hashes.append(hashlib.blake2b(said.encode(), digest_size=EVENT_ID_BYTES).digest())
    return hashes, totals.tolist()
