"""What an event claims: known again whoever claimed it, and by whichever reading."""

import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from meter.domain.event import REPORTED, EventBatch, Origin
from meter.sources.identity import event_key
from meter.wire.event_claims import claim_events, content_hashes
from meter.wire.event_ids import id_bytes
from meter.wire.translate import Translator
from tests.meter.test_translate import messages
from tokenworks.meter.v1 import usage_pb2

ORIGIN = Origin(account_id="acme", key_id="key_1", received_ms=0)


def hashed_one_by_one(batch: EventBatch) -> list[bytes]:
    """Return what servers of before have claimed with: a hash of the `repr` of one tuple."""
    found = []
    for place, handle in enumerate(batch.dimension.tolist()):
        content = (
            batch.table[handle],
            int(batch.end_ms[place]),
            *[int(batch.column(name)[place]) for name in REPORTED],
            *[(n, int(c[place])) for n, c in sorted(batch.tokens.items()) if c[place]],
            "" if batch.request_ids is None else batch.request_ids[place],
        )
        found.append(hashlib.blake2b(repr(content).encode(), digest_size=16).digest())
    return found


@given(found=st.lists(messages(has_id=False), max_size=6))
def test_content_hashes__are_those_of_before(found: list[usage_pb2.UsageEvent]) -> None:
    """An event that comes again after an upgrade is a duplicate, and no conflict."""
    batch, _ = Translator().from_rows(found)
    assert content_hashes(batch) == hashed_one_by_one(batch)


def test_content_hashes__of_events_that_differ() -> None:
    """A hash has all that an event says, and says the same of none that says another thing."""
    plain = usage_pb2.UsageEvent()
    plain.tokens.add(count=5).token_class = usage_pb2.TOKEN_CLASS_INPUT
    events = [plain]
    for name, value in {
        "duration_ms": 1,
        "finish": usage_pb2.FINISH_FAILED,
        "quality": usage_pb2.QUALITY_PARTIAL,
        "attempt": 2,
        "reported_input_count": 0,
        "reported_output_count": 0,
        "request_id": "%s",
    }.items():
        other = usage_pb2.UsageEvent()
        other.CopyFrom(plain)
        setattr(other, name, value)
        events.append(other)
    for token_class, count in ((1, 6), (2, 5), (7, 1)):
        other = usage_pb2.UsageEvent()
        other.CopyFrom(plain)
        other.tokens.add(count=count).token_class = token_class  # type: ignore[assignment]
        events.append(other)
    events.append(usage_pb2.UsageEvent(dimensions=usage_pb2.Dimensions(model="%d")))
    events[-1].tokens.add(count=5).token_class = usage_pb2.TOKEN_CLASS_INPUT
    batch, _ = Translator().from_rows(events)
    hashes = content_hashes(batch)
    assert len(set(hashes)) == len(events)
    assert hashes == hashed_one_by_one(batch)


def test_claim_events__keys() -> None:
    """Events are claimed by the ids of those that are kept, in an account's name space."""
    ids = ["e1", "", "00112233-4455-6677-8899-aabbccddeeff", "ff" * 16]
    events = [usage_pb2.UsageEvent(event_id=each) for each in ids]
    batch, _ = Translator().from_rows(events)
    keep = np.array([True, False, True, True])
    raw = [event.SerializeToString() for event in events]
    claims = claim_events(raw, batch.take(keep), ORIGIN, keep=keep, places=None)
    kept = [each for each in ids if each]
    assert claims.keys == [event_key("acme", event_id=id_bytes(each)) for each in kept]
    assert list(claims.indexes) == [0, 2, 3]
    assert usage_pb2.UsageEvent.FromString(claims.payload(2)).event_id == ids[2]
