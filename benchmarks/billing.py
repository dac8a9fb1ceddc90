"""Rows of billing: a month is closed, from usage to issued invoices."""

import resource
import time
from datetime import UTC, datetime
from typing import Final

import psycopg

from benchmarks.measurement import Measurement, check_answer
from benchmarks.plant import running_database
from billing.app import make_closing, make_parts
from billing.closing import CloseOrder
from billing.periods import Month
from cli.closers import make_closers
from meter.domain.times import to_ms
from meter.domain.tokens import TokenClass
from meter.lending import open_host
from meter.options import JobOptions
from meter.runtime.engine import make_engine
from meter.store.folding import FoldStore
from meter.store.installation import InstallationStore

_MONTH: Final = Month(2026, 10)
_START: Final = datetime(2026, 10, 1, tzinfo=UTC)
# Whoever reported was heard long ago.
_NOW: Final = datetime(2026, 11, 20, tzinfo=UTC)
_ACCOUNTS_A_SECOND: Final = 10_000
_ROWS_AN_ACCOUNT: Final = 100
_ROWS_MAX: Final = 2_976
_MODELS: Final = 4
# What one account uses of all models and tiers, at most; the least is one.
_SKUS_AN_ACCOUNT: Final = 3
_TIERS: Final = ("free", "medium", "high", "premium", "ultra")
_JOBS: Final = 2
_CLASSES: Final = [token_class.name.lower() for token_class in TokenClass]
_BARE: Final = """
SELECT count(*) FROM (
    SELECT account_id, sku_id, band, sum(input), sum(cache_read), sum(output), sum(request_count)
    FROM usage WHERE interval_start >= '2026-10-01Z' AND interval_start < '2026-11-01Z'
    GROUP BY 1, 2, 3
) u
"""
_BOOK: Final = """
format = 1
book = "list"
from = 2026-01-01T00:00:00
zone = "UTC"
currency = "USD"
missing = "hold"
[tiers]
free = "1"
medium = "2"
high = "4"
premium = "8"
ultra = "20"
"""
_CONTRACT: Final = """format = 1
contract = "acct-000000"
from = 2026-10-01T00:00:00
zone = "UTC"
currency = "USD"
book = "list"
covers = ["id:acct-000000"]
seller = "factory"
buyer = "customer"
[parties.factory]
name = "Factory"
address = ["1 Substation Road"]
[parties.customer]
name = "Customer"
address = ["2 Substation Road"]
[document]
kind = "invoice"
series = "TW"
"""


def measure_close(seconds: float) -> Measurement:
    """Close a month of ten thousand accounts for each of these seconds, by two processes."""
    accounts = max(10, int(_ACCOUNTS_A_SECOND * seconds))
    with running_database() as url:
        rows = _make_world(url, accounts=accounts)
        _fold(url)
        bare_s = _time_bare(url)
        options = JobOptions(database_url=url, tiers=_TIERS)
        begin = time.monotonic()
        with open_host(options) as host:
            closing = make_closing(host, make_closers=make_closers(options))
            result = closing.close(CloseOrder(month=_MONTH, job_count=_JOBS))
        taken = time.monotonic() - begin
        peaks = [_peak_mib(resource.RUSAGE_SELF), _peak_mib(resource.RUSAGE_CHILDREN)]
        billed, issued = _billed(url)
        check_answer(counted=issued, sent=accounts)
        check_answer(counted=billed, sent=_used(url))
    return Measurement(
        value=taken,
        bound=bare_s,
        bound_of="the bare SELECT sum … GROUP BY of the same usage, s",
        workload=f"one month of {accounts:,} accounts, a contract each, and {rows:,} rows of usage"
        f" (Zipf, at most {_ROWS_MAX:,} an account, 1 to {_SKUS_AN_ACCOUNT} models and tiers each),"
        f" folded; {issued:,} invoices by {_JOBS} processes beside Postgres (fsync on), the terms"
        f" and accounts read in that time; papers not made; at most {peaks[0]:,} MiB in the process"
        f" that sorts, {peaks[1]:,} MiB in each that closes",
        notes={"rows": float(rows), "outcomes": float(sum(result.counts.values()))},
    )


