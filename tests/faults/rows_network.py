"""Faults of the network between producers and meter, and between meter and Postgres."""

import time

from tests.faults.row import Seen, row
from tests.faults.site import Site
from tests.faults.waiting import wait_until

_PARTITION_SECONDS = 60.0
_HALF_OPEN_SECONDS = 40.0
_CUTS = 10
_MEGABIT = 125_000


@row(
    "cut-in-mid-request",
    fault="connections end in the middle of a request",
    how="a proxy passes half of a chunk to the meter, then ends both; ten times",
    expected="a torn message is never counted; the whole one is, once",
)
def cut_in_mid_request(site: Site) -> Seen:
    """Cut on the way up."""
    return _cut(site, direction="up")


@row(
    "cut-in-mid-reply",
    fault="connections end in the middle of a reply",
    how="a proxy passes half of a chunk to the producer, then ends both; ten times",
    expected="what was committed and not acknowledged is sent again and counted once",
)
def cut_in_mid_reply(site: Site) -> Seen:
    """Cut on the way down."""
    return _cut(site, direction="down")


@row(
    "replies-swallowed",
    fault="all answers of the meter vanish for a while, requests arrive",
    how="a proxy reads and drops what the meter answers, then resets those connections",
    expected="the meter's numbers decide: repeated batches are not counted again",
)
def replies_swallowed(site: Site) -> Seen:
    """Swallow answers."""
    site.start_fleet()
    site.load()
    site.proxy.mischief.swallows.add("down")
    site.load()
    site.proxy.heal()
    site.load()
    return Seen(count=site.proxy.swallowed_bytes, what="bytes of answers swallowed")


@row(
    "half-open-connections",
    fault="connections that stand and carry nothing",
    how="a proxy stops reading and writing for 40 s, longer than the client's patience",
    expected="the client cuts what is silent; counted once",
)
def half_open(site: Site) -> Seen:
    """Freeze the proxy for longer than the client waits."""
    site.start_fleet()
    site.load()
    links = site.proxy.link_count
    site.proxy.mischief.frozen = True
    time.sleep(site.scaled(_HALF_OPEN_SECONDS))
    site.proxy.heal()
    site.load()
    return Seen(count=links, what="connections that carried nothing")


@row(
    "partition-from-producers",
    fault="partition of 60 s between the producers and the meter",
    how="a proxy carries nothing and then goes on where it stood, as TCP does after a partition",
    expected="producers keep what they hold; counted once",
)
def partition_from_producers(site: Site) -> Seen:
    """Separate producers and meter."""
    site.start_fleet()
    site.load()
    position = site.position()
    site.proxy.mischief.frozen = True
    time.sleep(site.scaled(_PARTITION_SECONDS))
    grown = site.position() - position
    site.proxy.heal()
    site.load()
    return Seen(
        count=round(site.scaled(_PARTITION_SECONDS)),
        what=f"seconds of partition ({grown} commits of what had arrived)",
    )


@row(
    "partition-from-postgres",
    fault="partition of 60 s between the meter and its Postgres",
    how="a proxy before Postgres carries nothing, then goes on where it stood",
    expected="nothing is acknowledged meanwhile; a commit of unknown end is looked up",
    behind_proxy=True,
)
def partition_from_postgres(site: Site) -> Seen:
    """Separate meter and Postgres."""
    site.start_fleet()
    site.load()
    links = site.database_proxy.link_count
    site.database_proxy.mischief.frozen = True
    time.sleep(site.scaled(_PARTITION_SECONDS))
    site.database_proxy.heal()
    site.load()
    site.wait_for_progress(seconds_max=60)
    return Seen(count=links, what="connections to Postgres that carried nothing")


@row(
    "postgres-commit-answer-lost",
    fault="the answer to a COMMIT never reaches the meter",
    how="a proxy before Postgres swallows its answers, then resets the connections; three times",
    expected="the meter looks up whether it was committed before it goes on",
    behind_proxy=True,
)
def commit_answer_lost(site: Site) -> Seen:
    """Lose answers of Postgres."""
    site.start_fleet()
    for _ in range(3):
        site.load(2)
        site.database_proxy.mischief.swallows.add("down")
        time.sleep(0.5)
        site.database_proxy.heal()
        site.wait_for_progress(seconds_max=60)
    return Seen(count=site.database_proxy.swallowed_bytes, what="bytes of Postgres swallowed")


@row(
    "postgres-connections-reset",
    fault="the meter's connections to Postgres are reset in mid-statement",
    how="a proxy before Postgres cuts chunks of the meter's in half and resets; ten times",
    expected="no half transaction is counted; the group is tried again",
    behind_proxy=True,
)
def postgres_connections_reset(site: Site) -> Seen:
    """Reset connections to Postgres."""
    site.start_fleet()
    site.load(2)
    for _ in range(_CUTS):
        before = site.database_proxy.cut_count
        site.database_proxy.mischief.cuts["up"] = 1
        wait_until(
            lambda before=before: site.database_proxy.cut_count > before,  # type: ignore[misc]
            seconds_max=30,
            what="a connection to Postgres is cut",
        )
        time.sleep(0.2)
    site.database_proxy.heal()
    site.wait_for_progress(seconds_max=60)
    return Seen(count=site.database_proxy.cut_count, what="connections cut")


@row(
    "slow-network",
    fault="a network of 1 Mbit/s with 100 ms each way",
    how="a proxy delays and throttles every chunk",
    expected="slower, and counted once",
)
def slow_network(site: Site) -> Seen:
    """Throttle."""
    site.start_fleet()
    site.load(2)
    before = site.proxy.passed_bytes
    begin = time.monotonic()
    site.proxy.mischief.delays.update(up=0.1, down=0.1)
    site.proxy.mischief.bytes_per_second = _MEGABIT
    site.load(10)
    kilobits = (site.proxy.passed_bytes - before) * 8 / (time.monotonic() - begin) / 1000
    site.proxy.heal()
    wrong = "" if kilobits <= 2_200 else "the network was not slow"
    return Seen(count=round(kilobits), what="kbit/s both ways together", wrong=wrong)


def _cut(site: Site, *, direction: str) -> Seen:
    site.start_fleet()
    site.load(2)
    for _ in range(_CUTS):
        before = site.proxy.cut_count
        site.proxy.mischief.cuts[direction] = 1
        wait_until(
            lambda before=before: site.proxy.cut_count > before,  # type: ignore[misc]
            seconds_max=30,
            what="a connection is cut",
        )
        site.load(0.4)
    return Seen(count=site.proxy.cut_count, what="connections cut in mid-message")
