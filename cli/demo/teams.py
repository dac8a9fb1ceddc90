"""The teams that ask the demo's factory for tokens: how much, when, and of what length."""

from dataclasses import dataclass
from typing import Final
from zoneinfo import ZoneInfo

BERLIN: Final = ZoneInfo("Europe/Berlin")
LOS_ANGELES: Final = ZoneInfo("America/Los_Angeles")
AUCKLAND: Final = ZoneInfo("Pacific/Auckland")

THROUGHPUT: Final = "throughput"
LATENCY: Final = "latency"
TIERS: Final = ("free", "medium", "high", "premium", "ultra")

RESEARCH: Final = "research"
RESEARCH_DAY_TOKENS: Final = 50_000_000
# How the research team's day is made up: multiples of 200, whose price has no fraction of a cent.
RESEARCH_QUOTA: Final = {
    "input": 30_000_000,
    "cache_read": 10_000_000,
    "output": 7_500_000,
    "reasoning": 2_500_000,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """How long a team's requests are, in tokens; spreads are of the logarithm, shares of 100.

    `cached_percent` of the prompts lie in a cache for the most part; a reasoning of 0 is none.
    """

    prompt: int
    prompt_spread: float
    prompt_max: int
    cached_percent: int
    output: int
    output_spread: float
    reasoning: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """Whose requests are alike: `permille` of the month's, at the hours of a rhythm.

    `account` is its id; `parent` that of its customer, empty for a customer itself. On Saturdays
    and Sundays it asks for `weekend_percent` of a working day's.
    """

    account: str
    parent: str
    zone: ZoneInfo
    model: str
    tier: str
    pool: str
    is_batch: bool = False
    permille: int
    rhythm: str
    weekend_percent: int
    lengths: Lengths

    @property
    def handle(self) -> str:
        """Its name under its customer."""
        return self.account.removeprefix(f"{self.parent}-")


BERLIN_TEAMS: Final = (
    Team(
        account="berlin-app",
        parent="berlin",
        zone=BERLIN,
        model="glm-5.1",
        tier="medium",
        pool=THROUGHPUT,
        permille=200,
        rhythm="office",
        weekend_percent=45,
        lengths=Lengths(
            prompt=2_600,
            prompt_spread=0.8,
            prompt_max=30_000,
            cached_percent=50,
            output=420,
            output_spread=0.7,
        ),
    ),
    Team(
        account="berlin-agents",
        parent="berlin",
        zone=BERLIN,
        model="kimi-k2.6",
        tier="high",
        pool=THROUGHPUT,
        permille=90,
        rhythm="office",
        weekend_percent=30,
        lengths=Lengths(
            prompt=38_000,
            prompt_spread=1.0,
            prompt_max=600_000,
            cached_percent=85,
            output=900,
            output_spread=0.8,
            reasoning=1_400,
        ),
    ),
    Team(
        account="berlin-nightly",
        parent="berlin",
        zone=BERLIN,
        model="glm-5.1",
        tier="medium",
        pool=THROUGHPUT,
        is_batch=True,
        permille=60,
        rhythm="night",
        weekend_percent=100,
        lengths=Lengths(
            prompt=6_000,
            prompt_spread=0.6,
            prompt_max=60_000,
            cached_percent=0,
            output=1_100,
            output_spread=0.5,
        ),
    ),
)
LOS_ANGELES_TEAMS: Final = (
    Team(
        account="los-angeles-studio",
        parent="los-angeles",
        zone=LOS_ANGELES,
        model="glm-5.1",
        tier="high",
        pool=THROUGHPUT,
        permille=170,
        rhythm="evening",
        weekend_percent=70,
        lengths=Lengths(
            prompt=5_000,
            prompt_spread=0.8,
            prompt_max=60_000,
            cached_percent=40,
            output=1_600,
            output_spread=0.6,
        ),
    ),
    Team(
        account="los-angeles-support",
        parent="los-angeles",
        zone=LOS_ANGELES,
        model="qwen3-235b",
        tier="medium",
        pool=THROUGHPUT,
        permille=130,
        rhythm="office",
        weekend_percent=60,
        lengths=Lengths(
            prompt=2_000,
            prompt_spread=0.7,
            prompt_max=20_000,
            cached_percent=70,
            output=350,
            output_spread=0.6,
        ),
    ),
    Team(
        account="los-angeles-playground",
        parent="los-angeles",
        zone=LOS_ANGELES,
        model="qwen3-235b",
        tier="free",
        pool=THROUGHPUT,
        permille=110,
        rhythm="evening",
        weekend_percent=130,
        lengths=Lengths(
            prompt=700,
            prompt_spread=0.9,
            prompt_max=8_000,
            cached_percent=0,
            output=500,
            output_spread=0.8,
        ),
    ),
)
AUCKLAND_TEAMS: Final = (
    Team(
        account="auckland-routing",
        parent="auckland",
        zone=AUCKLAND,
        model="kimi-k2.6",
        tier="premium",
        pool=LATENCY,
        permille=80,
        rhythm="shift",
        weekend_percent=60,
        lengths=Lengths(
            prompt=3_500,
            prompt_spread=0.7,
            prompt_max=40_000,
            cached_percent=60,
            output=600,
            output_spread=0.6,
            reasoning=800,
        ),
    ),
    Team(
        account="auckland-helpdesk",
        parent="auckland",
        zone=AUCKLAND,
        model="qwen3-235b",
        tier="medium",
        pool=THROUGHPUT,
        permille=110,
        rhythm="office",
        weekend_percent=40,
        lengths=Lengths(
            prompt=2_400,
            prompt_spread=0.7,
            prompt_max=20_000,
            cached_percent=70,
            output=380,
            output_spread=0.6,
        ),
    ),
    Team(
        account="auckland-archive",
        parent="auckland",
        zone=AUCKLAND,
        model="glm-5.1",
        tier="medium",
        pool=THROUGHPUT,
        is_batch=True,
        permille=20,
        rhythm="night",
        weekend_percent=100,
        lengths=Lengths(
            prompt=12_000,
            prompt_spread=0.5,
            prompt_max=120_000,
            cached_percent=0,
            output=500,
            output_spread=0.5,
        ),
    ),
)
RESEARCH_TEAM: Final = Team(
    account=RESEARCH,
    parent="",
    zone=LOS_ANGELES,
    model="frontier-moe-2t",
    tier="ultra",
    pool=LATENCY,
    permille=30,
    rhythm="long-day",
    weekend_percent=100,
    # Weights: a day's requests are stretched to fill the quota.
    lengths=Lengths(
        prompt=20_000,
        prompt_spread=0.8,
        prompt_max=400_000,
        cached_percent=100,
        output=3_750,
        output_spread=0.8,
        reasoning=1_250,
    ),
)
