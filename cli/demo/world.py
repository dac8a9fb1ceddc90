"""The demo's factory and its customers: who asks for what, under which contract, on which pool.

All of it is made up. What is handed to the product stands as TOML in `cli/demo/terms`.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from importlib.resources import files
from typing import Final
from zoneinfo import ZoneInfo

from cli.demo.teams import (
    AUCKLAND,
    AUCKLAND_TEAMS,
    BERLIN,
    BERLIN_TEAMS,
    LATENCY,
    LOS_ANGELES,
    LOS_ANGELES_TEAMS,
    RESEARCH,
    RESEARCH_TEAM,
    THROUGHPUT,
    Team,
)

MONTH: Final = "2026-10"
# Local days, the same dates for every customer.
DAYS: Final = tuple(date(2026, 10, 1) + timedelta(days=day) for day in range(31))
# The clock begins before October does in Auckland, and ends when it ends in Los Angeles.
BEGIN: Final = datetime(2026, 9, 30, tzinfo=UTC)
END: Final = datetime(2026, 11, 1, 7, tzinfo=UTC)
# A day for which events were reported, ahead of which this is done.
PRICE_IMPORT: Final = date(2026, 10, 10)
PREVIEW: Final = date(2026, 10, 15)
KILL: Final = date(2026, 10, 16)
MOVE_ORDER: Final = date(2026, 10, 18)
# 00:00 in Los Angeles.
PRICE_CHANGE: Final = datetime(2026, 10, 15, 7, tzinfo=UTC)
# 02:00 in Berlin comes a second time.
CLOCK_CHANGE: Final = datetime(2026, 10, 25, 1, tzinfo=UTC)

# Where each server's requests run; a pool's servers share its requests.
SERVERS: Final = (THROUGHPUT, THROUGHPUT, THROUGHPUT, LATENCY)

BOOKS: Final = ("retail-september", "keynote")
NEW_BOOK: Final = "retail-october"
FACTORY: Final = "factory"


@dataclass(frozen=True, slots=True, kw_only=True)
class Customer:
    """An account with a contract of its own, and the time zone of its months."""

    account: str
    name: str
    zone: ZoneInfo
    book: str
    teams: tuple[Team, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """A team that goes to another customer; its requests are billed there from then on."""

    account: str
    parent: str
    time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Boards:
    """The accelerators of a pool: watts of each, at rest and at most."""

    count: int
    idle_watts: int
    peak_watts: int


BOARDS: Final = {
    THROUGHPUT: Boards(count=4, idle_watts=110, peak_watts=690),
    LATENCY: Boards(count=2, idle_watts=140, peak_watts=980),
}
CUSTOMERS: Final = (
    Customer(
        account="berlin",
        name="Spree Robotics",
        zone=BERLIN,
        book="retail",
        teams=BERLIN_TEAMS,
    ),
    Customer(
        account="los-angeles",
        name="Sunset Studios",
        zone=LOS_ANGELES,
        book="retail",
        teams=LOS_ANGELES_TEAMS,
    ),
    Customer(
        account="auckland",
        name="Kea Logistics",
        zone=AUCKLAND,
        book="retail",
        teams=AUCKLAND_TEAMS,
    ),
    Customer(
        account=RESEARCH,
        name="Helix Research",
        zone=LOS_ANGELES,
        book="keynote",
        teams=(RESEARCH_TEAM,),
    ),
)
TEAMS: Final = tuple(team for customer in CUSTOMERS for team in customer.teams)
# 00:00 in Auckland. Its October, in which the team lives on, ends before that of Los Angeles.
MOVE: Final = Move(
    account="auckland-helpdesk",
    parent="los-angeles",
    time=datetime(2026, 10, 19, 11, tzinfo=UTC),
)


def read_terms(name: str) -> str:
    """Return the text of a book or contract of the demo, or of its factory's description."""
    return files("cli.demo").joinpath("terms", f"{name}.toml").read_text("utf-8")


def find_payer(account: str, *, at_ms: int) -> str:
    """Return the customer (its id) who pays for an account's requests that end at a time (ms)."""
    if account == MOVE.account and at_ms >= to_ms(MOVE.time):
        return MOVE.parent
    return _PAYERS[account]


def month_span(zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Return begin and end of October in a zone, in UTC."""
    return day_span(DAYS[0], zone)[0], day_span(DAYS[-1], zone)[1]


def day_span(day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Return begin and end of a local day, in UTC: 23, 24 or 25 hours."""
    begin, end = (
        datetime(it.year, it.month, it.day, tzinfo=zone).astimezone(UTC)
        for it in (day, day + timedelta(days=1))
    )
    return begin, end


def to_ms(time: datetime) -> int:
    """Return ms since 1970."""
    return (time - _EPOCH) // timedelta(milliseconds=1)


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PAYERS: Final = {team.account: team.parent or team.account for team in TEAMS}
