"""Corrections in a real Postgres: one for each event, in order, and sums as if it had been so."""

import random
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import psycopg
import pytest
from sqlalchemy import Engine

from meter import segment
from meter.corrections import ById, EventRow, Found, NewCorrection, Reported, Search, from_batch
from meter.domain.errors import Unavailable
from meter.domain.event import Dimensions, DimensionTable, Origin
from meter.domain.interval import INTERVAL_MS
from meter.domain.tokens import BAND_EDGES, Mode, TokenClass
from meter.evidence import EvidenceQuery
from meter.journal.commit import Result, Submission, commit_group
from meter.store.corrections import CorrectionStore
from meter.store.evidence import EvidenceStore
from meter.store.journal import JournalStore
from tests.meter.plain_events import BEGIN_MS, PlainEvent, to_batch
from tests.meter.store.attributed import attribute_all, put_energy
from tests.meter.store.recording import (
    Heard,
    ask,
    ask_one,
    commit,
    counting_of,
    follow,
    holding,
    now_ms,
    owner,
    wait_for_lock,
)

GENERATED: Final = frozenset({7, 8, 22, 32, 41})
ORIGIN: Final = Origin(account_id="acme", key_id="key_1", received_ms=BEGIN_MS)
# By account, interval, tier, model, band and way of ending.
Key = tuple[Any, ...]


def table_of_places() -> DimensionTable:
    """Return dimensions of two accounts, tiers and pools, one without a pool."""
    table = DimensionTable()
    for account in ("acme", "other"):
        for tier, pool in (("high", "hall-1"), ("free", "hall-1"), ("high", "")):
            table.intern(Dimensions(account, "m", "m", tier, 1, pool, ""))
    return table


TABLE: Final = table_of_places()


def draw_event(draw: random.Random, number: int) -> PlainEvent:
    """Return an event with this number as its id."""
    classes = draw.sample([int(it) for it in TokenClass], draw.randint(0, 3))
    edge = draw.choice(BAND_EDGES)
    return PlainEvent(
        dimension=draw.randrange(len(TABLE)),
        end_ms=BEGIN_MS + draw.randrange(3) * INTERVAL_MS,
        tokens={it: draw.choice([1, edge - 1, edge, 7_000]) for it in classes},
        extra={"finish": draw.randint(1, 4), "quality": draw.randint(1, 3)},
        event_id=number.to_bytes(16, "big"),
        request_id=f"r-{number}",
    )


def record(store: JournalStore, events: Sequence[PlainEvent]) -> None:
    """Write the events as one segment of a call."""
    commit(store, Submission(origin=ORIGIN, batch=to_batch(events, table=TABLE)))


def find(store: CorrectionStore, number: int) -> Found:
    """Return the event with this number as its id."""
    wanted = ById(event_id=number.to_bytes(16, "big"))
    return store.find_event(Search(event=wanted, account_id="acme", start_ms=0, end_ms=None))


def correction(found: Found, after: PlainEvent | None, *, reason: str = "r") -> Submission:
    """Return the correction of what was found."""
    batch = None if after is None else to_batch([after], table=TABLE)
    wanted = NewCorrection(
        target=found.target,
        before=found.event,
        after=None if batch is None else from_batch(batch),
        reported=found.reported,
        key_id="key_1",
        reason=reason,
    )
    return Submission(origin=ORIGIN, batch=wanted.to_batch(TABLE), corrects=wanted)


def key_of(event: PlainEvent) -> Key:
    """Return where an event is counted, by the words of the contract."""
    at = TABLE[event.dimension]
    prompt = sum(count for number, count in event.tokens.items() if number not in GENERATED)
    band = len([edge for edge in BAND_EDGES if prompt >= edge])
    finish_class = {1: 1, 2: 1, 3: 2, 4: 3}[event.extra.get("finish", 1)]
    start = event.end_ms // INTERVAL_MS * INTERVAL_MS
    return (at.account, start, at.tier, band, finish_class)


