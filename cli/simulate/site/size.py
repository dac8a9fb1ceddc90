"""How large a site is: watts at its meter, and the servers, requests and accounts that follow."""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

WATTS_MIN: Final = 100_000
WATTS_MAX: Final = 10_000_000_000
# A gigawatt of the newest hardware is said to make 700 million tokens a second; at a thousand
# tokens a request that is so many requests a second, from two thousand servers.
_EVENTS_PER_MEGAWATT: Final = 700
_SERVERS_PER_MEGAWATT: Final = 2
_ACCOUNTS_MAX: Final = 1_000
CUSTOMERS: Final = 5
_UNITS: Final = {"kW": 10**3, "MW": 10**6, "GW": 10**9}
_SIZE: Final = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)(kW|MW|GW)", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """A tier, served by a pool of its own that has the same share of the power as each other.

    `speed` is how fast a watt of it serves, beside the other tiers. `price` is dollars a million
    tokens of any class.
    """

    name: str
    speed: int
    price: int

    @property
    def pool(self) -> str:
        """The pool that serves it."""
        return f"site-{self.name}"


# Prices are the keynote's, speeds one reader's of its chart (1.65, 1.60, 0.70 and 0.20 million
# tokens a second by the megawatt of Rubin); ultra is on no chart, and taken for premium.
TIERS: Final = (
    Tier(name="free", speed=33, price=0),
    Tier(name="medium", speed=32, price=3),
    Tier(name="high", speed=14, price=6),
    Tier(name="premium", speed=4, price=45),
    Tier(name="ultra", speed=4, price=150),
)
MODELS: Final = ("atlas-large", "atlas-small", "breeze-mini")
# The site's energy by that of its boards.
PUE: Final = Fraction(6, 5)


class SizeInvalid(ValueError):
    """A text is no size of a site; the message says what is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """A site's size; `text` is how it was given."""

    text: str
    watts: int

    @property
    def label(self) -> str:
        """The size as people write it."""
        return f"{self.text[:-2]} {self.text[-2:]}"

    @property
    def pool_server_count(self) -> int:
        """Servers of each pool, at least one; each is a producer, and has one counter of energy."""
        return max(1, round(Fraction(self.watts * _SERVERS_PER_MEGAWATT, 10**6 * len(TIERS))))

    @property
    def server_count(self) -> int:
        """Servers of all pools."""
        return self.pool_server_count * len(TIERS)

    @property
    def account_count(self) -> int:
        """Accounts that are served: a thousand, or fewer on a small site."""
        return min(_ACCOUNTS_MAX, 2 * CUSTOMERS + self.server_count)

    def server_events(self, tier: Tier) -> Fraction:
        """Return the requests that one server of a tier ends in a second, on average."""
        share = Fraction(tier.speed, sum(each.speed for each in TIERS))
        return Fraction(self.watts * _EVENTS_PER_MEGAWATT, 10**6) * share / self.pool_server_count

    @property
    def board_milliwatts(self) -> int:
        """What the boards of one server may draw, by the site's contract for electricity."""
        return int(self.watts * 1_000 / PUE) // self.server_count


def parse_size(text: str) -> Size:
    """Read a size such as 1GW, 100MW or 250kW; raises SizeInvalid."""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise SizeInvalid("must be a number and kW, MW or GW, such as 1GW or 100MW")
    watts = Fraction(found[1]) * _UNITS[found[2]]
    if watts.denominator != 1 or not WATTS_MIN <= watts <= WATTS_MAX:
        raise SizeInvalid(f"must be {WATTS_MIN // 1_000}kW to {WATTS_MAX // 10**9}GW")
    return Size(text=text, watts=int(watts))
