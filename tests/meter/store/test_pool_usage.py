"""Usage by pool on a real Postgres: counted with usage itself, or not at all."""

import pytest
from sqlalchemy import Engine, event

from meter.domain.event import Dimensions, DimensionTable
from meter.domain.interval import INTERVAL_MS
from meter.domain.tokens import TokenClass
from meter.journal.commit import Submission, commit_group
from meter.store.journal import JournalStore
from meter.store.usage import UsageStore
from tests.meter.plain_events import BEGIN_MS, PlainEvent, to_batch
from tests.meter.store.pooled import serve
from tests.meter.store.recording import ask, ask_one, follow, now_ms, origin_of


class CrashedError(Exception):
    """Stands for a process that ends."""


def test_count__pools_of_events(
    usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """Tokens are counted by pool in the same transaction as usage; events without one are not."""
    serve(journal, 0, output=5, others=100)
    serve(journal, 0, output=7)
    serve(journal, 1, output=11, end_ms=BEGIN_MS + INTERVAL_MS)
    serve(journal, 3, output=1_000)
    follow(usage).count_once()
    serve(journal, 0, output=1)
    follow(usage).count_once()
    question = (
        "SELECT pool, tier, account_id, extract(epoch FROM interval_start)::bigint * 1000,"
        " output_tokens, total_tokens, request_count"
        " FROM pool_usage JOIN skus USING (sku_id) ORDER BY 1, 2"
    )
    assert ask(database_url, question) == [
        ("h100", "free", "acme", BEGIN_MS, 13, 113, 3),
        ("h100", "high", "acme", BEGIN_MS + INTERVAL_MS, 11, 11, 1),
    ]


def test_count__accounts_and_kinds_of_tokens(
    usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """Each account has a row, with its prompts, those that a cache had, and its output apart."""
    table = DimensionTable()
    for account in ("acme", "other"):
        table.intern(Dimensions(account, "m", "m", "high", 1, "h100", ""))
    every = {it: 10 ** (number % 6) for number, it in enumerate(TokenClass)}
    events = [
        PlainEvent(dimension=0, end_ms=BEGIN_MS, tokens={int(it): n for it, n in every.items()}),
        PlainEvent(dimension=1, end_ms=BEGIN_MS, tokens={int(TokenClass.AUDIO_CACHE_READ): 7}),
    ]
    batch = to_batch(events, table=table)
    commit_group(journal, [Submission(origin=origin_of(""), batch=batch)], now_ms=now_ms)
    follow(usage).count_once()
    cached = {TokenClass.CACHE_READ, TokenClass.AUDIO_CACHE_READ, TokenClass.IMAGE_CACHE_READ}
    output = {it for it in TokenClass if it.name.endswith("OUTPUT")} | {TokenClass.REASONING}
    sums = [
        sum(every[it] for it in kind)
        for kind in (set(TokenClass) - cached - output, cached, output, TokenClass)
    ]
    question = (
        "SELECT account_id, input_tokens, cached_tokens, output_tokens, total_tokens"
        " FROM pool_usage ORDER BY 1"
    )
    assert ask(database_url, question) == [("acme", *sums), ("other", 0, 7, 0, 7)]
    # However many rows an interval has, it changes once.
    assert ask(database_url, "SELECT pool, version FROM pool_intervals") == [("h100", 1)]


def test_count__crash_leaves_no_pools_behind(
    engine: Engine, usage: UsageStore, journal: JournalStore, database_url: str
) -> None:
    """What is counted by pool goes with the watermark: a round that is lost is counted once."""
    serve(journal, 0, output=5)

    def crash(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("UPDATE counting"):
            raise CrashedError

    event.listen(engine, "after_cursor_execute", crash)
    with pytest.raises(CrashedError):
        follow(usage).count_once()
    event.remove(engine, "after_cursor_execute", crash)
    assert ask(database_url, "SELECT * FROM pool_usage, pool_intervals") == []
    follow(usage).count_once()
    assert ask_one(database_url, "SELECT output_tokens FROM pool_usage") == 5
