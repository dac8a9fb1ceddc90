"""Faults of the reporting processes."""

import time
from typing import Final

from tests.faults.fleet import Sender
from tests.faults.row import Seen, row
from tests.faults.site import Site
from tests.faults.waiting import wait_until

_RATE: Final = 2_000
# One flush interval (0.2 s), and the time that a busy machine takes to see a batch through.
_BOUND_SECONDS: Final = 0.5
_KILLS: Final = 3
_CRAWL_SECONDS: Final = 5
_ANNOUNCED_SECONDS: Final = 5
_GAPS: Final = "SELECT coalesce(sum(last_sequence - first_sequence + 1), 0) FROM producer_gaps"


@row(
    "producer-killed-without-spool",
    fault="kill -9 of a producer that keeps its events in memory",
    how="three times; each is started again under its name",
    expected=f"at most the events of its last {_BOUND_SECONDS:g} s are lost, none is doubled",
)
def producer_killed_without_spool(site: Site) -> Seen:
    """Kill one that has no spool."""
    site.report("west")
    site.call("unary")
    for number in range(_KILLS):
        killed = site.report(f"east-{number}", producer="east", client={})
        site.load(3)
        killed.kill()
    site.report("east-last", producer="east", client={})
    site.load(2)
    bound = round(_KILLS * _RATE * _BOUND_SECONDS)
    return Seen(count=_KILLS, what=f"kills; at most {bound} events may be lost", loss_max=bound)


@row(
    "producer-killed-with-spool",
    fault="kill -9 of a producer with a spool (fsync: batch)",
    how="three times under load; each start takes up the same spool",
    expected="nothing that was on disk is lost; at risk is one flush interval",
)
def producer_killed_with_spool(site: Site) -> Seen:
    """Kill one that has a spool."""
    site.need_spool()
    site.report("west")
    for number in range(_KILLS):
        killed = site.report(f"east-{number}", producer="east")
        site.load(3)
        killed.kill()
    site.report("east-last", producer="east")
    site.load(2)
    bound = round(_KILLS * _RATE * _BOUND_SECONDS)
    return Seen(count=_KILLS, what=f"kills; at most {bound} events were at risk", at_risk_max=bound)


@row(
    "producer-killed-fsync-event",
    fault="kill -9 of a producer with a spool (fsync: event)",
    how="three times; each start takes up the same spool",
    expected="no event whose record() had returned is lost",
)
def producer_killed_fsync_event(site: Site) -> Seen:
    """Kill one that waits for the disk at each event."""
    site.need_spool()
    site.report("west")
    for number in range(_KILLS):
        killed = site.report(
            f"east-{number}", producer="east", client=site.spool(fsync="event"), rate=100
        )
        site.load(3)
        killed.kill()
    site.report("east-last", producer="east", client=site.spool(fsync="event"), rate=100)
    site.load(2)
    # A chunk is two events: the truth has both before the first is recorded.
    return Seen(count=_KILLS, what="kills", at_risk_max=2 * _KILLS)


@row(
    "producer-killed-while-meter-is-away",
    fault="kill -9 of a producer that has a backlog, while the meter cannot be reached",
    how="a proxy refuses connections; the producer is killed and started twice before it heals",
    expected="the backlog of all three lives is delivered, in order, once",
)
def producer_killed_while_meter_is_away(site: Site) -> Seen:
    """Kill one that cannot deliver."""
    site.need_spool()
    first = site.report("east-0", producer="east")
    site.load(2)
    position = site.position()
    site.proxy.mischief.refusing = True
    site.proxy.cut()
    site.load(3)
    first.kill()
    second = site.report("east-1", producer="east")
    site.load(3)
    second.kill()
    site.report("east-2", producer="east")
    site.load(2)
    unseen = site.position() - position
    site.proxy.heal()
    site.wait_for_progress(seconds_max=40)
    bound = round(2 * _RATE * _BOUND_SECONDS)
    return Seen(
        count=2,
        what=f"kills with a backlog ({unseen} segments came meanwhile)",
        at_risk_max=bound,
    )


