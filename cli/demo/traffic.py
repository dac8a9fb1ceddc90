"""The month's requests, as each server is asked for them: pure, the same for the same seed.

How many requests a team makes on a day, and at which hours, follows from its share alone; chance
decides when within the hour, and how long they are. Times are ms since 1970, UTC.
"""

import json
import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import accumulate, pairwise
from operator import itemgetter
from random import Random
from typing import Final, TypeAlias

from cli.demo.teams import RESEARCH, RESEARCH_QUOTA, Team
from cli.demo.world import DAYS, SERVERS, TEAMS, day_span, to_ms

HOUR_MS: Final = 3_600_000
_SATURDAY: Final = 5
_SHAPES: Final = 2_048
_CACHE_BLOCK_TOKENS: Final = 64
# By local hour, six in a row, from midnight on.
_RHYTHMS: Final = {
    "office": (
        *(2, 1, 1, 1, 1, 2),
        *(5, 12, 26, 36, 40, 38),
        *(30, 34, 38, 36, 32, 26),
        *(18, 12, 9, 7, 5, 3),
    ),
    "evening": (
        *(9, 5, 3, 2, 1, 1),
        *(2, 4, 7, 10, 12, 14),
        *(16, 17, 18, 19, 22, 27),
        *(33, 38, 40, 36, 27, 16),
    ),
    "night": (
        *(30, 36, 40, 38, 30, 16),
        *(4, 1, 1, 1, 1, 1),
        *(1, 1, 1, 1, 1, 1),
        *(1, 1, 2, 6, 14, 22),
    ),
    "shift": (
        *(0, 0, 0, 0, 0, 0),
        *(14, 26, 34, 38, 40, 38),
        *(32, 34, 36, 34, 30, 24),
        *(16, 8, 0, 0, 0, 0),
    ),
    "long-day": (
        *(0, 0, 0, 0, 0, 0),
        *(0, 8, 16, 24, 30, 32),
        *(28, 30, 32, 32, 30, 28),
        *(26, 26, 24, 18, 10, 0),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What many requests of a team have in common: the team, and tokens by class.

    `truth` is how the line of each in a truth file begins, up to its end time.
    """

    team: Team
    input: int
    cache_read: int
    output: int
    reasoning: int
    truth: str


# When it ended, and what it was.
Request: TypeAlias = tuple[int, Shape]


class Traffic:
    """What one server is asked for, in the order of the ends."""

    def __init__(self, *, event_count: int, seed: int, server_index: int) -> None:
        """Take how many requests the whole factory serves in the month."""
        pool = SERVERS[server_index]
        servers = [index for index, it in enumerate(SERVERS) if it == pool]
        self._parts = [
            _Part(
                team,
                event_count=event_count,
                seed=seed,
                place=servers.index(server_index),
                places=len(servers),
            )
            for team in TEAMS
            if team.pool == pool
        ]

    def take(self, *, until_ms: int) -> list[Request]:
        """Return the requests that ended before a time and were not taken before."""
        taken = [request for part in self._parts for request in part.take(until_ms=until_ms)]
        taken.sort(key=itemgetter(0))
        return taken


def daily_counts(team: Team, *, event_count: int, seed: int) -> list[int]:
    """Return how many requests a team makes on each day; all teams' add up to `event_count`."""
    place = TEAMS.index(team)
    share = apportion(event_count, [it.permille for it in TEAMS])[place]
    random = _seeded(f"days {seed} {team.account}")
    weights = [_day_weight(team, day, random) for day in DAYS]
    return apportion(share, weights)


def hourly_output(pool: str, *, event_count: int, seed: int) -> dict[int, float]:
    """Return the output tokens that a pool may expect in each hour of the month, by its begin."""
    expected: dict[int, float] = {}
    for team in TEAMS:
        if team.pool != pool:
            continue
        mean = _mean_output(team, seed=seed)
        counts = daily_counts(team, event_count=event_count, seed=seed)
        for day, count in zip(DAYS, counts, strict=True):
            hours = list(_hours(team, day))
            total = sum(weight for _, weight in hours)
            tokens = _research_output() if team.account == RESEARCH else count * mean
            for start_ms, weight in hours:
                expected[start_ms] = expected.get(start_ms, 0.0) + tokens * weight / total
    return expected


def apportion(total: int, weights: Sequence[int]) -> list[int]:
    """Divide a total into whole parts by weights, of which one is not 0; they add up to it."""
    whole = sum(weights)
    edges = [total * edge // whole for edge in accumulate(weights, initial=0)]
    return [end - begin for begin, end in pairwise(edges)]


class _Part:
    """What a server is asked for by one team."""

    def __init__(self, team: Team, *, event_count: int, seed: int, place: int, places: int) -> None:
        self._team = team
        self._seed = seed
        self._place = place
        self._counts = [
            apportion(count, [1] * places)[place]
            for count in daily_counts(team, event_count=event_count, seed=seed)
        ]
        self._shapes = [] if team.account == RESEARCH else _shapes(team, seed=seed)
        self._day = 0
        self._waiting: list[Request] = []

    def take(self, *, until_ms: int) -> list[Request]:
        while self._day < len(DAYS) and self._begin_ms() < until_ms:
            self._waiting += self._requests(DAYS[self._day], count=self._counts[self._day])
            self._day += 1
        place = bisect_left(self._waiting, until_ms, key=itemgetter(0))
        taken, self._waiting = self._waiting[:place], self._waiting[place:]
        return taken

    def _begin_ms(self) -> int:
        return to_ms(day_span(DAYS[self._day], self._team.zone)[0])

    def _requests(self, day: date, *, count: int) -> list[Request]:
        random = _seeded(f"day {self._seed} {self._team.account} {day} {self._place}")
        hours = list(_hours(self._team, day))
        counts = apportion(count, [weight for _, weight in hours])
        draw = random.random
        ends = [
            start_ms + int(draw() * HOUR_MS)
            for (start_ms, _), in_hour in zip(hours, counts, strict=True)
            for _ in range(in_hour)
        ]
        ends.sort()
        if self._team.account == RESEARCH:
            return list(zip(ends, _research_shapes(self._team, count, random), strict=True))
        return list(zip(ends, random.choices(self._shapes, k=count), strict=True))


def _seeded(seed: str) -> Random:
    return Random(seed)  # noqa: S311 - a simulation has to be repeatable


def _day_weight(team: Team, day: date, random: Random) -> int:
    """Weigh a day: a week's rhythm, a business that grows, and some chance."""
    week = team.weekend_percent if day.weekday() >= _SATURDAY else 100
    growth = 100 + day.day
    chance = 100 if team.account == RESEARCH else random.randint(92, 108)
    return week * growth * chance


def _hours(team: Team, day: date) -> Iterator[tuple[int, int]]:
    """Yield the hours of a local day: begin (ms) and weight; one that comes twice, twice."""
    rhythm = _RHYTHMS[team.rhythm]
    time, end = day_span(day, team.zone)
    while time < end:
        yield to_ms(time), rhythm[time.astimezone(team.zone).hour]
        time += timedelta(hours=1)


def _shapes(team: Team, *, seed: int) -> list[Shape]:
    random = _seeded(f"shapes {seed} {team.account}")
    return [_shape(team, _draw(team, random)) for _ in range(_SHAPES)]


def _draw(team: Team, random: Random) -> dict[str, int]:
    lengths = team.lengths
    prompt = _skewed(random, lengths.prompt, lengths.prompt_spread)
    prompt = min(prompt, lengths.prompt_max)
    cached = 0
    if random.randrange(100) < lengths.cached_percent:
        most = int(prompt * random.uniform(0.3, 0.95))
        cached = most - most % _CACHE_BLOCK_TOKENS
    reasoning = 0
    if lengths.reasoning:
        reasoning = _skewed(random, lengths.reasoning, lengths.output_spread)
    return {
        "input": prompt - cached,
        "cache_read": cached,
        "output": _skewed(random, lengths.output, lengths.output_spread),
        "reasoning": reasoning,
    }


def _skewed(random: Random, median: int, spread: float) -> int:
    return max(1, int(random.lognormvariate(math.log(median), spread)))


def _shape(team: Team, tokens: dict[str, int]) -> Shape:
    used = {name: count for name, count in tokens.items() if count}
    told = {
        "account": team.account,
        "model": team.model,
        "tier": team.tier,
        "mode": "batch" if team.is_batch else "online",
        "pool": team.pool,
        "classes": used,
    }
    begin = json.dumps(told, separators=(",", ":"))
    return Shape(team=team, **tokens, truth=f'{begin[:-1]},"end_time_ms":')


def _research_shapes(team: Team, count: int, random: Random) -> Iterator[Shape]:
    """Yield a day's requests of the research team, which fill its quota of each class exactly."""
    drawn = [_draw(team, random) for _ in range(count)]
    columns = [
        apportion(quota, [1 + tokens[name] for tokens in drawn])
        for name, quota in RESEARCH_QUOTA.items()
    ]
    for row in zip(*columns, strict=True):
        yield _shape(team, dict(zip(RESEARCH_QUOTA, row, strict=True)))


def _mean_output(team: Team, *, seed: int) -> float:
    if team.account == RESEARCH:
        return 0.0
    shapes = _shapes(team, seed=seed)
    total = sum(shape.output + shape.reasoning for shape in shapes)
    return total / len(shapes)


def _research_output() -> int:
    return RESEARCH_QUOTA["output"] + RESEARCH_QUOTA["reasoning"]
