"""The row of the client: what `Meter.record` costs the server that calls it."""

import time
from collections import deque

from benchmarks.measurement import Measurement, check_answer
from benchmarks.plant import Plant, running_plant
from benchmarks.workload import ACCOUNTS, MODELS, TIERS, account_name, lengths
from tokenworks.client import Meter

_CALLS_PER_SECOND = 20_000
_SPARSE_CALLS_PER_SECOND = 1_000
_PAUSE_SECONDS = 0.0002


def measure_record(seconds: float) -> Measurement:
    """Time each `record` of a busy server while the sender runs, beside a bare append."""
    _, source = lengths()
    with running_plant() as plant:
        busy = _record(plant, seconds=seconds, calls_per_second=_CALLS_PER_SECOND)
        sparse = _record(plant, seconds=seconds / 2, calls_per_second=_SPARSE_CALLS_PER_SECOND)
        plant.wait_until_counted(seconds=60)
        counted = plant.query("SELECT sum(request_count) FROM usage")[0]
        check_answer(counted=counted, sent=len(busy) + len(sparse))
    return Measurement(
        value=_percentile(busy, 0.99),
        bound=_percentile(_bare_append(len(busy)), 0.99),
        bound_of="p99 of appending a tuple to a deque, µs",
        workload=f"{seconds:g} s, {_CALLS_PER_SECOND} calls a second from one thread with the"
        f" sender running, {source}",
        notes={
            "p50_us": _percentile(busy, 0.5),
            "p999_us": _percentile(busy, 0.999),
            f"p99_us_at_{_SPARSE_CALLS_PER_SECOND}_a_second": _percentile(sparse, 0.99),
        },
    )


def _record(plant: Plant, *, seconds: float, calls_per_second: int) -> list[int]:
    """Return how long each call took, in nanoseconds, in ascending order."""
    pairs, _ = lengths()
    count = int(seconds * calls_per_second)
    took_ns = []
    meter = Meter(plant.target, api_key=plant.api_key, producer=f"bench-{calls_per_second}")
    begin = time.perf_counter()
    for number in range(count):
        # Paced, as a server's calls are; the sender has its turns in between.
        while time.perf_counter() < begin + number / calls_per_second:
            time.sleep(_PAUSE_SECONDS)
        context, generated = pairs[number % len(pairs)]
        account = account_name(number % ACCOUNTS)
        model, tier = MODELS[number % len(MODELS)], TIERS[number % len(TIERS)]
        before = time.perf_counter_ns()
        meter.record(account=account, model=model, tier=tier, input=context, output=generated)
        took_ns.append(time.perf_counter_ns() - before)
    assert meter.close(60)
    return sorted(took_ns)


def _bare_append(count: int) -> list[int]:
    buffer: deque[tuple[str, str, str, int, int]] = deque()
    took_ns = []
    for number in range(count):
        before = time.perf_counter_ns()
        buffer.append(("account", "model", "tier", number, number))
        took_ns.append(time.perf_counter_ns() - before)
    return sorted(took_ns)


def _percentile(took_ns: list[int], share: float) -> float:
    """Return a percentile in microseconds."""
    return took_ns[int(share * len(took_ns))] / 1000
