"""Faults of one of two meters on one database, with a load balancer before them."""

import signal
import time

from tests.faults.plant import MeterProcess
from tests.faults.row import Seen, row
from tests.faults.site import Site
from tests.faults.waiting import wait_until

# What is promised, and what a busy machine may take to look.
_OWNER_SECONDS_MAX = 5.0
_LOOK_SECONDS = 0.5
_COUNT_SECONDS_MAX = 20.0
_STOPPED_SECONDS = 10.0
_TURNS = 2
_LIVING = "SELECT count(*) FROM shards WHERE lease_until > clock_timestamp()"
_OWN = "SELECT shard FROM shards WHERE owner LIKE '%:{pid}:%'"
_EPOCH = "SELECT epoch FROM shards WHERE shard = {shard}"
_BEHIND = (
    "SELECT count(*) FROM shards s JOIN counting c USING (shard)"
    " WHERE shard = {shard} AND s.position > c.position"
)


@row(
    "replica-killed",
    fault="kill -9 of one of two meters under load",
    how="both behind a load balancer; one is killed while counting is held up, once both wrote",
    expected="its shard changes owner within 5 s; what it left uncounted is counted by the other",
)
def replica_killed(site: Site) -> Seen:
    """Kill one, and look at its shard."""
    second = _start_two(site)
    site.load()
    shard = site.database.question(_OWN.format(pid=second.pid))
    epoch = site.database.question(_EPOCH.format(shard=shard))
    with site.counting_held(shard):
        wait_until(
            lambda: site.database.question(_BEHIND.format(shard=shard)) > 0,
            seconds_max=20,
            what="something is uncounted",
        )
        second.kill()
        killed = time.monotonic()
    wait_until(
        lambda: site.database.question(_EPOCH.format(shard=shard)) > epoch,
        seconds_max=_COUNT_SECONDS_MAX,
        what="the shard changes its owner",
    )
    owner_seconds = time.monotonic() - killed
    wait_until(
        lambda: site.database.question(_BEHIND.format(shard=shard)) == 0,
        seconds_max=_COUNT_SECONDS_MAX,
        what="what was left is counted",
    )
    counted_seconds = time.monotonic() - killed
    site.load()
    late = owner_seconds > _OWNER_SECONDS_MAX + _LOOK_SECONDS
    return Seen(
        count=1,
        what=f"kill of one of two; its shard changed its owner after {owner_seconds:.1f} s, all it"
        f" had left was counted after {counted_seconds:.1f} s",
        wrong=f"the shard changed its owner after {owner_seconds:.1f} s only" if late else "",
    )


@row(
    "replica-stopped-10s",
    fault="SIGSTOP of one of two meters for 10 s under load, then SIGCONT",
    how="its connections stay open; the other one fences it meanwhile",
    expected="what it wanted to write is refused; it takes another shard and goes on",
)
def replica_stopped(site: Site) -> Seen:
    """Stop one for longer than a lease lasts."""
    second = _start_two(site)
    site.load()
    shard = site.database.question(_OWN.format(pid=second.pid))
    epoch = site.database.question(_EPOCH.format(shard=shard))
    second.send(signal.SIGSTOP)
    time.sleep(_STOPPED_SECONDS)
    fenced = site.database.question(_EPOCH.format(shard=shard)) - epoch
    second.send(signal.SIGCONT)
    # Shards that it holds: an older one, or the same anew, is with its epoch another lease.
    wait_until(
        lambda: site.database.question(_LIVING) == 2, seconds_max=20, what="it holds a shard again"
    )
    site.load()
    return Seen(
        count=int(fenced),
        what=f"changes of the shard's owner while it stood still for {_STOPPED_SECONDS:.0f} s",
        wrong="" if second.is_running else "the meter that was stopped has ended",
    )


@row(
    "replicas-killed-in-turn",
    fault="kill -9 of both of two meters in turn, four times under load",
    how="each is started again as soon as the journal grows without it",
    expected="producers go on at the other one; counted once, through every kill",
)
def replicas_killed_in_turn(site: Site) -> Seen:
    """Kill one, then the other, again and again."""
    second = _start_two(site)
    site.load(2)
    for number in range(2 * _TURNS):
        meter = (site.meter, second)[number % 2]
        meter.kill()
        site.wait_for_progress(seconds_max=60)
        meter.start()
        site.wait_for_progress()
    return Seen(count=2 * _TURNS, what="kills")


@row(
    "replicas-rolling-restart",
    fault="SIGTERM of both of two meters in turn, twice under load",
    how="as a rolling update does it: the next one goes when the last one is back",
    expected="each ends with status 0 and gives its shard back at once; counted once",
)
def replicas_rolling_restart(site: Site) -> Seen:
    """Restart them one after the other."""
    second = _start_two(site)
    site.load(2)
    statuses, held = [], []
    for meter in (site.meter, second) * 2:
        statuses.append(meter.stop())
        held.append(site.database.question(_LIVING))
        site.wait_for_progress()
        meter.start()
        site.wait_for_progress()
    wrong = []
    if any(statuses):
        wrong.append(f"exit statuses {statuses}")
    if held != [1] * len(held):
        wrong.append(f"shards held after each end: {held}")
    return Seen(count=len(statuses), what="restarts", wrong="; ".join(wrong))


def _start_two(site: Site) -> MeterProcess:
    """Start a second meter and a fleet that reports to both; returns it once both have written."""
    second = site.make_meter("second")
    second.start()
    site.proxy.spares.append(second.grpc)
    site.start_fleet()
    written = (
        "SELECT count(DISTINCT s.shard) FROM shards s JOIN journal j USING (shard, epoch)"
        " WHERE s.lease_until > clock_timestamp()"
    )
    wait_until(lambda: site.database.question(written) == 2, seconds_max=30, what="both write")
    return second
