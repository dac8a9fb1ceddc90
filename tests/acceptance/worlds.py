"""Random worlds to bill in: price books, contracts, accounts that move, and a month of events.

Plain data, and for a seed always the same as long as the zones are. Whatever is drawn is valid, and
drawn towards edges: of months, intervals, versions and bands, and where clocks change.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from random import Random
from typing import Any, Final
from zoneinfo import ZoneInfo, available_timezones

from tests.acceptance.oracle_accounts import Account, Tree
from tests.acceptance.oracle_bills import (
    BAND_EDGES,
    INTERVAL_MS,
    OUTPUT_CLASSES,
    PROMPT_CLASSES,
    Terms,
    interval_start_ms,
)
from tests.acceptance.oracle_terms import (
    month_span_ms,
    read_books,
    read_contracts,
    to_ms,
    wall_time,
)
from tests.acceptance.world_files import MODELS, TIERS, book_tables, contract_tables

_MINUTE_MS: Final = 60_000
_DAY_MS: Final = 24 * 60 * _MINUTE_MS
# 1980-01-01T15:00Z, in the year 1980 everywhere.
_FIRST_MS: Final = 315_586_800_000
# Months that begin without a midnight, or with two of them.
_ODD_MIDNIGHTS: Final = (
    *(("Africa/Cairo", "2014-08"), ("America/Asuncion", "2017-10"), ("Africa/Tunis", "2005-05")),
    *(("America/Havana", "2026-11"), ("America/St_Johns", "2009-11"), ("Asia/Gaza", "2004-10")),
)
# A price book or a contract begins at most so long before the month.
_BEFORE_MS: Final = 62 * _DAY_MS
_CURRENCIES: Final = ("USD", "USD", "EUR", "CHF", "JPY", "KRW", "BHD", "KWD")
# Amounts of these at the prices above are often halves of a cent, a yen or a fils.
_COUNTS: Final = (1, 3, 100, 1_000, 5_000, 10_000, 100_000, 1_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """TOML texts, accounts, and events in the order in which they are reported.

    An event is what a truth file has a line of, with its `served_model`.
    """

    seed: int
    month: str
    books: tuple[str, ...]
    contracts: tuple[str, ...]
    tree: Tree
    events: tuple[Mapping[str, Any], ...]


def random_world(seed: int) -> World:
    """Draw the world of a seed."""
    draw = _Draw(seed)
    books = {f"book-{index}": draw.currency() for index in range(draw.integer(1, 3))}
    texts = [text for name, currency in books.items() for text in draw.book(name, currency)]
    tree = draw.tree()
    contracts = draw.contracts(tree, books=books)
    return World(
        seed=seed,
        month=draw.month,
        books=tuple(texts),
        contracts=tuple(contracts),
        tree=tree,
        events=tuple(draw.events(list(tree))),
    )


def terms_of(world: World) -> Terms:
    """Read a world's files, for the oracle."""
    books, contracts = read_books(world.books), read_contracts(world.contracts)
    return Terms(world.tree, books=books, contracts=contracts)


@cache
def zones() -> tuple[str, ...]:
    """Return the names of all zones; but for the machine's own, and for none."""
    return tuple(sorted(available_timezones() - {"localtime", "posixrules", "Factory"}))


