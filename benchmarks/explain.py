"""The row of explaining a line: one account's month among a hundred million events."""

import time
from dataclasses import dataclass
from typing import Final

import numpy as np
import psycopg

import meter.lending
from benchmarks.measurement import Measurement, check_answer
from benchmarks.plant import running_database
from benchmarks.workload import ACCOUNTS, MODELS, TIERS, account_name, lengths
from billing.app import make_parts
from billing.drafting import UTC_ZONE
from billing.periods import Span, month_span
from meter import segment
from meter.counting.aggregate import aggregate
from meter.domain.event import Dimensions, DimensionTable, EventBatch, Int64Array, Origin
from meter.domain.times import to_time
from meter.domain.tokens import TokenClass
from meter.leases import Leases
from meter.options import JobOptions
from meter.runtime.engine import make_engine
from meter.store.journal import JournalStore
from meter.store.leases import LeaseStore
from meter.store.usage import UsageStore

_SEGMENT_EVENTS: Final = 100_000
_DRAWN: Final = 2_000_000
# How long the events of one segment took to end.
_SEGMENT_SPAN_MS: Final = 2_000
_EVENTS_PER_SECOND: Final = 10_000_000
# Segments whose usage is added up at a time.
_COUNTED_AT_ONCE: Final = 100
_ACCOUNT: Final = account_name(7)
_BOOK: Final = (
    'format = 1\nbook = "list"\nfrom = 2020-01-01T00:00:00\nzone = "UTC"\ncurrency = "USD"\n'
    'missing = "hold"\n' + "".join(f'[models."{model}"]\nall = "3"\n' for model in MODELS)
)
_CONTRACT: Final = (
    'format = 1\ncontract = "bench"\nfrom = 2020-01-01T00:00:00\nzone = "UTC"\ncurrency = "USD"\n'
    f'book = "list"\ncovers = ["id:{_ACCOUNT}"]\nseller = "a"\nbuyer = "b"\n'
    '[parties.a]\nname = "A"\naddress = ["1 Road"]\n[parties.b]\nname = "B"\naddress = ["2 Road"]\n'
    '[document]\nkind = "invoice"\nseries = "B"\n'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Explained:
    """What explaining took, median of three, and listing the events once; in seconds."""

    seconds: float
    list_seconds: float
    interval_count: int
    event_count: int


def measure_explain(seconds: float) -> Measurement:
    """Explain a line of one account; the journal has ten million events a second of `seconds`."""
    count = max(1, int(seconds * _EVENTS_PER_SECOND) // _SEGMENT_EVENTS)
    with running_database() as url:
        with meter.lending.open_host(JobOptions(database_url=url, tiers=TIERS)) as host:
            month = make_parts(host).closing.previous_month()
        size_bytes = _fill(url, count=count, span=month_span(month, UTC_ZONE))
        explained = _explain(url)
        bound = _bare(url)
    return Measurement(
        value=explained.seconds,
        bound=bound,
        bound_of="COPY of all bodies out of Postgres, s",
        workload=f"one line of one of {ACCOUNTS * len(MODELS) * len(TIERS):,} dimensions in a month"
        f" of {count * _SEGMENT_EVENTS:,} events in {count:,} segments of the real encoder, each of"
        f" {_SEGMENT_SPAN_MS / 1000:.0f} s as a busy meter writes them; usage of that account"
        " alone; job and Postgres on one machine",
        notes={
            "journal_mb": size_bytes / 1e6,
            "intervals": float(explained.interval_count),
            "events_of_the_line": float(explained.event_count),
            "list_events_seconds": explained.list_seconds,
        },
    )


def _explain(url: str) -> _Explained:
    with meter.lending.open_host(JobOptions(database_url=url, tiers=TIERS)) as host:
        parts = make_parts(host)
        parts.setting.import_book(_BOOK, key_id="bench", correct_issued=False)
        parts.setting.set_contract(_CONTRACT, key_id="bench", correct_issued=False)
        closed = parts.closing.close_month(parts.closing.previous_month(), early=True).closed
        (number,) = (it.invoice.issue.number for it in closed if it.invoice and it.invoice.issue)
        taken = []
        for _ in range(3):
            begun = time.perf_counter()
            found = parts.explaining.explain_line(number, 1)
            taken.append(time.perf_counter() - begun)
            check_answer(counted=found.is_closed, sent=True)
        begun = time.perf_counter()
        event_count = sum(1 for _ in parts.explaining.line_events(number, 1))
        list_seconds = time.perf_counter() - begun
    check_answer(counted=event_count, sent=sum(it.event_count for it in found.segments))
    return _Explained(
        seconds=sorted(taken)[1],
        list_seconds=list_seconds,
        interval_count=len(found.intervals),
        event_count=event_count,
    )


def _fill(url: str, *, count: int, span: Span) -> int:
    """Write so many segments, and an account's usage of them; return the size of their bodies."""
    engine = make_engine(url)
    leases = Leases(
        LeaseStore(engine, owner="benchmark"), shard=0, monotonic_seconds=time.monotonic
    )
    leases.take()
    journal, usage = JournalStore(engine, leases=leases), UsageStore(engine, own_shard=lambda: 0)
    _add_accounts(url)
    usage.ensure_watermark(0)
    events = _Events(journal, span=span, count=count)
    size_bytes, own = 0, []
    types = ("int2", "int8", "int8", "int4", "timestamptz", "timestamptz", "timestamptz", "bytea")
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        with cursor.copy("COPY journal FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(types)
            for number in range(count):
                batch = events.batch(number)
                body = events.encode(batch, number)
                size_bytes += len(body)
                ends = [to_time(int(it)) for it in (batch.end_ms[0], batch.end_ms[-1])]
                copy.write_row((0, number + 1, 1, _SEGMENT_EVENTS, *ends, ends[1], body))
                own.append(events.encode(events.of_account(batch), number))
        cursor.execute("UPDATE shards SET position = %s", (count,))
        cursor.execute("UPDATE counting SET (position, totalled_position) = (%s, %s)", [count] * 2)
    for first in range(0, count, _COUNTED_AT_ONCE):
        with usage.counting() as step:
            step.add(aggregate([*map(segment.decode, own[first : first + _COUNTED_AT_ONCE])]))
    engine.dispose()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ANALYZE")
    return size_bytes


class _Events:
    """The events of a month, in segments that repeat what was drawn at other places."""

    def __init__(self, journal: JournalStore, *, span: Span, count: int) -> None:
        self._journal = journal
        self._span = span
        self._count = count
        self._table = DimensionTable()
        for account in range(ACCOUNTS):
            for model in MODELS:
                for tier in TIERS:
                    names = (account_name(account), model, model, tier, 1, "h200-a", "")
                    self._table.intern(Dimensions(*names))
        every = np.arange(len(self._table), dtype=np.int64)
        names_of = (self._table[it].account for it in every.tolist())
        self._is_own = np.array([it == _ACCOUNT for it in names_of])
        journal.ensure_dimensions(
            [EventBatch(table=self._table, dimension=every, end_ms=every, tokens={})]
        )
        random = np.random.default_rng(1)
        pairs = np.array(lengths()[0], np.int64)
        drawn = pairs[random.integers(0, len(pairs), _DRAWN)]
        cached = (drawn[:, 0] * random.random(_DRAWN) * 0.5).astype(np.int64)
        self._dimension = random.integers(0, len(self._table), _DRAWN)
        self._tokens: dict[int, Int64Array] = {
            TokenClass.INPUT: drawn[:, 0] - cached,
            TokenClass.CACHE_READ: cached,
            TokenClass.OUTPUT: drawn[:, 1],
        }
        self._offset = np.sort(random.integers(0, _SEGMENT_SPAN_MS, _SEGMENT_EVENTS))

    def batch(self, number: int) -> EventBatch:
        """Return the events of a segment."""
        first = number * 126_704 % (_DRAWN - _SEGMENT_EVENTS)
        part = slice(first, first + _SEGMENT_EVENTS)
        month_ms = self._span.end_ms - self._span.start_ms
        return EventBatch(
            table=self._table,
            dimension=self._dimension[part],
            end_ms=self._span.start_ms + month_ms * number // self._count + self._offset,
            tokens={number: counts[part] for number, counts in self._tokens.items()},
            extra={"duration_ms": 20 * self._tokens[TokenClass.OUTPUT][part] + 200},
        )

    def of_account(self, batch: EventBatch) -> EventBatch:
        """Return the events of the one account whose usage is kept."""
        return batch.take(self._is_own[batch.dimension])

    def encode(self, batch: EventBatch, number: int) -> bytes:
        """Return a body."""
        origin = Origin(
            account_id="",
            key_id="key_1",
            received_ms=int(batch.end_ms[-1]) if len(batch) else self._span.start_ms,
            producer="gpu",
            instance=b"i" * 16,
            sequence=number + 1,
        )
        return segment.encode([(origin, batch)], dimension_ids=self._journal.dimension_ids)


def _add_accounts(url: str) -> None:
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        for number in range(ACCOUNTS):
            values = (account_name(number), f"a{number}", to_time(0))
            cursor.execute("INSERT INTO accounts VALUES (%s, %s, %s)", values)
        cursor.execute(
            "INSERT INTO account_parents SELECT account_id, create_time, NULL FROM accounts"
        )


def _bare(url: str) -> float:
    """Return how long it takes to have all bodies, in seconds."""
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        begun = time.perf_counter()
        size_bytes = 0
        with cursor.copy("COPY (SELECT body FROM journal) TO STDOUT (FORMAT binary)") as copy:
            for data in copy:
                size_bytes += len(data)
        assert size_bytes
        return time.perf_counter() - begun
