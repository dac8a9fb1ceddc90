"""Faults of the meter's process."""

import signal
import time

from tests.faults.row import Seen, row
from tests.faults.site import Site
from tests.faults.waiting import wait_until

_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
_EPOCH = "SELECT epoch FROM shards WHERE shard = 0"
_STOPPED_SECONDS = 30.0
_ROLLS = 4


@row(
    "meter-killed-before-commit",
    fault="kill -9 of the meter while its transaction waits, before the commit",
    how="a lock holds the journal's transaction, then the meter is killed and started again",
    expected="nothing was acknowledged, so all is sent again and counted once",
)
def meter_killed_before_commit(site: Site) -> Seen:
    """Kill it between the statements and the commit."""
    site.start_fleet()
    site.load()
    with site.commits_held():
        wait_until(
            lambda: site.database.question(_WAITING) > 0, seconds_max=20, what="a commit waits"
        )
        position = site.position()
        status = site.meter.kill()
    same = site.position() == position
    site.meter.start()
    site.load()
    return Seen(
        count=1 if status == -signal.SIGKILL and same else 0,
        what="kill of a meter with a transaction that waited and was never committed",
    )


@row(
    "meter-killed-after-commit",
    fault="kill -9 of the meter after the commit and before the ack arrived",
    how="a proxy swallows all answers while commits go on, then the meter is killed",
    expected="what is sent again is known by its number and digest, or its event id",
)
def meter_killed_after_commit(site: Site) -> Seen:
    """Kill it when commits are done whose acks nobody got."""
    site.start_fleet()
    site.load()
    site.proxy.mischief.swallows.add("down")
    position = site.position()
    wait_until(lambda: site.position() >= position + 3, seconds_max=20, what="commits go on")
    site.meter.kill()
    unheard = site.position() - position
    swallowed = site.proxy.swallowed_bytes
    site.meter.start()
    site.proxy.heal()
    site.load()
    return Seen(
        count=min(unheard, swallowed),
        what=f"commits whose acks were lost ({swallowed} bytes of answers swallowed)",
    )


@row(
    "meter-killed-again-and-again",
    fault="kill -9 of the meter, six times at moments of chance",
    how="killed and started again as soon as the journal grows",
    expected="counted once, through every kill",
)
def meter_killed_again_and_again(site: Site) -> Seen:
    """Kill it six times."""
    site.start_fleet()
    site.load(2)
    for number in range(6):
        site.meter.kill()
        site.meter.start()
        site.wait_for_progress()
        time.sleep(0.05 * number)
    return Seen(count=6, what="kills")


@row(
    "meter-stopped-30s",
    fault="SIGSTOP of the meter for 30 s, then SIGCONT",
    how="the process is there and answers nothing; connections stay open",
    expected="producers keep what they hold, cut and come back; counted once",
)
def meter_stopped(site: Site) -> Seen:
    """Stop and continue it."""
    senders = site.start_fleet()
    site.load()
    site.meter.send(signal.SIGSTOP)
    begin = site.position()
    stopped = site.scaled(_STOPPED_SECONDS)
    time.sleep(stopped)
    grown = site.position() - begin
    site.meter.send(signal.SIGCONT)
    site.load()
    return Seen(
        count=round(stopped) if all(sender.is_running for sender in senders) else 0,
        what=f"seconds stopped ({grown} commits that were under way)",
    )


@row(
    "meter-rolling-restarts",
    fault="SIGTERM of the meter and a new start, four times in a row",
    how="as a rolling update does it; each old one ends in good order",
    expected="each ends with status 0; counted once",
)
def meter_rolling_restarts(site: Site) -> Seen:
    """Restart it as an operator does."""
    site.start_fleet()
    site.load(2)
    statuses = []
    for _ in range(_ROLLS):
        statuses.append(site.meter.stop())
        site.meter.start()
        site.wait_for_progress()
    wrong = "" if statuses == [0] * _ROLLS else f"exit statuses {statuses}"
    return Seen(count=len(statuses), what="restarts", wrong=wrong)


@row(
    "two-meters-on-one-database",
    fault="a second meter is told to take over the shard of the first",
    how="one producer reports to the first, one to the second, one is moved in mid-stream",
    expected="the newer owns the shard; the older is fenced and goes on in another one",
)
def two_meters(site: Site) -> Seen:
    """Let two meters quarrel about a shard."""
    site.start_fleet()
    site.load()
    epochs = site.database.question(_EPOCH)
    second = site.make_meter("second", environment={"TOKENWORKS_SHARD": "0"})
    second.start()
    other = site.report("north", target=second.grpc)
    site.load()
    site.proxy.target = second.grpc
    site.proxy.cut()
    site.load()
    fenced = site.database.question(_EPOCH) - epochs
    first, site.meter = site.meter, second
    first.stop()
    wrong = "" if other.is_running else "the second meter's producer ended"
    return Seen(count=fenced, what="changes of the shard's owner", wrong=wrong)
