"""A made-up factory: two sites, four pools of eight boards, five tiers, eight customers.

It serves and draws power as its clock goes; nothing here knows of the meter.
"""

import math
import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

BOARD_COUNT = 8
TIERS = ("free", "medium", "high", "premium", "ultra")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolMade:
    """A pool: watts of a board at rest, and what its tokens take beside those of an H100."""

    site: str
    hardware: str
    software: str
    idle_watts: int
    factor: float
    # Output tokens a second of each tier, on the average.
    served: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Requests of one kind that ended together: their count, and tokens of each of them."""

    pool: str
    account: str
    model: str
    tier: str
    request_count: int
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int


POOLS = {
    "oslo-b200": PoolMade(
        site="oslo",
        hardware="B200",
        software="vllm 0.21",
        idle_watts=140,
        factor=0.45,
        served={"medium": 7_400, "high": 2_700, "premium": 1_150},
    ),
    "oslo-h100": PoolMade(
        site="oslo",
        hardware="H100 SXM",
        software="vllm 0.21",
        idle_watts=75,
        factor=1.0,
        served={"free": 16_000, "medium": 3_600, "high": 420},
    ),
    "reno-gb200": PoolMade(
        site="reno",
        hardware="GB200 NVL72",
        software="sglang 0.9",
        idle_watts=150,
        factor=0.36,
        served={"high": 2_900, "premium": 2_300, "ultra": 260},
    ),
    "reno-h200": PoolMade(
        site="reno",
        hardware="H200 SXM",
        software="vllm 0.20",
        idle_watts=80,
        factor=0.9,
        served={"free": 11_500, "medium": 4_200, "high": 520},
    ),
}
# What an output token takes on an H100, in joules, and how long prompts are beside outputs.
MODELS = {
    "free": ("llama-3.1-8b", 0.07, 2.2),
    "medium": ("llama-3.1-70b", 0.37, 3.0),
    "high": ("qwen3-235b", 1.09, 4.5),
    "premium": ("deepseek-v3.1", 1.9, 7.0),
    "ultra": ("gpt-moe-2t", 14.0, 11.0),
}
# How much of a tier's tokens each customer uses.
CUSTOMERS = {
    "spree-robotics": {"medium": 5, "high": 3, "premium": 1},
    "kea-logistics": {"medium": 4, "high": 2},
    "helix-research": {"premium": 5, "ultra": 9},
    "sunset-studios": {"high": 4, "premium": 3},
    "north-sea-bank": {"high": 2, "premium": 2, "ultra": 1},
    "lumen-health": {"medium": 2, "high": 2, "premium": 1},
    "orchard-games": {"medium": 6},
    "playground": {"free": 1},
}
# What a host takes besides its boards.
HOST_FACTOR = 1.16
PUE = 1.21
# Output tokens of a request of each tier: agents work long.
REQUEST_TOKENS = {"free": 1_500, "medium": 2_400, "high": 3_000, "premium": 5_000, "ultra": 8_000}


class World:
    """The factory on its way through time, always the same one."""

    def __init__(self, now: datetime) -> None:
        """Begin at a time."""
        self.now = now
        self._random = random.Random(20261112)
        self.board_mj = {pool: [10**9 + index for index in range(BOARD_COUNT)] for pool in POOLS}
        self.board_mw = {pool: [0] * BOARD_COUNT for pool in POOLS}
        self.host_mj = dict.fromkeys(POOLS, 10**9)
        self.site_mj = dict.fromkeys({each.site for each in POOLS.values()}, 10**10)

    def live(
        self, span: timedelta, *, request_scale: float, down: Collection[str] = ()
    ) -> Iterator[Served]:
        """Go on; yield what was served meanwhile. Requests are greater and fewer by the scale.

        Pools that are down serve nothing and draw nothing.
        """
        self.now += span
        load = self._load()
        for name, pool in POOLS.items():
            if name in down:
                continue
            joules = 0.0
            for tier, rate in pool.served.items():
                rate_now = rate * load * self._random.uniform(0.92, 1.08)
                joules += rate_now * span.total_seconds() * MODELS[tier][1] * pool.factor
                yield from self._requests(
                    name, tier=tier, tokens=rate_now * span.total_seconds(), scale=request_scale
                )
            self._draw(name, pool=pool, joules=joules, span=span)

    def _load(self) -> float:
        """More by day than by night, and less at weekends."""
        hour = self.now.hour + self.now.minute / 60
        daily = 0.8 + 0.22 * math.sin((hour - 8) / 24 * 2 * math.pi)
        return daily * (0.8 if self.now.weekday() >= 5 else 1.0)

    def _requests(self, pool: str, *, tier: str, tokens: float, scale: float) -> Iterator[Served]:
        model, _, prompt = MODELS[tier]
        weights = {who: shares[tier] for who, shares in CUSTOMERS.items() if tier in shares}
        for account, weight in weights.items():
            share = tokens * weight / sum(weights.values()) * self._random.uniform(0.85, 1.15)
            count = max(round(share / REQUEST_TOKENS[tier] / scale), 1)
            output = max(round(share / count), 1)
            yield Served(
                pool=pool,
                account=account,
                model=model,
                tier=tier,
                request_count=count,
                prompt_tokens=round(output * prompt * 0.6),
                cached_tokens=round(output * prompt * 0.4),
                output_tokens=output,
            )

    def _draw(self, name: str, *, pool: PoolMade, joules: float, span: timedelta) -> None:
        total_mj = 0
        for index in range(BOARD_COUNT):
            idle = pool.idle_watts * span.total_seconds()
            own = joules / BOARD_COUNT * (1 + 0.02 * (index - 3.5) / 3.5)
            mj = round((idle + own) * 1000)
            self.board_mj[name][index] += mj
            self.board_mw[name][index] = round(mj / span.total_seconds())
            total_mj += mj
        host_mj = round(total_mj * HOST_FACTOR)
        self.host_mj[name] += host_mj
        self.site_mj[pool.site] += round(host_mj * PUE * self._random.uniform(0.995, 1.005))
