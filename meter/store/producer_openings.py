"""Streams open and end in Postgres: many producers by the same few statements.

A group takes no row that somebody holds, so it waits for nobody while it holds rows itself; new
rows, the only ones that it may wait for, are made in the order of their keys. So servers that do
this at once, commits and presences never stand in a ring.
"""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, TextClause, text

from meter.domain.event import Origin
from meter.domain.limits import INSTANCE_BYTES
from meter.journal.protocol import ProducerState
from meter.producers import Opening, Standing
from meter.store.producer_list import CLOCK
from meter.store.producer_locks import to_state

_NAMES: Final = "CAST(:accounts AS text[]), CAST(:names AS text[])"
_INSTANCES: Final = f"{_NAMES}, CAST(:instances AS bytea[])"
# No process draws 16 zero bytes: whoever opens follows nobody. Rows that are there are left out, or
# the insert would wait for whoever is just changing one.
_ADD: Final = text(
    f"""
    INSERT INTO producers (account_id, producer, instance, sequence, digests, state,
        announced_sequence, key_id, create_time)
    SELECT n.account_id, n.producer, decode(repeat('00', {INSTANCE_BYTES}), 'hex'), 0, '',
        {Standing.ACTIVE}, 0, '', {CLOCK}
    FROM unnest({_NAMES}) AS n (account_id, producer)
    WHERE NOT EXISTS (SELECT FROM producers p
        WHERE p.account_id = n.account_id AND p.producer = n.producer)
    ORDER BY 1, 2 ON CONFLICT DO NOTHING
    """  # noqa: S608
)
_LOCK: Final = f"""
    SELECT p.account_id, p.producer, p.instance, p.sequence, p.digests, p.announced_sequence,
        p.seen_time
    FROM producers p JOIN unnest({_NAMES}) AS n (account_id, producer) USING (account_id, producer)
    ORDER BY 1, 2 FOR UPDATE OF p
    """  # noqa: S608
_MEET: Final = text(
    f"""
    INSERT INTO producer_instances (account_id, producer, instance, open_time)
    SELECT n.account_id, n.producer, n.instance, {CLOCK}
    FROM unnest({_INSTANCES}) AS n (account_id, producer, instance) ORDER BY 1, 2
    ON CONFLICT DO NOTHING RETURNING account_id, producer
    """  # noqa: S608
)
_MISS: Final = text(
    f"""
    INSERT INTO producer_gaps (account_id, producer, first_sequence, last_sequence, found_time)
    SELECT n.account_id, n.producer, n.first, n.last, {CLOCK}
    FROM unnest({_NAMES}, CAST(:firsts AS bigint[]), CAST(:lasts AS bigint[]))
        AS n (account_id, producer, first, last) ORDER BY 1, 2
    ON CONFLICT DO NOTHING
    """  # noqa: S608
)
_MOVE: Final = text(
    f"""
    UPDATE producers p SET instance = n.instance, sequence = n.sequence, digests = n.digests,
        announced_sequence = n.announced, state = {Standing.ACTIVE}, key_id = n.key_id,
        seen_time = greatest(p.seen_time, {CLOCK})
    FROM unnest({_INSTANCES}, CAST(:sequences AS bigint[]), CAST(:digests AS bytea[]),
            CAST(:announced AS bigint[]), CAST(:keys AS text[]))
        AS n (account_id, producer, instance, sequence, digests, announced, key_id)
    WHERE p.account_id = n.account_id AND p.producer = n.producer
    """  # noqa: S608
)
# Of a row that was waited for, the update sees the newest version, as the lock does.
_END: Final = f"""
    WITH told AS (
        SELECT * FROM unnest({_INSTANCES}) AS n (account_id, producer, instance)
    ), free AS MATERIALIZED (
        SELECT p.account_id, p.producer FROM producers p JOIN told USING (account_id, producer)
        ORDER BY 1, 2 FOR NO KEY UPDATE OF p {{patience}}
    ), ended AS (
        UPDATE producers p SET state = {Standing.RETIRED},
            seen_time = greatest(p.seen_time, {CLOCK})
        FROM told JOIN free USING (account_id, producer)
        WHERE p.account_id = told.account_id AND p.producer = told.producer
            AND p.instance = told.instance AND p.announced_sequence <= p.sequence
    )
    SELECT account_id, producer FROM free
    """  # noqa: S608