class _Draw:
    """Draws a world part by part; `edges` are instants at which something changes, in ms."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._seed = seed
        # In a third of the worlds all accounts are covered all the time, and all has a price.
        self._is_whole = self._maybe(0.35)
        self._zone, self.month = self._zone_and_month()
        self._start_ms, self._end_ms = month_span_ms(self.month, zone=self._zone)
        self._edges = [self._start_ms, self._end_ms]
        self._edges += _clock_changes(self._zone, self._start_ms, self._end_ms)

    def integer(self, low: int, high: int) -> int:
        """Draw a number, both ends included."""
        return self._random.randint(low, high)

    def currency(self) -> str:
        """Draw a currency with no, two or three digits behind the point."""
        return self._random.choice(_CURRENCIES)

    def book(self, name: str, currency: str) -> list[str]:
        """Draw the versions of a book."""
        zone = self._other_zone()
        return [
            "\n".join(
                [
                    *("format = 1", f'book = "{name}"', f"from = {_wall(start_ms, zone)}"),
                    *(f'zone = "{zone.key}"', f'currency = "{currency}"', 'missing = "hold"'),
                    book_tables(self._random, is_whole=self._is_whole),
                ]
            )
            for start_ms in self._starts(zone, count_max=3)
        ]

    def tree(self) -> dict[str, Account]:
        """Draw accounts; a parent is always an older account, so none is ever below itself."""
        tree: dict[str, Account] = {}
        for index in range(self.integer(2, 8)):
            parents: list[str | None] = [*tree] if self._is_whole and tree else [None, *tree]
            begins = {self._start_ms - self.integer(0, 60) * _DAY_MS}
            if self._maybe(0.35):
                begins |= {self._edge() for _ in range(self.integer(1, 2))}
            handle = f"team-{index}"
            account = handle if self._maybe(0.3) else f"account-{index}"
            edges = [(at_ms, self._random.choice(parents[-4:])) for at_ms in sorted(begins)]
            tree[account] = Account(handle, tuple(edges))
            self._edges += sorted(begins)
        return tree

    def contracts(
        self,
        tree: Tree,
        *,
        books: Mapping[str, str],
    ) -> list[str]:
        """Draw contracts and their versions; no account is covered by two of them."""
        accounts = self._random.sample(list(tree), k=self.integer(1, min(5, len(tree))))
        if self._is_whole:
            accounts = list(tree)
        count = self.integer(1, min(4, len(accounts)))
        texts = []
        for index in range(count):
            covers = accounts[index::count]
            book = self._random.choice(list(books))
            terms = [f'currency = "{books[book]}"', f'book = "{book}"']
            zone = self._zone if self._maybe(0.6) else self._other_zone()
            self._edges += month_span_ms(self.month, zone=zone)
            starts = self._starts(zone, count_max=2)
            for start_ms, next_ms in zip(starts, [*starts[1:], None], strict=True):
                names = [self._account_name(account, tree=tree) for account in covers]
                texts.append(
                    "\n".join(
                        [
                            *("format = 1", f'contract = "contract-{index}"'),
                            *(f"from = {_wall(start_ms, zone)}", f'zone = "{zone.key}"'),
                            *self._until(start_ms, zone=zone, next_ms=next_ms),
                            *(*terms, f"covers = {json.dumps(names)}"),
                            contract_tables(self._random),
                        ]
                    )
                )
        return texts

    def events(self, accounts: Sequence[str]) -> list[dict[str, Any]]:
        """Draw events, most of them in order; some are late, and some of another month."""
        times = sorted(self._time() for _ in range(self.integer(5, 60)))
        if self._maybe(0.3):
            times += [times.pop(self._random.randrange(len(times))) for _ in range(2)]
        return [
            {
                "account": self._random.choice(accounts),
                "model": self._random.choice(MODELS),
                "served_model": self._random.choice(("", "", *MODELS)),
                "tier": self._random.choice(TIERS[: self._random.choice((3, 5))]),
                "mode": self._random.choice(("online", "batch")),
                "classes": self._classes(),
                "end_time_ms": time_ms,
                "request_id": f"{self._seed}-{number}",
            }
            for number, time_ms in enumerate(times)
        ]

    def _maybe(self, share: float) -> bool:
        return self._random.random() < share

    def _zone_and_month(self) -> tuple[ZoneInfo, str]:
        """Draw where and when; mostly a month in which clocks change."""
        if self._maybe(0.04):
            name, month = self._random.choice(_ODD_MIDNIGHTS)
            return ZoneInfo(name), month
        while True:
            zone = ZoneInfo(self._random.choice(zones()))
            month = f"{self.integer(1980, 2040)}-{self.integer(1, 12):02}"
            start_ms, end_ms = month_span_ms(month, zone=zone)
            changes = _offset(start_ms, zone) != _offset(end_ms, zone)
            if (changes or self._maybe(0.1)) and _is_on_grid(zone, start_ms, end_ms):
                return zone, month

    def _other_zone(self) -> ZoneInfo:
        """Draw a zone, often the world's own, and take in when its clocks change."""
        if self._maybe(0.4):
            return self._zone
        while True:
            zone = ZoneInfo(self._random.choice(zones()))
            if _is_on_grid(zone, self._start_ms, self._end_ms):
                self._edges += _clock_changes(zone, self._start_ms, self._end_ms)
                return zone

    def _edge(self) -> int:
        """Draw an edge of an interval in the month, often one that matters already."""
        if self._maybe(0.25):
            inside = [it for it in self._edges if self._start_ms <= it < self._end_ms]
            return interval_start_ms(self._random.choice(inside))
        count = (self._end_ms - self._start_ms) // INTERVAL_MS
        return self._start_ms + self._random.randrange(count) * INTERVAL_MS

    def _starts(self, zone: ZoneInfo, *, count_max: int) -> list[int]:
        """Draw begins of versions that can be written in the zone; the first is mostly earlier."""
        starts: set[int] = set()
        count = self.integer(1, count_max)
        while len(starts) < count:
            at_ms = self._edge()
            if not starts and (self._is_whole or self._maybe(0.6)):
                at_ms = self._start_ms - self.integer(30 * 96, 60 * 96) * INTERVAL_MS
            at_ms = max(at_ms, _FIRST_MS)
            if _is_writable(at_ms, zone):
                starts.add(at_ms)
        self._edges += sorted(starts)
        return sorted(starts)

    def _until(self, start_ms: int, *, zone: ZoneInfo, next_ms: int | None) -> list[str]:
        end_ms = self._edge()
        is_after = start_ms < end_ms and (next_ms is None or end_ms <= next_ms)
        if self._is_whole or self._maybe(0.7) or not is_after or not _is_writable(end_ms, zone):
            return []
        self._edges.append(end_ms)
        return [f"until = {_wall(end_ms, zone)}"]

    def _time(self) -> int:
        """Draw the end of a request: at, right before or near an edge, or anywhere."""
        if self._maybe(0.5):
            near = (-INTERVAL_MS, -1, 0, 0, 1, INTERVAL_MS)
            month = self._start_ms - _DAY_MS, self._end_ms + _DAY_MS
            edges = [it for it in self._edges if month[0] <= it <= month[1]]
            return self._random.choice(edges) + self._random.choice(near)
        if self._maybe(0.05):
            return self._start_ms - self.integer(0, 20 * _DAY_MS)
        return self.integer(self._start_ms, self._end_ms - 1)

    def _classes(self) -> dict[str, int]:
        """Draw the tokens of a request, the prompt often at the edge of a band."""
        prompt = self._random.choice(_COUNTS) * self.integer(1, 9)
        if self._maybe(0.5):
            prompt = max(0, self._random.choice(BAND_EDGES) + self.integer(-1, 1))
        first, *others = self._sample(
            ("input", "cache_read", *sorted(PROMPT_CLASSES)), low=1, high=3
        )
        classes = {}
        for name in others:
            classes[name] = self.integer(0, prompt)
            prompt -= classes[name]
        classes[first] = prompt
        for name in self._sample(("output", "reasoning", *sorted(OUTPUT_CLASSES)), low=0, high=2):
            classes[name] = self._random.choice(_COUNTS) * self.integer(1, 9)
        return classes if any(classes.values()) else {"output": 1}

    def _sample(self, of_all: Sequence[str], *, low: int, high: int) -> list[str]:
        drawn = self._random.sample(of_all, k=self.integer(low, high))
        return list(dict.fromkeys(drawn))

    def _account_name(self, account: str, *, tree: Tree) -> str:
        """Draw a way to name an account; by its path only if that never changes."""
        names = [f"id:{account}", account]
        line = [account]
        while (above := tree[line[-1]].parents[0][1]) is not None:
            line.append(above)
        if all(len(tree[it].parents) == 1 for it in line):
            path = "/".join(tree[it].handle for it in reversed(line))
            names += [path, f"/{path}"]
        return self._random.choice(names)


