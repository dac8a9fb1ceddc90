"""How a correction comes into the journal, whoever has decided it: a person, or the arbiter."""

from dataclasses import replace

from meter.arbiter import Settlement
from meter.corrections import NewCorrection
from meter.domain.event import Origin
from meter.wire.stream import StreamParts


async def append_correction(
    parts: StreamParts,
    wanted: NewCorrection,
    *,
    account_id: str,
    settles: Settlement | None = None,
) -> int:
    """Write a correction and return its id; 0 where another one of the same row came first.

    `account_id` owns the API key that reported the event; what it `settles` is written in the same
    transaction. Raises Overloaded and Unavailable.
    """
    origin = Origin(account_id=account_id, key_id=wanted.key_id, received_ms=parts.clock.now_ms())
    submission = replace(parts.intake.correction(wanted, origin), settles=settles)
    result = await parts.writer.submit(submission)
    if result.correction_id:
        kind = "void" if wanted.after is None else "replace"
        parts.metrics.corrections.labels(kind).inc()
    return result.correction_id
