"""Three nodes of Patroni: the leader is lost, and it is changed in good order."""

from collections.abc import Sequence
from typing import Final, cast

import migrations
from meter.app import create_installation_key
from tests.faults.cluster import Cluster, outage_seconds
from tests.faults.fleet import Sender
from tests.faults.plant import PEPPER, Database, set_up
from tests.faults.proxy import Proxy
from tests.faults.row import Seen, row
from tests.faults.site import Site

# The lease of a leader that is dead, a round of Patroni, the promotion, and our own way back.
OUTAGE_SECONDS_MAX: Final = 45.0
SWITCH_SECONDS_MAX: Final = 20.0


@row(
    "patroni-leader-killed",
    fault="the machine of the leading Postgres is lost: kill -9 of its Patroni, etcd and Postgres",
    how="three nodes, synchronous; replication is held up, the leader killed, and it comes back",
    expected="a standby leads within 45 s, the meter finds it; nothing acknowledged is lost",
    starts_itself=True,
)
def patroni_leader_killed(site: Site) -> Seen:
    """Lose the leader under load, and take it back as a standby."""
    cluster, senders = _start(site)
    site.load()
    lost = cluster.leader()
    # What is recorded from here on is on one disk only, and nobody may hear that it is recorded.
    held = cluster.hold_standbys(lost)
    site.load(2)
    cluster.kill(lost)
    cluster.release(held)
    seconds = outage_seconds(cluster, seconds_max=120)
    site.load()
    cluster.revive(lost)
    cluster.wait_for_members(3, seconds_max=90)
    site.load()
    return _seen(
        seconds,
        senders if len(held) == len(cluster.nodes) - 1 else [],
        what="machine of the leader lost with standbys held up",
        limit=OUTAGE_SECONDS_MAX,
    )


@row(
    "patroni-switchover",
    fault="the leading Postgres is changed in good order, as before maintenance of its machine",
    how="three nodes, synchronous; Patroni is asked for another leader under load",
    expected="recording stops for seconds; what was acknowledged is there",
    starts_itself=True,
)
def patroni_switchover(site: Site) -> Seen:
    """Change the leader in good order."""
    cluster, senders = _start(site)
    site.load()
    before = cluster.switch_over()
    seconds = outage_seconds(cluster, seconds_max=120)
    cluster.wait_for_members(3, seconds_max=90)
    site.load()
    changed = cluster.leader() is not before
    return _seen(
        seconds, senders if changed else [], what="change of leader", limit=SWITCH_SECONDS_MAX
    )


def _start(site: Site) -> tuple[Cluster, list[Sender]]:
    """Start the nodes, a meter that knows all of them, and what reports to it."""
    cluster = Cluster(logs=site.folder)
    site.later(cluster.close)
    cluster.start()
    migrations.upgrade(cluster.hosts_url)
    # It answers what rows and verdicts ask; what else a database can do, nobody asks here.
    site.database = cast("Database", cluster)
    site.api_key = create_installation_key(
        cluster.hosts_url, key_pepper=PEPPER, description="for faults"
    )
    site.meter = site.make_meter("meter", url=cluster.hosts_url)
    site.meter.start()
    set_up(site.meter.grpc, api_key=site.api_key)
    site.proxy = Proxy(site.meter.grpc)
    site.later(site.proxy.close)
    # Their memory is all that they have, and they forget what is acknowledged.
    return cluster, site.start_fleet(spool=False)


def _seen(seconds: float, senders: Sequence[Sender], *, what: str, limit: float) -> Seen:
    alive = bool(senders) and all(sender.is_running for sender in senders)
    return Seen(
        count=1 if alive else 0,
        what=f"{what}; {seconds:.1f} s without a commit",
        wrong="" if seconds <= limit else f"{seconds:.1f} s without a commit, not {limit:g}",
    )
