"""What lies in a database's journal, event by event."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import psycopg

from meter.segment import decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """An event as it was recorded; `tokens` by class number, without zeros, `sign` -1 or 1."""

    account: str
    model: str
    served_model: str
    tier: str
    tokens: Mapping[int, int]
    finish: int
    quality: int
    duration: timedelta
    end_ms: int
    sign: int = 1


def recorded_events(database_url: str) -> dict[str, list[Recorded]]:
    """Return the events of each request id, in the journal's order."""
    found: dict[str, list[Recorded]] = {}
    with psycopg.connect(database_url) as connection:
        dimensions = {
            row[0]: row[1:]
            for row in connection.execute(
                "SELECT dimension_id, account_id, model, served_model, tier"
                " FROM dimensions JOIN skus USING (sku_id)"
            )
        }
        bodies = connection.execute("SELECT body FROM journal ORDER BY shard, position").fetchall()
    for (body,) in bodies:
        segment = decode(body)
        columns = {
            name: segment.column(name).tolist()
            for name in ("finish", "quality", "duration_ms", "sign")
        }
        for row, handle in enumerate(segment.columns["dimension"].tolist()):
            account, model, served_model, tier = dimensions[handle]
            counts = {number: int(values[row]) for number, values in segment.tokens.items()}
            event = Recorded(
                account=account,
                model=model,
                served_model=served_model,
                tier=tier,
                tokens={number: count for number, count in counts.items() if count},
                finish=columns["finish"][row],
                quality=columns["quality"][row],
                duration=timedelta(milliseconds=columns["duration_ms"][row]),
                end_ms=int(segment.columns["end_ms"][row]),
                sign=columns["sign"][row],
            )
            request_id = segment.request_ids[row] if segment.request_ids else ""
            found.setdefault(request_id, []).append(event)
    return found
