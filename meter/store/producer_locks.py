"""Producers as a commit has them: locked with their states, and saved with what was recorded."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from sqlalchemy import Row

from meter.domain.event import ProducerKey
from meter.journal.protocol import ProducerState
from meter.runtime.trips import (
    BYTEA,
    Statement,
    Trips,
    from_int,
    to_array,
    to_number_array,
    to_text_array,
)
from meter.store.producer_list import CLOCK

# In arrays: a list of so many pairs is another statement for each number of them.
_LOCK: Final = Statement(
    name="tokenworks_lock",
    text="""
    SELECT n.place, p.instance, p.sequence, p.digests, p.announced_sequence
    FROM producers p
    JOIN unnest($1::text[], $2::text[]) WITH ORDINALITY AS n (account_id, producer, place)
        USING (account_id, producer)
    ORDER BY p.account_id, p.producer FOR UPDATE OF p SKIP LOCKED
    """,
)
_SAVE: Final = Statement(
    name="tokenworks_save",
    text=f"""
    UPDATE producers p SET sequence = n.sequence, digests = n.digests,
        seen_time = greatest(p.seen_time, {CLOCK})
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bytea[])
        AS n (account_id, producer, sequence, digests)
    WHERE p.account_id = n.account_id AND p.producer = n.producer
    """,  # noqa: S608
)


def lock_producers(trips: Trips, keys: Iterable[ProducerKey]) -> dict[ProducerKey, ProducerState]:
    """Lock producers in sorted order and return their states.

    One that another server holds at this moment is left out, not waited for.
    """
    wanted = sorted(set(keys))
    if not wanted:
        return {}
    return {
        wanted[from_int(place) - 1]: ProducerState(
            instance, from_int(sequence), digests, from_int(announced)
        )
        for place, instance, sequence, digests, announced in trips.ask(_LOCK, *_to_arrays(wanted))
    }


def save_producers(trips: Trips, states: Mapping[ProducerKey, ProducerState]) -> None:
    """Write the states of locked producers, which were heard just now."""
    if not states:
        return
    trips.tell(
        _SAVE,
        *_to_arrays(states),
        to_number_array([state.sequence for state in states.values()]),
        to_array(BYTEA, [state.digests for state in states.values()]),
    )


def _to_arrays(keys: Iterable[ProducerKey]) -> tuple[str, str]:
    # Ids of accounts are made here, and a producer that has a name with quotes was not opened.
    accounts, names = zip(*keys, strict=True)
    return to_text_array(accounts), to_text_array(names)


def to_state(row: Row[Any], *, announced_sequence: int = 0) -> ProducerState:
    """Return the state of a row; `announced_sequence` is what was heard and may not be in it."""
    return ProducerState(
        instance=bytes(row.instance),
        sequence=row.sequence,
        digests=bytes(row.digests),
        announced_sequence=max(row.announced_sequence, announced_sequence),
    )
