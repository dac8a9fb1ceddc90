"""Batches as no client of ours would send them."""

import random
import time
from typing import Any

from tests.faults.raw import chunks, raw_producer
from tests.faults.row import Seen, row
from tests.faults.site import Site
from tokenworks.meter.v1.meter_service_pb2 import StreamUsageRequest

_BATCHES = 40
_FUTURE_MS = 3_600_000


@row(
    "batches-duplicated",
    fault="each batch arrives three times in a row, and all of them once more at the end",
    how="a producer written by hand repeats its bytes under their numbers",
    expected="repetitions are acknowledged and count nothing",
)
def batches_duplicated(site: Site) -> Seen:
    """Repeat everything."""
    site.start_fleet()
    producer = raw_producer(site, "raw")
    made = [producer.batch() for _ in chunks(site, count=_BATCHES)]
    answers = producer.exchange([message for _, message in made for _ in range(3)])
    again = producer.exchange([message for _, message in made[-16:]])
    # An ack is of all batches up to its number.
    last = made[-1][0]
    repeated = 2 * len(made) if max(answers.acknowledged, default=0) == last else 0
    repeated += len(made[-16:]) if max(again.acknowledged, default=0) == last else 0
    producer.deliver(made)
    return Seen(count=repeated, what="repeated batches acknowledged")


@row(
    "batches-reordered",
    fault="batches arrive in any order",
    how="a producer written by hand shuffles each sixteen; then it goes back as it is told",
    expected="a hole is answered with the number that is expected; counted once",
)
def batches_reordered(site: Site) -> Seen:
    """Shuffle them."""
    site.start_fleet()
    producer = raw_producer(site, "raw")
    generator = random.Random(1)
    holes = 0
    for _ in chunks(site, count=5):
        made = [producer.batch() for _ in range(16)]
        shuffled = [message for _, message in made]
        generator.shuffle(shuffled)
        holes += max(len(producer.exchange(shuffled).opened) - 1, 0)
        producer.deliver(made)
    return Seen(count=holes, what="holes answered with the number to go back to")


@row(
    "batches-corrupted",
    fault="bits of a batch are flipped on the way",
    how="cut short, a length changed, framing broken, a count changed; then the right bytes",
    expected="unreadable bytes are refused; a count that denies its checksum is kept, not counted",
)
def batches_corrupted(site: Site) -> Seen:
    """Break bytes in ways that no checksum of TCP would have let through."""
    site.start_fleet()
    producer = raw_producer(site, "raw")
    refused = 0
    for number in chunks(site, count=_BATCHES):
        made = producer.batch()
        answers = producer.exchange([_broken(made[1], number)])
        refused += answers.failure is not None or answers.set_aside > 0
        producer.deliver([made])
    flipped = len(range(3, _BATCHES, 4))
    return Seen(
        count=refused,
        what=f"broken messages, {flipped} of them with a count that denied its checksum",
        set_aside_min=flipped,
        set_aside_max=flipped,
        wrong="" if refused == _BATCHES else f"{_BATCHES - refused} were taken as they were",
    )


@row(
    "batches-rewritten",
    fault="the same number comes again with other bytes",
    how="a producer written by hand sends a batch, and then other events under its number",
    expected="the first ones count; the others are kept in quarantine, each of them",
)
def batches_rewritten(site: Site) -> Seen:
    """Use numbers twice."""
    site.start_fleet()
    producer = raw_producer(site, "raw")
    for _ in chunks(site, count=10):
        made = producer.batch()
        producer.deliver([made])
        producer.next_sequence -= 1
        producer.exchange([producer.batch()[1]])
    kept = site.database.question("SELECT count(*) FROM quarantine WHERE event_index < 0")
    return Seen(
        count=kept, what="changed batches kept", set_aside_min=10 * 50, set_aside_max=10 * 50
    )


@row(
    "events-poisoned",
    fault="single events of a batch are wrong",
    how="unknown tier, unknown account, 2^31 tokens, a time in the future, among right ones",
    expected="each wrong one is in quarantine, the others of its batch count",
)
def events_poisoned(site: Site) -> Seen:
    """Mix bad events into good batches."""
    site.start_fleet()
    producer = raw_producer(site, "raw")
    made = [producer.batch(change=_poison) for _ in chunks(site, count=_BATCHES)]
    answers = producer.deliver(made)
    return Seen(
        count=answers.set_aside,
        what="events set aside",
        set_aside_min=4 * _BATCHES,
        set_aside_max=4 * _BATCHES,
    )


def _poison(events: list[dict[str, Any]]) -> None:
    events[3]["tier"] = "platinum"
    events[9]["account"] = "nobody"
    events[17]["classes"] = {"input": 2**31, "cache_read": 0, "output": 1}
    events[31]["end_time_ms"] = time.time_ns() // 1_000_000 + _FUTURE_MS


def _broken(message: bytes, number: int) -> bytes:
    """Return the message with damage that its framing shows."""
    kind = number % 4
    if kind == 0:
        return message[: len(message) * 2 // 3]
    if kind == 3:
        # A bit of one count: readable, but no longer what the checksum says.
        changed = StreamUsageRequest.FromString(message)
        changed.batch.rows.events[7].tokens[0].count ^= 0x40
        return changed.SerializeToString()
    broken = bytearray(message)
    if kind == 1:
        # The length of the batch: more than there is.
        broken[1] ^= 0x10
    else:
        # Kinds of fields that do not exist.
        for at in range(8, len(broken), 97):
            broken[at] |= 0x07
    return bytes(broken)