def sums_of(events: Sequence[PlainEvent]) -> dict[Key, Counter[str]]:
    """Return the sums of usage, event by event."""
    sums: dict[Key, Counter[str]] = {}
    for event in events:
        row = sums.setdefault(key_of(event), Counter())
        generated = sum(count for number, count in event.tokens.items() if number in GENERATED)
        total = sum(event.tokens.values())
        row.update({TokenClass(it).name.lower(): count for it, count in event.tokens.items()})
        row["request_count"] += 1
        row["delivered_output_count"] += generated if key_of(event)[-1] == 1 else 0
        row["estimated_count"] += total if event.extra.get("quality", 1) != 1 else 0
    return {key: +row for key, row in sums.items()}


def usage_in(database_url: str) -> dict[Key, Counter[str]]:
    """Return the sums of the usage table over all cuts, without keys of which nothing is left."""
    names = [it.name.lower() for it in TokenClass]
    names += ["request_count", "delivered_output_count", "estimated_count"]
    columns = ", ".join(f"sum(u.{name})::bigint" for name in names)
    rows = ask(
        database_url,
        "SELECT u.account_id, (extract(epoch FROM u.interval_start) * 1000)::bigint, s.tier,"
        f" u.band, u.finish_class, {columns} FROM usage u JOIN skus s USING (sku_id)"
        " GROUP BY 1, 2, 3, 4, 5",
    )
    found = {tuple(row[:5]): Counter(dict(zip(names, row[5:], strict=True))) for row in rows}
    assert all(min(row.values()) >= 0 for row in found.values()), "nothing is taken back twice"
    return {key: +row for key, row in found.items() if any(row.values())}


def pool_usage_of(events: Sequence[PlainEvent]) -> dict[Key, tuple[int, int, int]]:
    """Return output, all tokens and requests by pool, interval and tier, event by event."""
    sums: dict[Key, Counter[str]] = {}
    for event in events:
        at = TABLE[event.dimension]
        if at.pool:
            row = sums.setdefault((at.pool, key_of(event)[1], at.tier), Counter())
            row["output"] += sum(n for it, n in event.tokens.items() if it in GENERATED)
            row["total"] += sum(event.tokens.values())
            row["requests"] += 1
    return {key: (row["output"], row["total"], row["requests"]) for key, row in sums.items()}


def pool_usage_in(database_url: str) -> dict[Key, tuple[int, int, int]]:
    """Return the sums of the table by pool, without those of which nothing is left."""
    rows = ask(
        database_url,
        "SELECT u.pool, (extract(epoch FROM u.interval_start) * 1000)::bigint, s.tier,"
        " sum(u.output_tokens)::bigint, sum(u.total_tokens)::bigint, sum(u.request_count)::bigint"
        " FROM pool_usage u JOIN skus s USING (sku_id) GROUP BY 1, 2, 3",
    )
    return {tuple(row[:3]): (row[3], row[4], row[5]) for row in rows if any(row[3:])}


def evidence_of(engine: Engine, *, cut_id: int) -> int:
    """Return the tokens of acme at tier high, class INPUT, that the journal's segments prove."""
    query = EvidenceQuery(
        places={"acme": [BEGIN_MS + step * INTERVAL_MS for step in range(3)]},
        model="m",
        served_model="",
        tier="high",
        mode=Mode.ONLINE,
        token_class=TokenClass.INPUT,
        bands=range(len(BAND_EDGES) + 1),
        cut_id=cut_id,
    )
    return sum(it.token_count for it in EvidenceStore(engine).find_segments(query))


