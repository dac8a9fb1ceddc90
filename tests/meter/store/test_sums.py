"""Sums on a real Postgres: whatever was folded when, they are what the facts add up to."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from random import Random
from typing import Any, Final, TypedDict

import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.dialects.postgresql import insert

from meter.corrections import (
    CorrectableEvent,
    EventRow,
    NewCorrection,
    Reported,
    from_batch,
)
from meter.domain.cell import cell_at, cells_over
from meter.domain.interval import INTERVAL_MS
from meter.domain.times import to_time
from meter.journal.commit import Submission
from meter.store.cuts import CutStore
from meter.store.facts import FactStore
from meter.store.folding import FoldStore
from meter.store.journal import JournalStore
from meter.store.sums import SumStore
from meter.store.tables import account_parents, usage
from meter.usage import GroupBy, UsageFact, UsageQuery, UsageRow
from tests.meter.plain_events import BEGIN_MS, PlainEvent, to_batch
from tests.meter.store.recording import (
    ACCOUNTS,
    INPUT,
    TABLE,
    commit,
    counting_of,
    follow,
    origin_of,
)

HOUR_MS: Final = 3_600_000
# From the middle of a month: two begins of months and what lies around them.
FIRST_MS: Final = cell_at(BEGIN_MS).start_ms + 10 * 24 * HOUR_MS
SPAN_MS: Final = 60 * 24 * HOUR_MS
MOVES_MAX: Final = 6
Sums = dict[tuple[Any, ...], Counter[str]]


class Span(TypedDict):
    """Whose usage, and of which time."""

    account_ids: list[str]
    start_ms: int
    end_ms: int


def add_up(facts: Iterable[UsageFact], edges_ms: Sequence[int]) -> Sums:
    """Add facts up between edges, by all else that they say but how requests ended."""
    sums: Sums = {}
    for fact in facts:
        place = bisect_right(edges_ms, fact.interval_start_ms)
        sku = (fact.model, fact.served_model, fact.tier, fact.mode, fact.region)
        added = sums.setdefault((fact.account_id, place, sku, fact.band), Counter())
        added.update({it.name: count for it, count in fact.tokens.items()})
        added["requests"] += fact.request_count
    return {key: added for key, added in sums.items() if any(added.values())}


def add_up_rows(rows: Iterable[UsageRow], keys: Sequence[GroupBy]) -> Sums:
    """Add rows up by some of their keys."""
    sums: Sums = {}
    for row in rows:
        added = sums.setdefault(tuple(row.keys[it] for it in keys), Counter())
        added.update({it.name: count for it, count in row.tokens.items()})
        added["requests"] += row.request_count
        added["unfinished"] += row.unfinished_count
        added["delivered"] += row.delivered_output_count
        added["estimated"] += row.estimated_count
    return {key: added for key, added in sums.items() if any(added.values())}


class World:
    """A journal, whoever counts it, and whatever happens to them."""

    def __init__(self, engine: Engine, journal: JournalStore, *, seed: int) -> None:
        self.random = Random(seed)
        self.engine = engine
        self.journal = journal
        self.usage = counting_of(engine)
        self.follower = follow(self.usage)
        self.folding = FoldStore(engine)
        self.cuts = CutStore(engine)
        self.facts = FactStore(engine)
        self.sums = SumStore(engine)
        self.now_ms = FIRST_MS
        self.newest_cut_id = 0
        self.position = 0
        self.move_count = 0
        self.standing: list[tuple[EventRow, CorrectableEvent]] = []

    def act(self) -> None:
        """Do one thing that may happen to a meter."""
        acts = [self.report, self.report, self.count, self.cut, self.fold, self.void, self.move]
        self.random.choice(acts)()

    def report(self) -> None:
        """Record some events, up to now or late, and move on."""
        self.now_ms = min(self.now_ms + self.random.randrange(4 * 24) * HOUR_MS, self.end_ms)
        events = [self.any_event() for _ in range(self.random.randint(1, 4))]
        batch = to_batch(events, table=TABLE)
        commit(self.journal, Submission(origin=origin_of(""), batch=batch))
        self.position += 1
        for row in range(len(events)):
            target = EventRow(0, self.position, row)
            self.standing.append((target, from_batch(batch, row)))

    def any_event(self) -> PlainEvent:
        """Return an event of now, or of any time."""
        return PlainEvent(
            dimension=self.random.randrange(len(TABLE)),
            end_ms=self.random.choice([self.now_ms, self.any_ms()]),
            tokens={INPUT: self.random.choice([0, 1, 50_000]), 7: self.random.randrange(9)},
            extra={"finish": self.random.randint(1, 4), "quality": self.random.randint(1, 3)},
        )

    def count(self) -> None:
        """Count all that is recorded."""
        while self.follower.count_once():
            pass

    def cut(self) -> None:
        """Take a cut."""
        self.newest_cut_id = self.cuts.take_cut(now_ms=self.now_ms).cut_id

    def fold(self) -> None:
        """Fold all that is due, or a part of it."""
        while self.folding.fold_step(now_ms=self.now_ms) and self.random.random() < 0.8:
            pass

    def void(self) -> None:
        """Take one event back."""
        if not self.standing:
            return
        target, before = self.standing.pop(self.random.randrange(len(self.standing)))
        taken_back = NewCorrection(
            target=target, before=before, after=None, reported=Reported(), key_id="k", reason="r"
        )
        batch = taken_back.to_batch(TABLE)
        commit(self.journal, Submission(origin=origin_of(""), batch=batch, corrects=taken_back))
        self.position += 1

    def move(self) -> None:
        """Move an account below another one, at some time; not often."""
        if self.move_count == MOVES_MAX:
            return
        self.move_count += 1
        with self.engine.begin() as connection:
            connection.execute(
                insert(account_parents)
                .values(
                    account_id="team",
                    start_time=to_time(self.any_ms()),
                    parent_id=self.random.choice(["acme", "other"]),
                )
                .on_conflict_do_nothing()
            )

    @property
    def end_ms(self) -> int:
        """The end of all that happens."""
        return FIRST_MS + SPAN_MS

    def any_ms(self) -> int:
        """Return an edge of an interval, often one that cells or months end at."""
        edges = [it.start_ms for it in cells_over(start_ms=FIRST_MS, end_ms=self.end_ms)]
        edges += [it + 14 * HOUR_MS for it in edges]
        near = self.random.choice(edges) + self.random.choice([-1, 0, 0, 0, 1]) * INTERVAL_MS
        far = FIRST_MS + self.random.randrange(SPAN_MS // INTERVAL_MS) * INTERVAL_MS
        return self.random.choice([near, far])

    def ask(self) -> None:
        """Put a question, and compare the answers."""
        account_ids = self.random.sample(ACCOUNTS, self.random.randint(1, len(ACCOUNTS)))
        edges = sorted({self.any_ms() for _ in range(self.random.choice([2, 3, 5, 40]))})
        cut_id = self.random.choice([None, self.random.randint(0, self.newest_cut_id + 1)])
        if len(edges) < 2:
            return
        span = Span(account_ids=account_ids, start_ms=edges[0], end_ms=edges[-1])
        facts = list(self.facts.facts(**span, cut_id=cut_id))
        sums = list(self.sums.sums(account_ids=account_ids, edges_ms=edges, cut_id=cut_id))
        assert add_up(sums, edges) == add_up(facts, edges)
        places = [(it.account_id, it.interval_start_ms) for it in sums]
        assert places == sorted(places)
        assert self.sums.drifted(**span) == frozenset()
        self.check_cuts(span)
        self.check_query(span)

    def check_query(self, span: Span) -> None:
        """Compare what a question says with the same one, split by intervals and added up again."""
        keys = self.random.sample(sorted(set(GroupBy) - {GroupBy.INTERVAL, GroupBy.DAY}), 2)
        whole = UsageQuery(
            account_id=self.random.choice([None, *ACCOUNTS]),
            start_ms=span["start_ms"],
            end_ms=span["end_ms"],
            group_by=tuple(keys),
            tier=self.random.choice(["", "high", "none"]),
        )
        split = replace(whole, group_by=(*keys, GroupBy.INTERVAL))
        rows, _ = self.usage.query(whole)
        parts, _ = self.usage.query(split)
        assert add_up_rows(rows, keys) == add_up_rows(parts, keys)

    def check_cuts(self, span: "Span") -> None:
        """Compare the newest cuts: never too old, and of the cells around at most."""
        account_ids = span["account_ids"]
        latest = self.sums.latest_cuts(**span)
        cells = list(cells_over(start_ms=span["start_ms"], end_ms=span["end_ms"]))
        for account_id in account_ids:
            inside = self.newest_cut(account_id, span["start_ms"], span["end_ms"])
            around = self.newest_cut(account_id, cells[0].start_ms, cells[-1].end_ms)
            assert inside <= latest.get(account_id, 0) <= around

    def newest_cut(self, account_id: str, start_ms: int, end_ms: int) -> int:
        """Return the newest cut of an account's usage in a span, 0 where there is none."""
        newest = select(func.coalesce(func.max(usage.c.cut_id), 0)).where(
            usage.c.account_id == account_id,
            usage.c.interval_start >= to_time(start_ms),
            usage.c.interval_start < to_time(end_ms),
        )
        with self.engine.connect() as connection:
            return int(connection.execute(newest).scalar_one())


@pytest.mark.parametrize(
    ("seed", "questions"), [(1, 200), pytest.param(2, 400, marks=pytest.mark.stacks)]
)
def test_sums__are_the_facts_added_up(
    engine: Engine, journal: JournalStore, seed: int, questions: int
) -> None:
    """Whatever was late, voided, cut and folded, in whatever order: to the token, at any cut."""
    world = World(engine, journal, seed=seed)
    for _ in range(questions):
        world.act()
        world.ask()
    world.count()
    assert world.now_ms == world.end_ms
