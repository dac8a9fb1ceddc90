"""An upgrade while producers report: the version before, N, and this one, side by side."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Final

from tests.faults.lock_watch import LockWatch
from tests.faults.older import Older
from tests.faults.plant import TOKENWORKS, MeterProcess
from tests.faults.row import Seen, row
from tests.faults.site import Site

# Nobody waits longer for a lock on a table, whatever a migration does.
_LOCK_SECONDS_MAX: Final = 1.0
_UPGRADE_SECONDS_MAX: Final = 120
_SHARD: Final = "TOKENWORKS_SHARD"


@row(
    "upgrade-beside-the-traffic",
    fault="the schema is upgraded under load, and a meter of N is replaced by one of N+1",
    how="N runs from its own code; `db upgrade --stage pre`, both serve, N ends, `--stage post`",
    expected="no producer and no meter sees an error, nobody waits 1 s for a lock; counted once",
    starts_itself=True,
)
def upgrade_beside_the_traffic(site: Site) -> Seen:
    """Upgrade as an operator does."""
    _start_older(site)
    first = site.meter
    site.start_fleet()
    site.load(2)
    with LockWatch(site.database.url) as watch:
        applied = _upgrade(site, "pre")
        site.load(2)
        site.meter = _start_newer(site)
        beside = site.report("north", target=site.meter.grpc)
        site.load(2)
        _move(site)
        site.wait_for_progress()
        status = first.stop()
        applied += _upgrade(site, "post")
        site.load(2)
    wrong = _find_wrong(watch, logs=[first.log, site.meter.log])
    if status or not beside.is_running:
        wrong = wrong or f"N ended with {status}"
    return Seen(count=len(applied), what=_what("applied", watch), wrong=wrong)


@row(
    "upgrade-taken-back",
    fault="the schema is upgraded under load, N+1 serves, and N takes over again before `post`",
    how="as above; N starts anew, on a schema that has what it does not know",
    expected="what N+1 recorded counts beside what N records; counted once",
    starts_itself=True,
)
def upgrade_taken_back(site: Site) -> Seen:
    """Go on, and back again."""
    _start_older(site)
    first = site.meter
    site.start_fleet()
    site.load(1)
    with LockWatch(site.database.url) as watch:
        applied = _upgrade(site, "pre")
        newer = site.meter = _start_newer(site)
        _move(site)
        first.stop()
        site.load(2)
        # All that N+1 recorded lies in its own shard: it is counted before it ends.
        site.meter = first
        first.start()
        _move(site)
        site.wait_for_progress()
        status = newer.stop()
        site.load(2)
    wrong = _find_wrong(watch, logs=[first.log, newer.log])
    if status:
        wrong = wrong or f"N+1 ended with {status}"
    # The audit that ends a row is this version's: it reads what N recorded.
    return Seen(count=len(applied), what=_what("applied, and N back", watch), wrong=wrong)


def _start_older(site: Site) -> None:
    """Have N's meter serve a database of N."""
    older = Older(site.folder / "older")
    site.database.start()
    older.settle(site)
    site.database.stop()
    site.start(meter_environment={**older.environment, _SHARD: "0"})
    older.set_up(site, site.meter)


def _start_newer(site: Site) -> MeterProcess:
    newer = site.make_meter("newer", environment={_SHARD: "1"})
    newer.start()
    return newer


def _move(site: Site) -> None:
    """Let producers find the meter that is the site's now, as a service in front of both does."""
    site.proxy.target = site.meter.grpc
    site.proxy.cut()


def _upgrade(site: Site, stage: str) -> list[str]:
    done = subprocess.run(
        [TOKENWORKS, "db", "upgrade", "--stage", stage, "--json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=os.environ | {"TOKENWORKS_DATABASE_URL": site.database.url},
        text=True,
        check=True,
        timeout=_UPGRADE_SECONDS_MAX,
    )
    applied: list[str] = json.loads(done.stdout)["applied"]
    return applied


def _find_wrong(watch: LockWatch, *, logs: list[Path]) -> str:
    """Return what was not as promised: a long wait, or an error that a meter logged."""
    if watch.longest_seconds >= _LOCK_SECONDS_MAX:
        return f"somebody waited {watch.longest_seconds:.2f} s for a lock on a table"
    for log in logs:
        found = re.search(r"^\S+ (error|warning) .*", log.read_text("utf-8"), re.MULTILINE)
        if found is not None:
            return f"{log.stem}: {found[0][:300]}"
    return ""


def _what(done: str, watch: LockWatch) -> str:
    return f"migrations {done} (longest wait for a lock {watch.longest_seconds * 1000:.0f} ms)"
