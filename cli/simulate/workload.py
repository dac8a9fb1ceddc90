"""The requests of a fleet, made of traces: who asked which model, and the tokens by class."""

import heapq
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from cli.simulate.trace import Arrival, generated_trace, read_trace, seeded

# How often a prompt's beginning lies in a cache, an answer begins with thinking, a job is a batch.
_CACHE_HIT_SHARE: Final = 0.4
_REASONING_SHARE: Final = 0.25
_BATCH_SHARE: Final = 0.1
# Caches keep whole blocks of the prompt.
_CACHE_BLOCK_TOKENS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Customers:
    """Whom the fleet serves: account ids, tiers and models, the busiest first; none empty.

    `pools` serve them, dealt to the tiers in turn; without any, events name none.
    """

    accounts: tuple[str, ...]
    tiers: tuple[str, ...]
    models: tuple[str, ...]
    pools: tuple[str, ...] = ()

    def pool_of(self, tier: str) -> str | None:
        """Return the pool that serves a tier; None without pools."""
        if not self.pools:
            return None
        return self.pools[self.tiers.index(tier) % len(self.pools)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """An inference request that ended; its four classes are disjoint.

    input + cache_read are the trace's prompt, output + reasoning its answer. `offset_ms` is the end
    of the request, counted from the fleet's last one: 0 or negative.
    """

    account: str
    model: str
    tier: str
    pool: str | None = None
    is_batch: bool
    input: int
    cache_read: int
    output: int
    reasoning: int
    offset_ms: int
    duration_ms: int
    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What a fleet has to report: the traces of these files, or `request_count` generated ones."""

    traces: tuple[Path, ...]
    request_count: int
    seed: int
    customers: Customers

    def requests(self) -> Iterator[Request]:
        """Yield all requests by their ends; raises TraceUnreadable."""
        return requests(self.load(), customers=self.customers, seed=self.seed)

    def load(self) -> list[list[Arrival]]:
        """Return the traces, none of them empty; raises TraceUnreadable."""
        return [read_trace(path) for path in self.traces] or [
            generated_trace(request_count=self.request_count, seed=self.seed)
        ]


def requests(
    traces: Sequence[Sequence[Arrival]], *, customers: Customers, seed: int
) -> Iterator[Request]:
    """Yield the requests of all traces by their ends; the same arguments give the same requests.

    Each trace is laid so that its last request ends at 0. How many servers share them plays no
    part.
    """
    random = seeded(f"requests {seed}")
    ends = heapq.merge(*map(_by_end, traces), key=lambda end: end[0])
    for index, (offset_ms, arrival) in enumerate(ends):
        yield _request(
            random,
            arrival=arrival,
            customers=customers,
            offset_ms=offset_ms,
            request_id=f"sim-{seed}-{index}",
        )


def share_of(
    everything: Iterator[Request], *, server_index: int, server_count: int
) -> Iterator[Request]:
    """Yield what one server of the fleet handles: every `server_count`-th request."""
    assert 0 <= server_index < server_count
    return itertools.islice(everything, server_index, None, server_count)


def duration_ms(arrival: Arrival) -> int:
    """Return how long a request takes: a tenth of a second, 20 prompt tokens and 1/20 a ms."""
    return 100 + arrival.context_count // 20 + arrival.generated_count * 20


def _by_end(trace: Sequence[Arrival]) -> list[tuple[int, Arrival]]:
    ends = [(arrival.time_ms + duration_ms(arrival), arrival) for arrival in trace]
    ends.sort(key=lambda end: end[0])
    last_ms = ends[-1][0] if ends else 0
    return [(end_ms - last_ms, arrival) for end_ms, arrival in ends]


def _request(
    random: Random, *, arrival: Arrival, customers: Customers, offset_ms: int, request_id: str
) -> Request:
    cached = _cached(random, prompt=arrival.context_count)
    reasoning = _reasoning(random, answer=arrival.generated_count)
    # The order of what is drawn is what a seed stands for.
    account = _skewed(random, names=customers.accounts)
    model = _skewed(random, names=customers.models)
    tier = _skewed(random, names=customers.tiers)
    return Request(
        account=account,
        model=model,
        tier=tier,
        pool=customers.pool_of(tier),
        is_batch=random.random() < _BATCH_SHARE,
        input=arrival.context_count - cached,
        cache_read=cached,
        output=arrival.generated_count - reasoning,
        reasoning=reasoning,
        offset_ms=offset_ms,
        duration_ms=duration_ms(arrival),
        request_id=request_id,
    )


def _cached(random: Random, *, prompt: int) -> int:
    blocks = random.randint(0, prompt // _CACHE_BLOCK_TOKENS)
    return blocks * _CACHE_BLOCK_TOKENS if random.random() < _CACHE_HIT_SHARE else 0


def _reasoning(random: Random, *, answer: int) -> int:
    thought = random.randint(0, answer)
    return thought if random.random() < _REASONING_SHARE else 0


def _skewed(random: Random, *, names: tuple[str, ...]) -> str:
    """Draw a name; the n-th weighs 1/n, as customers do."""
    weights = [1 / rank for rank in range(1, len(names) + 1)]
    return random.choices(names, weights)[0]
