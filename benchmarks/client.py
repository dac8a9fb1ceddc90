"""The row of the client: what `Meter.record` costs the server that calls it."""

import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from benchmarks.busy_server import busy_server
from benchmarks.measurement import Measurement, check_answer
from benchmarks.plant import Plant, running_plant
from benchmarks.workload import ACCOUNTS, MODELS, TIERS, account_name, lengths
from tokenworks.client import Meter

_CALLS_PER_SECOND = 20_000
_SPARSE_CALLS_PER_SECOND = 1_000
_PAUSE_SECONDS = 0.0002


def measure_record(seconds: float) -> Measurement:
    """Time each `record` in a thread beside a busy asyncio server, the spool on a real disk.

    The bound is taken in the same surroundings at the same pace: a call that only appends.
    """
    _, source = lengths()
    with running_plant() as plant, _folder_on_disk() as spool, busy_server() as server:

        def in_thread(rate: int, *, spooled: bool, share: float) -> list[int]:
            meter = _meter(plant, producer=f"bench-{rate}", spool=spool if spooled else None)
            took_ns = _beside(lambda: _paced(meter.record, rate, seconds=share * seconds))
            assert meter.close(60)
            return took_ns

        busy = in_thread(_CALLS_PER_SECOND, spooled=True, share=1)
        sparse = in_thread(_SPARSE_CALLS_PER_SECOND, spooled=True, share=1)
        in_memory = in_thread(_CALLS_PER_SECOND, spooled=False, share=0.5)
        bare = _beside(lambda: _paced(_append, _CALLS_PER_SECOND, seconds=seconds / 2))
        bare_sparse = _beside(lambda: _paced(_append, _SPARSE_CALLS_PER_SECOND, seconds=seconds))
        answered_count = server.answered_count
        plant.wait_until_counted(seconds=60)
        counted = plant.query("SELECT sum(request_count) FROM usage")[0]
        check_answer(counted=counted, sent=len(busy) + len(sparse) + len(in_memory))
    return Measurement(
        value=_percentile(busy, 0.99),
        bound=_percentile(bare, 0.99),
        bound_of="p99 of a call that appends a tuple to a deque, µs, as often in the same thread",
        workload=f"{seconds:g} s, {_CALLS_PER_SECOND} calls a second from a thread beside a busy"
        f" asyncio server, spooled with fsync=batch, {source}",
        notes={
            "p50_us": _percentile(busy, 0.5),
            "p999_us": _percentile(busy, 0.999),
            "p99_us_without_spool": _percentile(in_memory, 0.99),
            f"p99_us_at_{_SPARSE_CALLS_PER_SECOND}_a_second": _percentile(sparse, 0.99),
            f"bound_at_{_SPARSE_CALLS_PER_SECOND}_a_second": _percentile(bare_sparse, 0.99),
            "requests_answered_beside": answered_count,
        },
    )


@contextmanager
def _folder_on_disk() -> Iterator[Path]:
    """Make a folder where the tree lies: the system's own may be in memory."""
    build = Path("build")
    build.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-spool-", dir=build))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _meter(plant: Plant, *, producer: str, spool: Path | None) -> Meter:
    name = producer if spool is not None else f"{producer}-memory"
    return Meter(plant.target, api_key=plant.api_key, producer=name, spool=spool)


def _beside(run: Callable[[], list[int]]) -> list[int]:
    with ThreadPoolExecutor(max_workers=1) as threads:
        return threads.submit(run).result()


def _paced(call: Callable[..., object], rate: int, *, seconds: float) -> list[int]:
    """Return how long each call took, in nanoseconds, in ascending order."""
    pairs, _ = lengths()
    took_ns = []
    begin = time.perf_counter()
    for number in range(int(seconds * rate)):
        # Paced, as a server's calls are; the sender has its turns in between.
        while time.perf_counter() < begin + number / rate:
            time.sleep(_PAUSE_SECONDS)
        context, generated = pairs[number % len(pairs)]
        account = account_name(number % ACCOUNTS)
        model, tier = MODELS[number % len(MODELS)], TIERS[number % len(TIERS)]
        before = time.perf_counter_ns()
        call(account=account, model=model, tier=tier, input=context, output=generated)
        took_ns.append(time.perf_counter_ns() - before)
    return sorted(took_ns)


_BUFFER: deque[tuple[str, str, str, int, int]] = deque(maxlen=500_000)


def _append(*, account: str, model: str, tier: str, input: int, output: int) -> None:  # noqa: A002 - as `record` names it
    _BUFFER.append((account, model, tier, input, output))


def _percentile(took_ns: list[int], share: float) -> float:
    """Return a percentile in microseconds."""
    return took_ns[int(share * len(took_ns))] / 1000
