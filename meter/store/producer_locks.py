"""Producers as a commit has them: locked with their states, and saved with what was recorded."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from sqlalchemy import Connection, Row, text

from meter.journal.protocol import ProducerState
from meter.store.producer_list import CLOCK

ProducerKey = tuple[str, str]
_SAVE: Final = text(
    f"""
    UPDATE producers p SET sequence = n.sequence, digests = n.digests,
        seen_time = greatest(p.seen_time, {CLOCK})
    FROM unnest(CAST(:accounts AS text[]), CAST(:names AS text[]),
        CAST(:sequences AS bigint[]), CAST(:digests AS bytea[]))
        AS n (account_id, producer, sequence, digests)
    WHERE p.account_id = n.account_id AND p.producer = n.producer
    """  # noqa: S608
)
# In arrays: a list of so many pairs is another statement for each number of them.
_LOCK: Final = text(
    """
    SELECT p.account_id, p.producer, p.instance, p.sequence, p.digests, p.announced_sequence
    FROM producers p
    JOIN unnest(CAST(:accounts AS text[]), CAST(:names AS text[])) AS n (account_id, producer)
        USING (account_id, producer)
    ORDER BY 1, 2 FOR UPDATE OF p SKIP LOCKED
    """
)


def lock_producers(
    connection: Connection, keys: Iterable[ProducerKey]
) -> dict[ProducerKey, ProducerState]:
    """Lock producers in sorted order and return their states.

    One that another server holds at this moment is left out, not waited for.
    """
    wanted = sorted(set(keys))
    if not wanted:
        return {}
    accounts, names = map(list, zip(*wanted, strict=True))
    rows = connection.execute(_LOCK, {"accounts": accounts, "names": names})
    return {(row.account_id, row.producer): to_state(row) for row in rows}


def save_producers(connection: Connection, states: Mapping[ProducerKey, ProducerState]) -> None:
    """Write the states of locked producers, which were heard just now."""
    if not states:
        return
    connection.execute(
        _SAVE,
        {
            "accounts": [account_id for account_id, _ in states],
            "names": [name for _, name in states],
            "sequences": [state.sequence for state in states.values()],
            "digests": [state.digests for state in states.values()],
        },
    )


def to_state(row: Row[Any], *, announced_sequence: int = 0) -> ProducerState:
    """Return the state of a row; `announced_sequence` is what was heard and may not be in it."""
    return ProducerState(
        instance=bytes(row.instance),
        sequence=row.sequence,
        digests=bytes(row.digests),
        announced_sequence=max(row.announced_sequence, announced_sequence),
    )
