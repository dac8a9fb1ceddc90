"""The views of a long history: what is asked for of it is found by time, not by reading it all."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest

from tests.meter.store.recording import administrator

_BIG: Final = frozenset({"usage", "pool_usage", "energy_shares", "energy_intervals"})


def scans(plan: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """Yield each table that a plan reads rows of, and whether an index of time finds them."""
    # The begin and the end of the history are one row each.
    if plan["Node Type"] == "Limit":
        return
    parts = plan.get("Plans", ())
    if plan.get("Relation Name") in _BIG:
        conditions = [str(each.get("Index Cond", "")) for each in (plan, *parts)]
        yield plan["Relation Name"], any("interval_start >=" in each for each in conditions)
    for part in parts:
        yield from scans(part)


@pytest.mark.parametrize(
    ("view", "wanted", "tables"),
    [
        (
            "efficiency_hourly",
            "hour BETWEEN '2026-10-20T00:00:00Z' AND '2026-10-20T23:00:00Z'",
            {"pool_usage", "energy_shares", "energy_intervals"},
        ),
        (
            "usage_daily",
            "day BETWEEN '2026-10-20' AND '2026-10-21' AND handle = 'acme'",
            {"usage", "energy_shares"},
        ),
    ],
)
def test_view__finds_rows_by_time(
    database_url: str, view: str, wanted: str, tables: set[str]
) -> None:
    """Whoever asks for a day reads that day's rows, by the indexes of time."""
    with administrator(database_url) as connection:
        # Nothing is here, and Postgres would rather read all of nothing.
        connection.execute("SET enable_seqscan = off")
        question = f"EXPLAIN (FORMAT json) SELECT * FROM {view} WHERE {wanted}"
        (((plan,),),) = connection.execute(question).fetchall()
    found = set(scans(plan["Plan"]))
    assert found == {(table, True) for table in tables}