@pytest.mark.parametrize("seed", range(3))
def test_usage__is_that_of_the_surviving_events(
    engine: Engine, store: JournalStore, database_url: str, seed: int
) -> None:
    """After random voids and replacements every sum is as if what survives alone had been sent."""
    draw = random.Random(seed)
    usage, corrections = counting_of(engine), CorrectionStore(engine, own_shard=lambda: 0)
    surviving = {number: draw_event(draw, number) for number in range(1, 61)}
    record(store, list(surviving.values()))
    follower = follow(usage)
    for step in range(60):
        number = draw.randint(1, 60)
        found = find(corrections, number)
        assert (found.last is not None and found.last.after is None) == (number not in surviving)
        if number not in surviving:
            continue
        after = draw_event(draw, number) if draw.random() < 0.6 else None
        (result,) = commit(store, correction(found, after))
        assert result.correction_id
        if after is None:
            del surviving[number]
        else:
            surviving[number] = after
        if step % 20 == 0:
            follower.count_once()
            usage.take_cut_if_due(now_ms=BEGIN_MS + step * 10**8, every_ms=1)
    follower.count_once()
    left = list(surviving.values())
    assert usage_in(database_url) == sums_of(left)
    assert pool_usage_in(database_url) == pool_usage_of(left)
    cut = usage.take_cut_if_due(now_ms=2 * BEGIN_MS, every_ms=1)
    assert cut is not None
    wanted = sum(
        event.tokens.get(TokenClass.INPUT, 0)
        for event in left
        if (key_of(event)[0], key_of(event)[2]) == ("acme", "high")
    )
    assert evidence_of(engine, cut_id=cut) == wanted


def test_usage__below_a_cut_stays(engine: Engine, store: JournalStore, database_url: str) -> None:
    """What is taken back is counted under the cut that is open: what was closed does not change."""
    usage = counting_of(engine)
    event = PlainEvent(dimension=0, end_ms=BEGIN_MS, tokens={1: 7}, event_id=bytes([1] * 16))
    record(store, [event])
    follow(usage).count_once()
    cut = usage.take_cut_if_due(now_ms=BEGIN_MS, every_ms=1)
    assert cut == 1
    found = find(CorrectionStore(engine, own_shard=lambda: 0), int.from_bytes(event.event_id))
    commit(store, correction(found, None))
    follow(usage).count_once()
    rows = ask(database_url, "SELECT cut_id, input, request_count FROM usage ORDER BY 1")
    assert rows == [(1, 7, 1), (2, -7, -1)]


def test_follower__tells_of_reports_alone(engine: Engine, store: JournalStore) -> None:
    """Counters of what the factory puts out neither fall nor rise with a correction."""
    heard, usage = Heard(), counting_of(engine)
    record(store, [PlainEvent(dimension=0, end_ms=BEGIN_MS, tokens={1: 7}, event_id=b"1" * 16)])
    corrections = CorrectionStore(engine, own_shard=lambda: 0)
    after = PlainEvent(dimension=0, end_ms=BEGIN_MS, tokens={1: 9})
    commit(store, correction(find(corrections, int.from_bytes(b"1" * 16)), after))
    follow(usage, heard=heard).count_once()
    assert heard.tokens == {1: 7}
    commit(store, correction(find(corrections, int.from_bytes(b"1" * 16)), None))
    follow(usage, heard=heard).count_once()
    assert heard.tokens == {1: 7}


def test_commit__one_of_two_in_a_group(engine: Engine, store: JournalStore) -> None:
    """Two corrections of one event in one group: the first is written, the other told so."""
    record(store, [PlainEvent(dimension=0, end_ms=BEGIN_MS, tokens={1: 7}, event_id=b"1" * 16)])
    corrections = CorrectionStore(engine, own_shard=lambda: 0)
    found = find(corrections, int.from_bytes(b"1" * 16))
    results = commit(store, correction(found, None, reason="a"), correction(found, None))
    assert [bool(result.correction_id) for result in results] == [True, False]
    (kept,) = corrections.list_corrections(after_id=0, limit=9)
    assert kept == corrections.find_correction(found.target)
    assert (kept.correction_id, kept.reason) == (results[0].correction_id, "a")
    # A correction's own rows are no event that a report has made.
    assert find(corrections, int.from_bytes(b"1" * 16)).last == kept
    assert corrections.find_correction(EventRow(0, 2, 0)) is None


