"""The month's requests: as many as were asked for, the same for the same seed, at their hours."""

import json
from collections import Counter
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.demo.teams import BERLIN, LATENCY, RESEARCH, RESEARCH_QUOTA, Team
from cli.demo.traffic import Request, Traffic, apportion, daily_counts, hourly_output
from cli.demo.world import (
    CLOCK_CHANGE,
    DAYS,
    END,
    SERVERS,
    TEAMS,
    day_span,
    month_span,
    to_ms,
)

EVENTS = 6_000
CLASSES = ("input", "cache_read", "output", "reasoning")


def _month(*, seed: int = 1, event_count: int = EVENTS) -> list[list[Request]]:
    servers = [
        Traffic(event_count=event_count, seed=seed, server_index=index)
        for index in range(len(SERVERS))
    ]
    return [server.take(until_ms=to_ms(END)) for server in servers]


@given(
    total=st.integers(0, 10**12),
    weights=st.lists(st.integers(0, 10**6), min_size=1).filter(any),
)
def test_apportion__adds_up(total: int, weights: list[int]) -> None:
    """The parts add up to the total, none is negative, and each is within 1 of its share."""
    parts = apportion(total, weights)
    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        assert part >= 0
        assert abs(part * sum(weights) - total * weight) <= sum(weights)


@pytest.mark.parametrize("event_count", [1_000, EVENTS, 2_000_000])
def test_counts__all_teams(event_count: int) -> None:
    """The teams' days add up to exactly what was asked for."""
    counts = [daily_counts(team, event_count=event_count, seed=3) for team in TEAMS]
    assert {len(each) for each in counts} == {len(DAYS)}
    assert sum(map(sum, counts)) == event_count


def test_traffic__whole_month() -> None:
    """All servers together serve every request, each in its team's October and on its pool."""
    month = _month()
    assert sum(map(len, month)) == EVENTS
    spans = {team.account: tuple(map(to_ms, month_span(team.zone))) for team in TEAMS}
    for pool, requests in zip(SERVERS, month, strict=True):
        ends = [end_ms for end_ms, _ in requests]
        assert ends == sorted(ends)
        for end_ms, shape in requests:
            begin, end = spans[shape.team.account]
            assert begin <= end_ms < end
            assert shape.team.pool == pool


def test_traffic__same_seed() -> None:
    """The same seed gives the same requests, another one others."""
    assert _month() == _month()
    assert _month(seed=2) != _month()


def test_traffic__taken_in_parts() -> None:
    """However the clock walks, the same requests come, and each before the clock has passed it."""
    whole = _month()[0]
    traffic = Traffic(event_count=EVENTS, seed=1, server_index=0)
    parts: list[Request] = []
    for day in DAYS:
        until_ms = to_ms(day_span(day, BERLIN)[1])
        part = traffic.take(until_ms=until_ms)
        assert all(end_ms < until_ms for end_ms, _ in part)
        parts += part
    parts += traffic.take(until_ms=to_ms(END))
    assert parts == whole


def test_traffic__research_days() -> None:
    """The research team's day fills its quota of each class exactly, on every day of its month."""
    requests = [
        (end_ms, shape)
        for server in _month()
        for end_ms, shape in server
        if shape.team.account == RESEARCH
    ]
    zone = next(team for team in TEAMS if team.account == RESEARCH).zone
    for day in DAYS:
        begin, end = map(to_ms, day_span(day, zone))
        shapes = [shape for end_ms, shape in requests if begin <= end_ms < end]
        assert {name: sum(getattr(it, name) for it in shapes) for name in CLASSES} == RESEARCH_QUOTA


def test_traffic__hour_that_comes_twice() -> None:
    """When Berlin's clocks go back, its requests go on through both hours of that name."""
    first_ms = to_ms(CLOCK_CHANGE - timedelta(hours=1))
    hours = Counter(
        (end_ms - first_ms) // 3_600_000
        for server in _month(event_count=100_000)
        for end_ms, shape in server
        if shape.team.account == "berlin-nightly"
    )
    assert hours[0] > 0
    assert hours[1] > 0


def test_traffic__truth_of_a_request() -> None:
    """The line of truth says what the request is, without classes of 0."""
    for requests in _month():
        for end_ms, shape in requests[:200]:
            told = json.loads(f'{shape.truth}{end_ms},"request_id":"1-0"}}')
            assert list(told) == [
                *("account", "model", "tier", "mode", "pool", "classes", "end_time_ms"),
                "request_id",
            ]
            assert told["account"] == shape.team.account
            assert told["mode"] == ("batch" if shape.team.is_batch else "online")
            tokens = {name: getattr(shape, name) for name in CLASSES}
            assert told["classes"] == {name: count for name, count in tokens.items() if count}


def test_expectation__is_what_comes() -> None:
    """The work that the boards expect is close to the output that is asked for."""
    expected = sum(hourly_output(LATENCY, event_count=200_000, seed=1).values())
    traffic = Traffic(event_count=200_000, seed=1, server_index=SERVERS.index(LATENCY))
    output = sum(it.output + it.reasoning for _, it in traffic.take(until_ms=to_ms(END)))
    assert expected == pytest.approx(output, rel=0.02)


def test_traffic__nights_of_the_latency_pool() -> None:
    """There are hours in which nobody asks the latency pool for anything."""
    hours = hourly_output(LATENCY, event_count=EVENTS, seed=1)
    assert 0.0 in hours.values()
    assert any(_is_long(team) for team in TEAMS), "bands are used"


def _is_long(team: Team) -> bool:
    return team.lengths.prompt_max > 200_000
