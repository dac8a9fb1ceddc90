"""How producers are read from Postgres: in order, each with its gaps and whether it is silent."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, text

from meter.domain.errors import NotFound, Reason
from meter.domain.limits import GAPS_LISTED_MAX
from meter.domain.times import to_ms
from meter.producers import Gap, Producer, ProducerQuery, Standing

# What the database says of now, once a statement.
CLOCK: Final = "(SELECT coalesce((SELECT driven_time FROM installation), clock_timestamp()))"
EXPECTED: Final = f"p.state <> {Standing.RETIRED}"
# Whoever was announced anew is given the time that a new one has.
_UNHEARD: Final = "now.time - greatest(p.seen_time, p.create_time)"
SILENT: Final = (
    f"coalesce({EXPECTED} AND {_UNHEARD} > CAST(:silence_ms AS bigint)"
    " * interval '1 millisecond', false)"
)
_LIST: Final = text(
    f"""
    WITH now AS MATERIALIZED (SELECT {CLOCK} AS time)
    SELECT p.*, {SILENT} AS is_silent FROM producers p, now
    WHERE (p.account_id, p.producer) > (:after_account, :after_name)
        AND p.account_id = coalesce(CAST(:account AS text), p.account_id)
        AND p.producer = coalesce(CAST(:name AS text), p.producer)
        AND p.state = coalesce(CAST(:state AS smallint), p.state)
        AND (NOT :silent_only OR {SILENT})
    ORDER BY p.account_id, p.producer LIMIT :limit
    """  # noqa: S608
)
_GAPS: Final = text(
    f"""
    SELECT * FROM (
        SELECT g.*, sum(last_sequence - first_sequence + 1) OVER whole AS missing,
            row_number() OVER (whole ORDER BY first_sequence DESC) AS place
        FROM producer_gaps g JOIN unnest(CAST(:accounts AS text[]), CAST(:names AS text[]))
            AS n (account_id, producer) USING (account_id, producer)
        WINDOW whole AS (PARTITION BY account_id, producer)
    ) g WHERE place <= {GAPS_LISTED_MAX}
    ORDER BY account_id, producer, place
    """  # noqa: S608
)


def get_producer(
    connection: Connection, account_id: str, name: str, *, silence_ms: int | None
) -> Producer:
    """Return one producer; raises NotFound (PRODUCER_NOT_FOUND)."""
    query = ProducerQuery(account_id=account_id, name=name)
    found = list_producers(connection, query, silence_ms=silence_ms)
    if not found:
        raise NotFound(Reason.PRODUCER_NOT_FOUND, f"There is no producer {name} of this account.")
    return found[0]


def list_producers(
    connection: Connection, query: ProducerQuery, *, silence_ms: int | None
) -> Sequence[Producer]:
    """Return producers by account and name; `silence_ms` None calls nobody silent."""
    rows = connection.execute(
        _LIST,
        {
            "after_account": query.after[0],
            "after_name": query.after[1],
            "account": query.account_id,
            "name": query.name,
            "state": query.standing,
            "silent_only": query.silent_only,
            "silence_ms": silence_ms,
            "limit": query.limit,
        },
    ).all()
    keys = {
        "accounts": [row.account_id for row in rows],
        "names": [row.producer for row in rows],
    }
    gaps: dict[tuple[str, str], list[Row[Any]]] = {}
    for gap in connection.execute(_GAPS, keys):
        gaps.setdefault((gap.account_id, gap.producer), []).append(gap)
    return [_to_producer(row, gaps.get((row.account_id, row.producer), [])) for row in rows]


def _to_producer(row: Row[Any], gaps: Sequence[Row[Any]]) -> Producer:
    return Producer(
        account_id=row.account_id,
        name=row.producer,
        standing=Standing(row.state),
        is_silent=row.is_silent,
        seen_ms=find_ms(row.seen_time),
        recorded_sequence=row.sequence,
        announced_sequence=max(row.announced_sequence, row.sequence),
        missing_batch_count=int(gaps[0].missing) if gaps else 0,
        gaps=[
            Gap(
                first_sequence=gap.first_sequence,
                last_sequence=gap.last_sequence,
                found_ms=to_ms(gap.found_time),
            )
            for gap in gaps
        ],
        key_id=row.key_id,
        create_ms=to_ms(row.create_time),
        edge=row.edge,
    )


def find_ms(time: datetime | None) -> int | None:
    """Return an instant in ms, None for none."""
    return None if time is None else to_ms(time)