def test_commit__in_the_order_of_the_events(engine: Engine, store: JournalStore) -> None:
    """A group's corrections are written by place, in which all servers wait for each other."""
    for digit in b"123":
        event = PlainEvent(dimension=0, end_ms=BEGIN_MS, tokens={}, event_id=bytes([digit] * 16))
        record(store, [event])
    corrections = CorrectionStore(engine, own_shard=lambda: 0)
    found = [find(corrections, int.from_bytes(bytes([digit] * 16))) for digit in b"312"]
    results = commit(store, *(correction(each, None) for each in found))
    numbers = [result.correction_id for result in results]
    assert sorted(numbers) == [numbers[1], numbers[2], numbers[0]]


def test_commit__of_two_servers_at_once(engine: Engine, database_url: str) -> None:
    """Two servers correct one event: the second waits for the first, and writes nothing."""
    first, second = owner(engine), owner(engine, shard=1)
    record(first, [PlainEvent(dimension=0, end_ms=BEGIN_MS, tokens={1: 7}, event_id=b"1" * 16)])
    usages = [counting_of(engine), counting_of(engine, shard=1)]
    follow(usages[0]).count_once()
    found = find(CorrectionStore(engine, own_shard=lambda: 1), int.from_bytes(b"1" * 16))
    mine, other = correction(found, None), correction(found, None)
    assert mine.corrects is not None
    with ThreadPoolExecutor(1) as pool:
        with first.transaction() as transaction:
            assert transaction.correct(mine.corrects, now_ms=BEGIN_MS)
            waiting = pool.submit(commit_group, second, [other], now_ms=now_ms)
            wait_for_lock(database_url)
            commit_body(first, transaction, mine)
        (result,) = waiting.result()
    assert isinstance(result, Result)
    assert result.correction_id == 0
    for usage in usages:
        follow(usage).count_once()
    assert ask(database_url, "SELECT sum(input)::int, sum(request_count)::int FROM usage") == [
        (0, 0)
    ]
    assert ask_one(database_url, "SELECT position FROM shards WHERE shard = 1") == 0


def commit_body(store: JournalStore, transaction: Any, item: Submission) -> None:  # noqa: ANN401
    """Append a correction's segment in an open transaction."""
    store.ensure_dimensions([item.batch])
    part = segment.gather([(item.origin, item.batch)], dimension_ids=store.dimension_ids)
    transaction.append(part)


def test_find__waits_until_another_shard_is_counted(engine: Engine, store: JournalStore) -> None:
    """No cut may hold what is taken back without what was counted: an uncounted event waits."""
    record(store, [PlainEvent(dimension=0, end_ms=BEGIN_MS, tokens={1: 7}, event_id=b"1" * 16)])
    elsewhere = CorrectionStore(engine, own_shard=lambda: 1)
    with pytest.raises(Unavailable, match="not counted yet"):
        find(elsewhere, int.from_bytes(b"1" * 16))
    found = find(CorrectionStore(engine, own_shard=lambda: 0), int.from_bytes(b"1" * 16))
    follow(counting_of(engine)).count_once()
    assert find(elsewhere, int.from_bytes(b"1" * 16)) == found


def test_commit__after_the_shard_was_lost(engine: Engine, database_url: str) -> None:
    """An event that was ours to correct when it was found waits, once the shard is another's."""
    leases = holding(engine, shard=0)
    store = JournalStore(engine, leases=leases)
    owner(engine, shard=1)
    usages = [counting_of(engine, shard=shard) for shard in (0, 1)]
    record(store, [PlainEvent(dimension=0, end_ms=BEGIN_MS, tokens={1: 7}, event_id=b"1" * 16)])
    found = find(CorrectionStore(engine, own_shard=lambda: leases.shard), int.from_bytes(b"1" * 16))
    owner(engine, shard=0)
    leases.lost(leases.current())
    with pytest.raises(Unavailable, match="not counted yet"):
        commit(store, correction(found, None))
    assert ask_one(database_url, "SELECT count(*) FROM corrections") == 0
    follow(usages[0]).count_once()
    commit(store, correction(found, None))
    assert ask(database_url, "SELECT shard, correction_shard FROM corrections") == [(0, 2)]