def _make_world(url: str, *, accounts: int) -> int:
    """Make accounts, contracts and usage by SQL, from one contract that the product takes in."""
    engine = make_engine(url)
    InstallationStore(engine).settle(sandbox_clock_ms=to_ms(_NOW))
    engine.dispose()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO accounts SELECT 'acct-' || lpad(a::text, 6, '0'), 'acct-' ||"
            " lpad(a::text, 6, '0'), '2026-01-01Z' FROM generate_series(0, %s) a",
            (accounts - 1,),
        )
        connection.execute(
            "INSERT INTO account_parents SELECT account_id, '2026-01-01Z', NULL FROM accounts"
        )
        connection.execute("UPDATE registry SET version = version + 1")
    models = "".join(f'[models."model-{it}"]\nall = "{it + 1}"\n' for it in range(_MODELS))
    with open_host(JobOptions(database_url=url, tiers=_TIERS)) as host:
        terms = make_parts(host).terms
        now_ms = host.clock.now_ms()
        terms.add_book(_BOOK + models, key_id="bench", now_ms=now_ms, judge=_agree)
        terms.set_contract(_CONTRACT, key_id="bench", now_ms=now_ms, judge=_agree)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        _copy_contracts(connection)
        rows = _make_usage(connection, accounts=accounts)
        connection.execute("VACUUM ANALYZE")
    return rows


def _agree(*_: object) -> None:
    """Judge of terms that nothing was billed by."""


def _copy_contracts(connection: psycopg.Connection) -> None:
    renamed = "replace({}, 'acct-000000', a.account_id)"
    others = "FROM accounts a, {} c WHERE a.account_id <> c.contract"
    connection.execute(
        "INSERT INTO contracts (contract, start_time, revision, toml, set_time, set_by,"
        f" terms_version, compiled) SELECT a.account_id, start_time, 1, {renamed.format('toml')},"
        f" set_time, set_by, terms_version + 1, {renamed.format('compiled')}"
        f" {others.format('contracts')}"
    )
    connection.execute(
        "INSERT INTO contract_covers SELECT a.account_id, start_time, 1, 0, 'id:' || a.account_id,"
        f" a.account_id {others.format('contract_covers')}"
    )
    connection.execute("UPDATE terms SET version = version + 1")


def _make_usage(connection: psycopg.Connection, *, accounts: int) -> int:
    """Put usage down by a law of Zipf, as much as the accounts ask for; return the rows."""
    skus = [(model, tier) for model in range(_MODELS) for tier in _TIERS]
    for number, (model, tier) in enumerate(skus, start=1):
        connection.execute(
            "INSERT INTO skus (sku_id, model, served_model, tier, mode, region)"
            " OVERRIDING SYSTEM VALUE VALUES (%s, %s, '', %s, 1, '')",
            (number, f"model-{model}", tier),
        )
    wanted = accounts * _ROWS_AN_ACCOUNT
    low, high = 0.0, float(wanted)
    for _ in range(60):
        # The factor of the law with which its ends, which are cut off, come to the wanted sum.
        factor = (low + high) / 2
        total = sum(_rows_of(place, factor) for place in range(1, accounts + 1))
        low, high = (factor, high) if total < wanted else (low, factor)
    used = {"input": "90000 + j", "cache_read": "40000", "output": "20000"}
    counts = ", ".join(used.get(name, "0") for name in _CLASSES)
    done = connection.execute(
        "INSERT INTO usage (account_id, interval_start, sku_id, band, finish_class, cut_id,"  # noqa: S608
        f" {', '.join(_CLASSES)}, request_count, delivered_output_count, estimated_count)"
        " SELECT 'acct-' || lpad((a - 1)::text, 6, '0'), timestamptz '2026-10-01Z'"
        f" + ((j / (1 + a %% {_SKUS_AN_ACCOUNT})) * 17 %% 2976) * interval '15 min',"
        f" 1 + (a + j %% (1 + a %% {_SKUS_AN_ACCOUNT})) %% {len(skus)},"
        f" 0, 1, 1, {counts}, 3, 20000, 0"
        f" FROM generate_series(1, %s) a, generate_series(0, least({_ROWS_MAX},"
        " greatest(10, (%s / a)::integer)) - 1) j",
        (accounts, factor),
    )
    return done.rowcount


def _rows_of(place: int, factor: float) -> int:
    return min(_ROWS_MAX, max(10, round(factor / place)))


def _fold(url: str) -> None:
    engine = make_engine(url)
    store = FoldStore(engine)
    while store.fold_step(now_ms=to_ms(_NOW)):
        pass
    engine.dispose()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE period_totals")


def _peak_mib(who: int) -> int:
    """Return the most memory that a process held: this one, or one of its own that has ended."""
    return resource.getrusage(who).ru_maxrss // 1024


def _time_bare(url: str) -> float:
    with psycopg.connect(url) as connection:
        connection.execute(_BARE)
        begin = time.monotonic()
        connection.execute(_BARE)
        return time.monotonic() - begin


def _billed(url: str) -> tuple[int, int]:
    """Return the tokens on invoices, and how many invoices there are."""
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT sum(quantity)::bigint, count(DISTINCT number) FROM issued_lines"
        ).fetchone()
    assert row is not None
    return row[0], row[1]


def _used(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT sum(input + cache_read + output)::bigint FROM usage"
        ).fetchone()
    assert row is not None
    return int(row[0])
