"""Usage made again from the journal is the usage that counting kept, to the token."""

from collections.abc import Iterable, Sequence
from random import Random

import pytest
from sqlalchemy import Engine

from meter.counting.auditor import Auditor, Read
from meter.counting.rebuild import Rebuilding, RebuiltUsage
from meter.domain.interval import INTERVAL_MS
from meter.domain.tokens import TokenClass
from meter.journal.commit import Submission, commit_group
from meter.store.audit import AuditStore
from meter.store.cuts import CutStore
from meter.store.facts import FactStore
from meter.store.journal import JournalStore
from meter.store.sums import SumStore
from meter.store.usage import UsageStore
from meter.usage import UsageFact
from tests.meter.plain_events import BEGIN_MS, PlainEvent, to_batch
from tests.meter.store.recording import ACCOUNTS, TABLE, administrator, follow, now_ms, origin_of

DAYS = 3
SPAN = (BEGIN_MS // INTERVAL_MS * INTERVAL_MS, BEGIN_MS + DAYS * 24 * 3600 * 1000)


def rebuild(engine: Engine) -> RebuiltUsage:
    """Make usage again from the journal."""
    rebuilding = Rebuilding()

    def take(read: Read) -> None:
        rebuilding.add(
            read.segment, cut_id=read.cut_id, window=read.window, catalogue=read.catalogue
        )

    Auditor(AuditStore(engine)).audit(since_ms=None, until_ms=None, on_read=take)
    return rebuilding.usage()


def added(facts: Iterable[UsageFact]) -> dict[tuple[object, ...], int]:
    """Return the tokens and requests of facts by key, however they ended."""
    sums: dict[tuple[object, ...], int] = {}
    for it in facts:
        key = (it.account_id, it.interval_start_ms, it.model, it.served_model, it.tier, it.band)
        for name, count in [*it.tokens.items(), ("requests", it.request_count)]:
            sums[*key, name] = sums.get((*key, name), 0) + count
    return {key: count for key, count in sums.items() if count}


def facts_of(
    usage: RebuiltUsage | FactStore, accounts: Sequence[str], *, cut_id: int | None = None
) -> dict[tuple[object, ...], int]:
    """Return what accounts have in all of the span."""
    return added(usage.facts(account_ids=accounts, start_ms=SPAN[0], end_ms=SPAN[1], cut_id=cut_id))


@pytest.fixture
def filled(journal: JournalStore, usage: UsageStore, engine: Engine) -> Random:
    """Three days of random events under four cuts, some of them late: what drew them."""
    random = Random(7)
    classes = [int(TokenClass.INPUT), int(TokenClass.OUTPUT), int(TokenClass.CACHE_READ)]
    for _ in range(4):
        events = [
            PlainEvent(
                dimension=random.randrange(len(ACCOUNTS)),
                end_ms=BEGIN_MS + random.randrange(DAYS * 24 * 3600 * 1000),
                tokens={random.choice(classes): random.choice([1, 9, 40_000, 1_200_000])},
            )
            for _ in range(60)
        ]
        submission = Submission(origin=origin_of(""), batch=to_batch(events, table=TABLE))
        commit_group(journal, [submission], now_ms=now_ms)
        while follow(usage).count_once():
            pass
        CutStore(engine).take_cut(now_ms=BEGIN_MS)
    return random


@pytest.mark.usefixtures("filled")
def test_facts__of_the_journal_are_those_of_usage(engine: Engine) -> None:
    """For any accounts and any cut, what is rebuilt is what was kept."""
    rebuilt, kept = rebuild(engine), FactStore(engine)
    for accounts in (ACCOUNTS, ("team",), ("nobody",)):
        for cut_id in (None, 0, 1, 3, 9):
            found = facts_of(rebuilt, accounts, cut_id=cut_id)
            assert found == facts_of(kept, accounts, cut_id=cut_id)
            assert bool(found) == (accounts != ("nobody",) and cut_id != 0)


def test_sums__of_the_journal_are_those_of_usage(engine: Engine, filled: Random) -> None:
    """Between any edges, what is rebuilt adds up to what was kept, and comes in the same order."""
    rebuilt, kept = rebuild(engine), SumStore(engine)
    for cut_id in (None, 2):
        count = (SPAN[1] - SPAN[0]) // INTERVAL_MS
        inner = sorted(filled.sample(range(1, count), 5))
        edges = [SPAN[0] + place * INTERVAL_MS for place in (0, *inner, count)]
        found = list(rebuilt.sums(account_ids=ACCOUNTS, edges_ms=edges, cut_id=cut_id))
        wanted = list(kept.sums(account_ids=ACCOUNTS, edges_ms=edges, cut_id=cut_id))
        assert added(found) == added(wanted)
        order = [(it.account_id, it.interval_start_ms) for it in found]
        assert order == sorted(order)


@pytest.mark.usefixtures("filled")
def test_rebuild__does_not_look_at_usage(engine: Engine, database_url: str) -> None:
    """A row of usage that was changed by hand is not what is rebuilt."""
    before = facts_of(rebuild(engine), ACCOUNTS)
    with administrator(database_url) as connection:
        connection.execute("UPDATE usage SET input = input + 1")
    assert facts_of(rebuild(engine), ACCOUNTS) == before
    assert facts_of(FactStore(engine), ACCOUNTS) != before


@pytest.mark.usefixtures("filled")
def test_latest_cuts__of_the_journal_are_those_of_usage(engine: Engine) -> None:
    """The newest cut of an account's usage is told by the journal too."""
    rebuilt = rebuild(engine)
    latest = rebuilt.latest_cuts(account_ids=ACCOUNTS, start_ms=SPAN[0], end_ms=SPAN[1])
    assert latest == dict.fromkeys(ACCOUNTS, 4)
    assert rebuilt.accounts_with_usage(start_ms=SPAN[0], end_ms=SPAN[1]) == set(ACCOUNTS)
