"""A Postgres that is lost for good, and a standby that takes its place."""

import shutil
from typing import Final

from tests.faults.plant import Database
from tests.faults.proxy import Proxy
from tests.faults.row import Seen, row
from tests.faults.site import Site
from tests.faults.waiting import wait_until

STANDBY: Final = "standby1"
"""Its application_name."""
SETTING: Final = "TOKENWORKS_DURABLE_STANDBYS"
"""What tells a meter to wait for it."""
_FOLLOWS: Final = f"""
SELECT count(*) FROM pg_stat_replication
WHERE application_name = '{STANDBY}' AND state = 'streaming'
"""


@row(
    "failover-to-a-standby",
    fault="Postgres is lost for good, and a standby that was behind takes its place",
    how="replication is held up; the primary is killed, its data deleted, the standby promoted",
    expected="clients without a spool kept what was not on the standby yet, and refill it",
    behind_proxy=True,
    starts_itself=True,
)
def failover_to_a_standby(site: Site) -> Seen:
    """Lose the primary while the standby is behind."""
    site.start(meter_environment={SETTING: STANDBY})
    replication = Proxy(f"127.0.0.1:{site.database.port}")
    site.later(replication.close)
    standby = follow(site, replication)
    site.later(standby.close)
    # Their memory is all they have: it is what is not yet durable that they keep.
    for name in ("east", "west"):
        site.report(name, client={})
    site.load()
    wait_until(
        lambda: site.database.question(_FOLLOWS) == 1, seconds_max=30, what="the standby follows"
    )
    replication.mischief.frozen = True
    site.load()
    position = site.position()
    site.database.kill()
    shutil.rmtree(site.database.data)
    site.database = standby
    behind = position - site.position()
    standby.question("SELECT pg_promote()::int")
    site.database_proxy.target = f"127.0.0.1:{standby.port}"
    site.database_proxy.cut()
    site.load()
    site.wait_for_progress(seconds_max=60)
    # Without a standby nothing is durable any more: an operator says that it has to do without.
    del site.meter.settings[SETTING]
    site.meter.stop()
    site.meter.start()
    site.load()
    return Seen(count=behind, what="segments acknowledged by the primary and not on the standby")


def follow(site: Site, replication: Proxy) -> Database:
    """Make a standby that follows through a proxy, and start it."""
    folder = site.folder / "standby" / "postgres"
    folder.mkdir(parents=True)
    url = site.database.url.replace(f":{site.database.port}/", f":{replication.port}/")
    site.database.back_up(folder / "data", through=f"{url}?application_name={STANDBY}")
    shutil.copy(site.database.folder / "password", folder / "password")
    standby = Database(folder)
    standby.start()
    return standby