_LOCKS: Final[dict[bool, TextClause]] = {True: text(_LOCK), False: text(f"{_LOCK} SKIP LOCKED")}
_ENDS: Final[dict[bool, TextClause]] = {
    True: text(_END.format(patience="")),
    False: text(_END.format(patience="SKIP LOCKED")),
}


def open_all(
    connection: Connection, openings: Sequence[Opening], *, waits: bool
) -> Sequence[ProducerState | None]:
    """Open producers, each at most once, and return their states in order.

    None for one that is not there and may not be new, and, unless it `waits`, for one whose row
    somebody holds.
    """
    if new := [each.origin for each in openings if each.may_be_new]:
        connection.execute(_ADD, _names(new))
    rows: dict[tuple[str, str], Row[Any]] = {
        (row.account_id, row.producer): row
        for row in connection.execute(_LOCKS[waits], _names([each.origin for each in openings]))
    }
    held = [each for each in openings if each.origin.producer_key in rows]
    met = {
        (row.account_id, row.producer)
        for row in connection.execute(_MEET, _instances([each.origin for each in held]))
    }
    states: dict[tuple[str, str], ProducerState] = {}
    moves: list[tuple[Origin, ProducerState, ProducerState]] = []
    for each in held:
        origin, row = each.origin, rows[each.origin.producer_key]
        before = to_state(row, announced_sequence=each.announced_sequence)
        is_new, is_first = origin.producer_key in met, row.seen_time is None
        if not is_new and before.instance != origin.instance and not is_first:
            states[origin.producer_key] = before
            continue
        states[origin.producer_key] = after = before.opened(
            instance=origin.instance,
            first_sequence=each.first_sequence,
            missing_from=each.missing_from,
        )
        moves.append((origin, before, after))
    _record_gaps(connection, moves)
    _move(connection, moves)
    return [states.get(each.origin.producer_key) for each in openings]


def end_all(
    connection: Connection, origins: Sequence[Origin], *, waits: bool
) -> Sequence[bool | None]:
    """Retire those whose newest instance ends here without backlog; True for each, in order.

    None for one that is not there, and, unless it `waits`, for one whose row somebody holds.
    """
    rows = connection.execute(_ENDS[waits], _instances(origins))
    decided = {(row.account_id, row.producer) for row in rows}
    return [True if origin.producer_key in decided else None for origin in origins]


def _record_gaps(
    connection: Connection, moves: Sequence[tuple[Origin, ProducerState, ProducerState]]
) -> None:
    gaps = [it for it in moves if it[2].sequence > it[1].sequence]
    if gaps:
        spans = {
            "firsts": [before.sequence + 1 for _, before, _ in gaps],
            "lasts": [after.sequence for _, _, after in gaps],
        }
        connection.execute(_MISS, _names([origin for origin, _, _ in gaps]) | spans)


def _move(
    connection: Connection, moves: Sequence[tuple[Origin, ProducerState, ProducerState]]
) -> None:
    if moves:
        states = [after for _, _, after in moves]
        values = _instances([origin for origin, _, _ in moves]) | {
            "sequences": [state.sequence for state in states],
            "digests": [state.digests for state in states],
            "announced": [max(state.announced_sequence, state.sequence) for state in states],
            "keys": [origin.key_id for origin, _, _ in moves],
        }
        connection.execute(_MOVE, values)


def _names(origins: Sequence[Origin]) -> dict[str, list[Any]]:
    return {
        "accounts": [origin.account_id for origin in origins],
        "names": [origin.producer for origin in origins],
    }


def _instances(origins: Sequence[Origin]) -> dict[str, list[Any]]:
    return _names(origins) | {"instances": [origin.instance for origin in origins]}