@row(
    "two-processes-one-spool",
    fault="two processes are given the same producer and the same spool",
    how="both are started, and both are killed and started again",
    expected="the second takes a folder and a name of its own; both are counted once",
)
def two_processes_one_spool(site: Site) -> Seen:
    """Share a folder."""
    site.need_spool()
    pairs: list[Sender] = []
    for life in range(2):
        for sender in pairs:
            sender.kill()
        pairs = [site.report(f"{which}-{life}", producer="east") for which in ("a", "b")]
        site.load(3)
    names = site.database.question("SELECT count(*) FROM producers WHERE producer LIKE 'east%'")
    # Of the second life the second may find its old folder taken: the first drains it already.
    wrong = "" if 2 <= names <= 3 else f"{names} names of producers, not 2 or 3"
    bound = round(2 * _RATE * _BOUND_SECONDS)
    return Seen(count=names, what="producers of one name", at_risk_max=bound, wrong=wrong)


@row(
    "producer-stopped-25s",
    fault="a producer is stopped (SIGSTOP) for longer than the meter's patience, and goes on",
    how="25 s without a heartbeat, then SIGCONT",
    expected="it goes on where it stood; counted once",
)
def producer_stopped(site: Site) -> Seen:
    """Stop and continue a producer."""
    senders = site.start_fleet()
    site.load()
    seconds = senders[0].pause(site.scaled(25))
    site.load()
    return Seen(count=round(seconds), what="seconds without a sign of life")


@row(
    "spool-deleted-while-stopped",
    fault="the spool is deleted while its producer is stopped",
    how="the producer ends in good order, the folder is removed, the producer starts again",
    expected="it goes on behind the meter's number; nothing is lost or taken for a repetition",
)
def spool_deleted_while_stopped(site: Site) -> Seen:
    """Delete a spool that has nothing left."""
    site.need_spool()
    site.report("west")
    first = site.report("east-0", producer="east")
    site.load()
    first.begin_draining(30)
    first.finish(45)
    removed = site.remove_spool("east")
    site.report("east-1", producer="east")
    site.load()
    return Seen(count=removed, what="files of the spool deleted")


@row(
    "spool-deleted-with-backlog",
    fault="a spool with a backlog is deleted after a kill -9 of its producer",
    how="acks crawl, so that a backlog grows and is announced; kill, delete, start 5 s later",
    expected="at most the backlog is lost, and the meter knows: missing numbers are recorded",
)
def spool_deleted_with_backlog(site: Site) -> Seen:
    """Delete a spool that has something left."""
    site.need_spool()
    first = site.report("east-0", producer="east")
    site.load(3)
    begin = time.monotonic()
    site.proxy.mischief.delays["down"] = _CRAWL_SECONDS
    site.load(10)
    first.kill()
    backlog = round((time.monotonic() - begin + _BOUND_SECONDS) * _RATE)
    site.remove_spool("east")
    site.proxy.heal()
    site.report("west")
    site.wait_for_progress(seconds_max=60)
    # What a producer announced is written every two seconds.
    time.sleep(_ANNOUNCED_SECONDS)
    site.report("east-1", producer="east")
    site.load(3)
    missing = site.database.question(_GAPS)
    return Seen(
        count=missing,
        what=f"batches known to be missing (backlog of at most {backlog} events)",
        loss_max=backlog,
        at_risk_max=backlog,
    )


@row(
    "clones-of-a-producer",
    fault="two clones of a producer: the same name, and a copy of its spool",
    how="a killed producer's spool is copied; both start; the fenced one starts again at the end",
    expected="the older one is fenced and says so; what both made is counted once or kept",
)
def clones(site: Site) -> Seen:
    """Run a producer twice."""
    site.need_spool()
    site.report("west")
    first = site.report("east-0", producer="east")
    site.load(3)
    first.kill()
    copy = site.copy_spool()
    old = site.report("east-old", producer="east")
    site.load(3)
    new = site.report("east-new", producer="east", client=site.spool(spool=str(copy)))
    wait_until(
        lambda: "taken_over" in old.log.read_text("utf-8").lower(),
        seconds_max=30,
        what="the older clone is fenced",
    )
    site.load(3)
    for sender in (old, new):
        sender.begin_draining(30)
    told = [sender.finish(45) for sender in (old, new)]
    site.report("east-again", producer="east")
    site.load(3)
    return Seen(
        count=sum(it["state"] == "taken_over" for it in told),
        what="clone fenced",
        at_risk_max=round(_RATE * _BOUND_SECONDS),
        set_aside_max=10_000,
        # The fenced one takes nothing more.
        refused_max=10**9,
    )
