"""The bytes of a segment: what is written is read, and damage does not spread."""

from hypothesis import given, settings
from hypothesis.strategies import binary, integers, lists, tuples

from tokenworks.client.columns import SealedBatch
from tokenworks.client.spool.manifest import segment_first, segment_name
from tokenworks.client.spool.records import (
    HEADER_SIZE,
    Header,
    Kind,
    encode_batch,
    encode_header,
    encode_progress,
    encode_released,
    read_batch,
    read_batch_head,
    read_header,
    read_number,
    read_progress_payload,
    read_settles,
    seed_of,
    walk,
)

NUMBERS = integers(0, 2**64 - 1)
SALTS = integers(0, 2**32 - 1)


@given(first=NUMBERS, salt=SALTS)
def test_header__comes_back(first: int, salt: int) -> None:
    """A header says what it was made of, and its name the number that it begins with."""
    data = encode_header(first, salt=salt)
    assert len(data) == HEADER_SIZE
    assert read_header(data) == Header(version=1, salt=salt, first=first)
    assert segment_first(segment_name(first)) == first


@given(
    payload=binary(max_size=300),
    local=NUMBERS,
    event_count=integers(0, 10_000),
    settles=lists(NUMBERS, max_size=5),
    salt=SALTS,
)
def test_batch__comes_back(
    payload: bytes, local: int, event_count: int, settles: list[int], salt: int
) -> None:
    """A batch's record gives its bytes, its counts and the reports that it settles."""
    seed = seed_of(local, salt=salt)
    batch = SealedBatch(payload=payload, event_count=event_count)
    record = encode_batch(
        batch, local=local, total_event_count=event_count, settles=settles, seed=seed
    )
    assert read_batch(record, local=local, seed=seed) == batch
    assert read_batch(record, local=(local + 1) % 2**64, seed=seed) is None
    assert read_batch(record[:-1], local=local, seed=seed) is None
    data = bytes(HEADER_SIZE) + record
    (stretch,) = walk(data, seed=seed)
    assert (stretch.kind, stretch.is_whole) == (Kind.BATCH, True)
    head = read_batch_head(data, stretch.body)
    assert head == (local, event_count, event_count, len(settles))
    assert list(read_settles(data, stretch.body)) == settles


@given(key=NUMBERS, payload=binary(max_size=60), salt=SALTS)
def test_progress__comes_back(key: int, payload: bytes, salt: int) -> None:
    """A running report's record gives its key and content; without content it is the end."""
    data = bytes(HEADER_SIZE) + encode_progress(key, payload=payload, seed=salt)
    (stretch,) = walk(data, seed=salt)
    assert stretch.kind == (Kind.PROGRESS if payload else Kind.ENDED)
    assert read_number(data, stretch.body) == key
    assert read_progress_payload(data, stretch) == payload


@settings(max_examples=200)
@given(
    contents=lists(tuples(NUMBERS, binary(min_size=1, max_size=40)), min_size=1, max_size=6),
    noise=binary(max_size=60),
    place=integers(0, 5),
)
def test_walk__noise_between_records(
    contents: list[tuple[int, bytes]], noise: bytes, place: int
) -> None:
    """Bytes that are no record are passed over, and every record around them is found."""
    seed = seed_of(1, salt=5)
    records = [encode_progress(key, payload=payload, seed=seed) for key, payload in contents]
    records.insert(min(place, len(records)), noise)
    data = encode_header(1, salt=5) + b"".join(records)
    found = [
        (read_number(data, stretch.body), read_progress_payload(data, stretch))
        for stretch in walk(data, seed=seed)
        if stretch.is_whole
    ]
    assert found == contents


def test_walk__records_of_another_segment() -> None:
    """A record that an older file left in a block is none here."""
    stale = encode_released(9, seed=seed_of(1, salt=5))
    data = encode_header(2, salt=5) + stale
    assert [stretch.is_whole for stretch in walk(data, seed=seed_of(2, salt=5))] == [False]
