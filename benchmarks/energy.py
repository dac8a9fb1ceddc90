"""The row of attribution: an interval of a hall of GPUs, shared out to thousands of keys."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Final

import psycopg

from benchmarks.measurement import Measurement, check_answer
from benchmarks.plant import running_database
from meter.domain.boundary import Boundary
from meter.domain.interval import INTERVAL_MS
from meter.domain.limits import BOARD_WATTS_MAX
from meter.domain.times import to_iso, to_time
from meter.energy.counters import Bounds, Reading, Source
from meter.runtime.engine import make_engine
from meter.store.attribution import AttributionStore
from meter.store.energy import EnergyStore
from meter.store.factories import FactoryStore

_GPUS: Final = 10_000
_ACCOUNTS: Final = 1_000
_SKUS: Final = 5
_BEGIN_MS: Final = 1_791_201_600_000
_POOL: Final = "hall"
_BOUNDS: Final = Bounds(
    watts_max=dict.fromkeys(Boundary, BOARD_WATTS_MAX),
    gaps_ms=dict.fromkeys(Source, INTERVAL_MS),
)
_FACTORY: Final = f"""
format = 1
from = {to_iso(_BEGIN_MS)}
[sites.site]
contracted_watts = 10_000_000
[pools.{_POOL}]
site = "site"
hardware = "H100"
device_count = {_GPUS}
idle_watts = "75"
idle = "proportional"
[[weights]]
input = "0.17"
cached_input = "0.001"
output = "1"
"""


def measure_attribution(seconds: float) -> Measurement:
    """Record a reading of each GPU and attribute the interval; `seconds` changes nothing."""
    del seconds
    with _one_core(), running_database() as url:
        engine = make_engine(url)
        factories = FactoryStore(engine)
        factories.set(_FACTORY, key_id="bench", now_ms=_BEGIN_MS)
        energy = EnergyStore(engine, factories=factories)
        _serve(url)
        energy.record(_readings(0), source=Source.REPORTED, bounds=_BOUNDS)
        begun = time.perf_counter()
        moved = energy.record(_readings(1), source=Source.REPORTED, bounds=_BOUNDS)
        recorded = time.perf_counter()
        count = AttributionStore(engine, factories=factories).attribute(
            end_ms=_BEGIN_MS + INTERVAL_MS, intervals_max=1
        )
        attributed = time.perf_counter()
        check_answer(counted=(moved.advance_count, count), sent=(_GPUS, 1))
        share_count = _check(url)
        bound = _bare(url)
        engine.dispose()
    return Measurement(
        value=attributed - begun,
        bound=bound,
        bound_of="COPY of the same shares into a bare table and UPDATE of as many rows as counters,"
        " s",
        workload=f"one interval of a pool of {_GPUS:,} GPUs, {_ACCOUNTS:,} accounts × {_SKUS} skus,"
        " weights and proportional idling, client and Postgres on one core, durable",
        notes={
            "record_seconds": recorded - begun,
            "attribute_seconds": attributed - recorded,
            "shares": float(share_count),
        },
    )


@contextmanager
def _one_core() -> Iterator[None]:
    """Keep this process, and those that it starts, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _readings(round_number: int) -> list[Reading]:
    """Return what each GPU's counter shows at the begin of the interval, or at its end."""
    random = Random(round_number)
    return [
        Reading(
            name=_POOL,
            device=f"GPU-{number:05}",
            time_ms=_BEGIN_MS + round_number * INTERVAL_MS,
            counter_mj=round_number * random.randrange(300_000_000, 600_000_000),
        )
        for number in range(_GPUS)
    ]


def _serve(url: str) -> None:
    """Put down what the pool served, as counting does."""
    random = Random(1)
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        for sku in range(1, _SKUS + 1):
            cursor.execute(
                "INSERT INTO skus (sku_id, model, served_model, tier, mode, region)"
                " OVERRIDING SYSTEM VALUE VALUES (%s, 'llama-4', '', %s, 1, '')",
                (sku, f"tier-{sku}"),
            )
        columns = (
            "pool, interval_start, account_id, sku_id, input_tokens, cached_tokens, output_tokens,"
            " total_tokens, request_count"
        )
        with cursor.copy(f"COPY pool_usage ({columns}) FROM STDIN") as copy:
            for account in range(_ACCOUNTS):
                for sku in range(1, _SKUS + 1):
                    tokens = [random.randrange(10**7) for _ in range(3)]
                    owner = (_POOL, to_time(_BEGIN_MS), f"acc_{account:06}", sku)
                    copy.write_row((*owner, *tokens, sum(tokens), 1_000))


def _check(url: str) -> int:
    """Check that the shares are what was measured; return how many they are."""
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT (SELECT sum(measured_mj) FROM energy_intervals), sum(energy_mj), count(*)"
            " FROM energy_shares"
        ).fetchone()
    assert row is not None
    check_answer(counted=row[1], sent=row[0])
    return int(row[2])


def _bare(url: str) -> float:
    """Return how long the bare writes take, in seconds."""
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT * FROM energy_shares")
        shares = cursor.fetchall()
        cursor.execute("CREATE TABLE bare_shares AS SELECT * FROM energy_shares LIMIT 0")
        cursor.execute("CREATE TABLE bare_counters AS SELECT * FROM energy_counters")
        connection.commit()
        begun = time.perf_counter()
        with cursor.copy("COPY bare_shares FROM STDIN") as copy:
            for row in shares:
                copy.write_row(row)
        cursor.execute("UPDATE bare_counters SET counter_mj = counter_mj + 1")
        connection.commit()
        return time.perf_counter() - begun
