"""Two servers record, count, attribute and are described at once over one Postgres."""

from concurrent.futures import ThreadPoolExecutor, wait
from random import Random
from typing import Final

from sqlalchemy import Engine

from meter.domain.errors import Refused
from meter.domain.interval import INTERVAL_MS
from meter.store.attribution import AttributionStore
from meter.store.audit import AuditStore
from meter.store.energy import EnergyStore
from meter.store.factories import FactoryStore
from tests.meter.plain_events import BEGIN_MS
from tests.meter.store.attributed import END_MS, attribute_all, describe
from tests.meter.store.pooled import SERVED, read, reading, serve
from tests.meter.store.recording import WAIT_SECONDS_MAX, ask_one, counting_of, follow, owner

_ROUNDS: Final = 25
_DEVICES: Final = tuple((f"GPU-{number}", f"h{number % 3}00") for number in range(6))
_STEP_MS: Final = INTERVAL_MS // 4
_STEP_MJ: Final = 1_000
_DESCRIBED: Final = 3


def record(engine: Engine, server: int) -> None:
    """Record rounds of the same counters that the other server reads, in an order of one's own."""
    store = EnergyStore(engine, factories=FactoryStore(engine))
    for turn in range(_ROUNDS):
        time_ms, counter_mj = BEGIN_MS + turn * _STEP_MS, turn * _STEP_MJ
        devices = Random(server * _ROUNDS + turn).sample(_DEVICES, len(_DEVICES))
        round_ = [
            reading(counter_mj, time_ms=time_ms, pool=pool, device=device)
            for device, pool in devices
        ]
        read(store, *round_)


def count(engine: Engine, server: int) -> None:
    """Count events of all pools, in a shard of the server's own."""
    journal = owner(engine, shard=server)
    follower = follow(counting_of(engine, shard=server))
    for turn in range(_ROUNDS):
        for place in Random(turn).sample(range(len(SERVED)), len(SERVED)):
            serve(journal, place, output=turn + 1, end_ms=BEGIN_MS + turn * _STEP_MS)
        follower.count_once()


def share_out(engine: Engine, _: int) -> None:
    """Attribute a few intervals at a time, as often as there are rounds."""
    store = AttributionStore(engine, factories=FactoryStore(engine))
    for _ in range(_ROUNDS):
        store.attribute(end_ms=END_MS, intervals_max=3)


def set_descriptions(engine: Engine, server: int) -> None:
    """Set versions of the description, where energy is not attributed behind their begins yet."""
    for number in range(_DESCRIBED):
        try:
            describe(engine, start_ms=BEGIN_MS + number * INTERVAL_MS, pool=f"# {server}")
        except Refused:
            continue


def test_two_servers__do_all_at_once(engine: Engine, database_url: str) -> None:
    """Nobody waits in a circle, both count each millijoule once, and all are shared out."""
    work = [record, count, share_out, set_descriptions]
    with ThreadPoolExecutor(2 * len(work)) as threads:
        started = [threads.submit(each, engine, server) for each in work for server in (0, 1)]
        wait(started, timeout=WAIT_SECONDS_MAX)
        for each in started:
            each.result(timeout=0)
    while attribute_all(engine):
        pass
    measured = ask_one(database_url, "SELECT sum(measured_mj)::bigint FROM energy_intervals")
    assert measured == len(_DEVICES) * (_ROUNDS - 1) * _STEP_MJ
    assert ask_one(database_url, "SELECT sum(energy_mj)::bigint FROM energy_shares") == measured
    attributed, faults = AuditStore(engine).energy_faults(since_ms=None, until_ms=None)
    assert (attributed > 0, faults) == (True, [])
    tokens = ask_one(database_url, "SELECT sum(output_tokens)::bigint FROM pool_usage")
    # One of the places names no pool.
    assert tokens == 2 * (len(SERVED) - 1) * sum(range(1, _ROUNDS + 1))
