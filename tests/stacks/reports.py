"""Waits for what sources report of requests, that say which report of which source is missing."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Final

import psycopg

from meter.sources.identity import event_key, request_event_id
from meter.sources.observation import Source
from tests.acceptance.counted import wait_until, wait_until_counted
from tests.stacks.recorded import Recorded, recorded_events

# Where a better report came, the counted one is the claim's, and the first lies beside it.
_REPORTED: Final = """
SELECT event_key, source FROM event_claims UNION SELECT event_key, source FROM observations
"""
_WAITING: Final = "SELECT count(*) FROM observations WHERE state = 1"
_ASIDE: Final = "SELECT outcome, source, count(*) FROM quarantine GROUP BY 1, 2 ORDER BY 1, 2"
_SHOWN_MAX: Final = 8


def wait_for_event(
    database_url: str,
    request_id: str,
    *,
    seconds_max: float,
    told: Callable[[], object] = str,
) -> Recorded:
    """Return what was recorded of a request, once it is there: it is there once.

    Fails after `seconds_max` with what is there instead, and what `told` returns.
    """
    found: list[Recorded] = []

    def is_there() -> bool:
        found[:] = recorded_events(database_url).get(request_id, [])
        return bool(found)

    def what() -> str:
        others = ", ".join(sorted(recorded_events(database_url)))
        aside = _aside(database_url)
        return f"{request_id} is recorded; there are {others}; quarantine: {aside}; {told()}"

    wait_until(is_there, seconds_max=seconds_max, what=what)
    assert len(found) == 1, found
    return found[0]


def wait_until_reported(
    database_url: str,
    expected: Mapping[str, Collection[Source]],
    *,
    seconds_max: float,
    told: Callable[[], object] = str,
) -> None:
    """Return once each request, by its id, was reported by all its sources.

    Fails after `seconds_max` with what is missing, what lies in quarantine and what `told` returns.
    """

    def missing() -> dict[Source, list[str]]:
        with psycopg.connect(database_url) as connection:
            seen = {(key.bytes, source) for key, source in connection.execute(_REPORTED)}
        found: dict[Source, list[str]] = {}
        for request_id, sources in expected.items():
            key = event_key("", event_id=request_event_id(request_id, attempt=0))
            for source in sources:
                if (key, source) not in seen:
                    found.setdefault(source, []).append(request_id)
        return found

    def what() -> str:
        awaited = Counter(source for sources in expected.values() for source in sources)
        parts = [
            f"{len(ids)} of {awaited[source]} of {source.name}: {', '.join(ids[:_SHOWN_MAX])}"
            for source, ids in missing().items()
        ]
        aside = _aside(database_url)
        return f"all reports; missing are {'; '.join(parts)}; quarantine: {aside}; {told()}"

    wait_until(lambda: not missing(), seconds_max=seconds_max, what=what)


def wait_until_decided(database_url: str, *, seconds_max: float) -> None:
    """Return once no report waits to be compared, and usage holds what was decided.

    The database is asked: the meter's own figure is seconds old.
    """
    with psycopg.connect(database_url, autocommit=True) as connection:

        def is_decided() -> bool:
            return connection.execute(_WAITING).fetchone() == (0,)

        wait_until(is_decided, seconds_max=seconds_max, what="all reports are decided upon")
    wait_until_counted(database_url)


def _aside(database_url: str) -> list[tuple[int, int, int]]:
    """Return how many events lie in quarantine, by outcome and source."""
    with psycopg.connect(database_url) as connection:
        return connection.execute(_ASIDE).fetchall()
