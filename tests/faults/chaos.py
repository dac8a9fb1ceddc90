"""What a soak breaks, one thing after the other, as chance has it: each heals what it broke."""

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Final

import psycopg

from tests.faults.fleet import ROOT, Sender
from tests.faults.plant import Database, MeterProcess
from tests.faults.proxy import DOWN, Proxy
from tests.faults.reporter import Orders
from tests.faults.rows_time import Clock
from tests.faults.site import Site

_HOUR: Final = 3_600
_BACK_SECONDS: Final = 60.0


@dataclass(eq=False, slots=True, kw_only=True)
class Stage:
    """What the faults work on.

    `steady` is the meter that is never killed, `other` the one that is; each has a proxy of its
    own. `mortal` is the producer that is killed, `clocked` the one whose clock is shifted, as
    `other`'s is by `other_clock`.
    """

    site: Site
    random: random.Random
    steady: MeterProcess
    other: MeterProcess
    other_proxy: Proxy
    standby: Database
    replication: Proxy
    start_mortal: Callable[[], Sender]
    mortal: Sender
    clocked: Sender
    producer_clock: Clock
    other_clock: Clock
    hostile_key: str
    kills: int = 0
    """How often the mortal producer was killed."""

    def last(self, least: float, most: float) -> None:
        """Let a fault last for a while that chance chooses, in seconds."""
        time.sleep(self.random.uniform(least, most))

    def proxies(self) -> tuple[Proxy, Proxy]:
        """Those between producers and meters."""
        return (self.site.proxy, self.other_proxy)


def kill_other(stage: Stage) -> None:
    """End a meter without notice, and start it again."""
    stage.other.kill()
    stage.last(0, 6)
    stage.other.start()


def restart_other(stage: Stage) -> None:
    """Restart a meter in good order."""
    assert stage.other.stop() == 0
    stage.other.start()


def stop_other(stage: Stage) -> None:
    """Stop a meter by a signal, for longer than anyone waits for it, and let it go on."""
    stage.other.send(signal.SIGSTOP)
    stage.last(3, 8)
    stage.other.send(signal.SIGCONT)


def stop_steady(stage: Stage) -> None:
    """Stop the other meter, too."""
    stage.steady.send(signal.SIGSTOP)
    stage.last(1, 6)
    stage.steady.send(signal.SIGCONT)


def shift_other(stage: Stage) -> None:
    """Let a meter live an hour ahead, or two minutes ago, for a while."""
    stage.other_clock.set(stage.random.choice([_HOUR, -120]))
    stage.last(2, 5)
    stage.other_clock.set(0)


def kill_postgres(stage: Stage) -> None:
    """End every process of Postgres."""
    stage.site.database.kill()
    stage.site.database.start()


def restart_postgres(stage: Stage) -> None:
    """Restart Postgres in good order."""
    stage.site.database.stop()
    stage.last(0, 4)
    stage.site.database.start()


def stop_postgres(stage: Stage) -> None:
    """Stop every process of Postgres by a signal, and let them go on."""
    stage.site.database.send(signal.SIGSTOP)
    stage.last(1, 6)
    stage.site.database.send(signal.SIGCONT)


def lose_standby(stage: Stage) -> None:
    """End the standby without notice: nothing is durable until it is back."""
    stage.standby.kill()
    stage.last(1, 6)
    stage.standby.start()


def hold_replication(stage: Stage) -> None:
    """Let the standby fall behind."""
    stage.replication.mischief.frozen = True
    stage.last(1, 6)
    stage.replication.heal()


def cut_database(stage: Stage) -> None:
    """Reset each connection between meters and Postgres."""
    stage.site.database_proxy.cut()


def freeze_database(stage: Stage) -> None:
    """Part meters and Postgres for a while."""
    stage.site.database_proxy.mischief.frozen = True
    stage.last(1, 6)
    stage.site.database_proxy.heal()


def cut_producers(stage: Stage) -> None:
    """Reset each connection of the producers, and some in the midst of a message."""
    for proxy in stage.proxies():
        proxy.mischief.cuts = {DOWN: 2}
        proxy.cut()


def freeze_producers(stage: Stage) -> None:
    """Part producers and meters for a while."""
    for proxy in stage.proxies():
        proxy.mischief.frozen = True
    stage.last(1, 6)
    for proxy in stage.proxies():
        proxy.heal()


def swallow_answers(stage: Stage) -> None:
    """Let no answer arrive for a while, then reset what has missed some."""
    for proxy in stage.proxies():
        proxy.mischief.swallows.add(DOWN)
    stage.last(1, 4)
    for proxy in stage.proxies():
        proxy.heal()


def slow_down(stage: Stage) -> None:
    """Let each piece of an answer take a fifth of a second longer."""
    for proxy in stage.proxies():
        proxy.mischief.delays = {DOWN: 0.2}
    stage.last(2, 5)
    for proxy in stage.proxies():
        proxy.heal()


def kill_producer(stage: Stage) -> None:
    """End a producer without notice; its spool is taken up by the next one of its name."""
    stage.mortal.kill()
    stage.kills += 1
    stage.mortal = stage.start_mortal()


def stop_producer(stage: Stage) -> None:
    """Stop a producer by a signal."""
    stage.clocked.pause(stage.random.uniform(1, 6))


def shift_producer(stage: Stage) -> None:
    """Let a producer live an hour ago, or two minutes ahead, for a while."""
    stage.producer_clock.set(stage.random.choice([-_HOUR, 120]))
    stage.last(2, 5)
    stage.producer_clock.set(0)


def attack(stage: Stage) -> None:
    """Let a hostile client have its way for a while, at either meter."""
    name = stage.random.choice(["bombs", "slow", "idle"])
    target = stage.random.choice(stage.proxies()).address
    orders = Orders(
        target=target, api_key=stage.hostile_key, producer="mallory", truth="", latencies=""
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.hostile", name, json.dumps(asdict(orders))],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
    )
    try:
        stage.last(5, 9)
    finally:
        process.kill()
        process.wait()


FAULTS: Final = (
    kill_other, restart_other, stop_other, stop_steady, shift_other,
    kill_postgres, restart_postgres, stop_postgres, lose_standby, hold_replication,
    cut_database, freeze_database, cut_producers, freeze_producers, swallow_answers, slow_down,
    kill_producer, stop_producer, shift_producer, attack,
)  # fmt: skip
"""All that may be broken."""


def wait_for_calm(stage: Stage) -> None:
    """Wait until the journal grows again: what was broken is healed, and the load goes on."""
    give_up_time = time.monotonic() + _BACK_SECONDS
    before: int | None = None
    while time.monotonic() < give_up_time:
        with suppress(psycopg.OperationalError):
            position = stage.site.position()
            if before is not None and position > before:
                return
            before = position if before is None else min(before, position)
        time.sleep(0.1)
    raise RuntimeError(f"nothing was recorded for {_BACK_SECONDS:g} s after a fault was healed")