def test_view__has_what_was_taken_back_and_what_counts(
    engine: Engine, store: JournalStore, database_url: str
) -> None:
    """The reader's role reads corrections by account and class, signed, with who and why."""
    event = PlainEvent(
        dimension=0, end_ms=BEGIN_MS + 5, tokens={1: 7, 7: 2}, event_id=b"1" * 16, request_id="ü"
    )
    record(store, [event, PlainEvent(dimension=1, end_ms=BEGIN_MS, tokens={}, event_id=b"2" * 16)])
    corrections = CorrectionStore(engine, own_shard=lambda: 0)
    after = PlainEvent(dimension=3, end_ms=BEGIN_MS, tokens={1: 9}, extra={"finish": 3})
    commit(store, correction(find(corrections, int.from_bytes(b"1" * 16)), after, reason="why"))
    commit(store, correction(find(corrections, int.from_bytes(b"2" * 16)), None))
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SET ROLE tokenworks_reader")
        rows = connection.execute(
            "SELECT kind, sign, account_id, handle, tier, model, token_class, tokens, key_id,"
            " reason, (extract(epoch FROM end_time) * 1000)::bigint FROM usage_corrections"
            " ORDER BY correction_id, sign, token_class"
        ).fetchall()
    assert rows == [
        ("replace", -1, *("acme", "acme", "high", "m"), "input", -7, "key_1", "why", BEGIN_MS + 5),
        ("replace", -1, *("acme", "acme", "high", "m"), "output", -2, "key_1", "why", BEGIN_MS + 5),
        ("replace", 1, *("other", "other", "high", "m"), "input", 9, "key_1", "why", BEGIN_MS),
        ("void", -1, *("acme", "acme", "free", "m"), None, 0, "key_1", "r", BEGIN_MS),
    ]
    (first, second) = corrections.list_corrections(after_id=0, limit=9)
    assert first.before == from_batch(to_batch([event], table=TABLE))
    assert first.after == from_batch(to_batch([after], table=TABLE))
    assert (second.after, second.reported) == (None, Reported())


def test_energy__stays_exact(engine: Engine, store: JournalStore, database_url: str) -> None:
    """After a void the pool's energy is shared out anew: to others, or to nobody, and all of it."""
    events = [
        PlainEvent(dimension=0, end_ms=BEGIN_MS, tokens={7: 30}, event_id=b"1" * 16),
        PlainEvent(dimension=1, end_ms=BEGIN_MS, tokens={7: 10}, event_id=b"2" * 16),
    ]
    record(store, events)
    usage, corrections = counting_of(engine), CorrectionStore(engine, own_shard=lambda: 0)
    follow(usage).count_once()
    put_energy(database_url, 1001, pool="hall-1")
    attribute_all(engine)
    assert shares_in(database_url) == {"high": 751, "free": 250}
    commit(store, correction(find(corrections, int.from_bytes(b"1" * 16)), None))
    follow(usage).count_once()
    attribute_all(engine)
    assert shares_in(database_url) == {"free": 1001}
    commit(store, correction(find(corrections, int.from_bytes(b"2" * 16)), None))
    follow(usage).count_once()
    attribute_all(engine)
    assert shares_in(database_url) == {"no_tokens": 1001}


def shares_in(database_url: str) -> dict[str, int]:
    """Return the millijoules of each tier, and of each reason why they are nobody's."""
    rows = ask(
        database_url,
        "SELECT coalesce(s.tier, e.reason), sum(e.energy_mj)::bigint FROM energy_shares e"
        " LEFT JOIN skus s USING (sku_id) GROUP BY 1 HAVING sum(e.energy_mj) <> 0",
    )
    return dict(rows)