def _wall(at_ms: int, zone: ZoneInfo) -> str:
    return wall_time(at_ms, zone=zone).isoformat()


def _offset(at_ms: int, zone: ZoneInfo) -> timedelta:
    return datetime.fromtimestamp(at_ms // 1000, zone).utcoffset() or timedelta()


def _is_on_grid(zone: ZoneInfo, start_ms: int, end_ms: int) -> bool:
    """Tell whether the zone's quarters of an hour are ours, from two months before on."""
    days = range(start_ms - _BEFORE_MS, end_ms + _DAY_MS, _DAY_MS)
    return not any(_offset(at_ms, zone) % timedelta(minutes=15) for at_ms in days)


def _is_writable(at_ms: int, zone: ZoneInfo) -> bool:
    """Tell whether a local time means this instant, and no other one."""
    wall = wall_time(at_ms, zone=zone)
    return all(to_ms(wall.replace(tzinfo=zone, fold=fold)) == at_ms for fold in (0, 1))


def _clock_changes(zone: ZoneInfo, start_ms: int, end_ms: int) -> list[int]:
    """Return the first minutes after clocks were changed."""
    found = []
    for day_ms in range(start_ms, end_ms, _DAY_MS):
        low_ms, high_ms = day_ms, day_ms + _DAY_MS
        if _offset(low_ms, zone) != _offset(high_ms, zone):
            while high_ms - low_ms > _MINUTE_MS:
                middle_ms = (low_ms + high_ms) // (2 * _MINUTE_MS) * _MINUTE_MS
                if _offset(middle_ms, zone) == _offset(day_ms, zone):
                    low_ms = middle_ms
                else:
                    high_ms = middle_ms
            found.append(high_ms)
    return found
