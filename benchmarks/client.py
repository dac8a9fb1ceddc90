"""The row of the client: what `Meter.record` costs the server that calls it."""

import time
from collections import deque

from benchmarks.measurement import Measurement, check_answer
from benchmarks.plant import running_plant
from benchmarks.workload import ACCOUNTS, MODELS, TIERS, account_name, lengths
from tokenworks.client import Meter

_CALLS_PER_SECOND = 2_000


def measure_record(seconds: float) -> Measurement:
    """Time each `record` at 2,000 a second while the sender runs, beside a bare append."""
    pairs, source = lengths()
    count = int(seconds * _CALLS_PER_SECOND)
    took_ns = []
    with running_plant() as plant:
        meter = Meter(plant.target, api_key=plant.api_key, producer="bench-client")
        begin = time.perf_counter()
        for number in range(count):
            # Paced, as a server's calls are; the sender has its turns in between.
            while time.perf_counter() < begin + number / _CALLS_PER_SECOND:
                time.sleep(0.0002)
            context, generated = pairs[number % len(pairs)]
            before = time.perf_counter_ns()
            meter.record(
                account=account_name(number % ACCOUNTS),
                model=MODELS[number % len(MODELS)],
                tier=TIERS[number % len(TIERS)],
                input=context,
                output=generated,
            )
            took_ns.append(time.perf_counter_ns() - before)
        assert meter.close(30)
        plant.wait_until_counted(seconds=60)
        counted = plant.query("SELECT sum(request_count) FROM usage")[0]
        check_answer(counted=counted, sent=count)
    took_ns.sort()
    return Measurement(
        value=took_ns[int(0.99 * count)] / 1000,
        bound=_bare_append_ns(count) / 1000,
        bound_of="p99 of appending a tuple to a deque, µs",
        workload=f"{seconds:g} s, {_CALLS_PER_SECOND} calls a second with the sender running, "
        f"{source}",
        notes={"p50_us": took_ns[count // 2] / 1000},
    )


def _bare_append_ns(count: int) -> int:
    buffer: deque[tuple[str, str, str, int, int]] = deque()
    took_ns = []
    for number in range(count):
        before = time.perf_counter_ns()
        buffer.append(("account", "model", "tier", number, number))
        took_ns.append(time.perf_counter_ns() - before)
    took_ns.sort()
    return took_ns[int(0.99 * count)]
