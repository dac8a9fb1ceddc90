"""A database that is restored from its backup, by the commands of the pages about it."""

import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import Final

import psycopg

from tests.faults.row import Seen, Skipped, row
from tests.faults.rows_failover import SETTING
from tests.faults.site import Site
from tests.faults.steps import Steps
from tests.faults.waiting import wait_until

# What `application_name` the page gives the archive.
_ARCHIVE: Final = "archive"
_FOLLOWS: Final = f"""
SELECT count(*) FROM pg_stat_replication
WHERE application_name = '{_ARCHIVE}' AND state = 'streaming'
"""
RECOVERY_SECONDS_MAX: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Backup:
    """The pages' commands on a site, and the archive that runs."""

    steps: Steps
    archive: "subprocess.Popen[bytes]"


@row(
    "restored-from-archive",
    fault="the database's machine is lost for good while its log archive is behind",
    how="the commands of the pages: base and archive restored; the archive is held up before",
    expected="what the archive lacks, clients without a spool have, and refill: nothing is lost",
    behind_proxy=True,
    starts_itself=True,
)
def restored_from_archive(site: Site) -> Seen:
    """Lose the database, and make it anew from the backup."""
    site.start(meter_environment={SETTING: _ARCHIVE})
    backup = _begin(site)
    # Their memory is all they have: it is what is not in the archive that they keep.
    for name in ("east", "west"):
        site.report(name, client={})
    site.load(2)
    backup.steps.run("base")
    backup.steps.run("trim")
    site.load()
    backup.archive.send_signal(signal.SIGSTOP)
    site.load(2)
    position = site.position()
    begin = time.monotonic()
    site.database.kill()
    backup.archive.kill()
    backup.archive.wait()
    shutil.rmtree(site.database.data)
    backup.steps.run("restore")
    behind = _start_restored(site, backup, position=position)
    seconds = time.monotonic() - begin
    site.load()
    backup.steps.run("look")
    return _seen(behind, seconds, what="segments that only the lost database had")


@row(
    "restored-to-a-moment",
    fault="somebody deletes data, and the database is restored to the moment before",
    how="the commands of the pages, under load; the meter runs on",
    expected="what was acknowledged since is in the clients' spools, and counted again: once",
    behind_proxy=True,
    starts_itself=True,
)
def restored_to_a_moment(site: Site) -> Seen:
    """Come back to an older moment, and let the spools fill in what came since."""
    site.need_spool()
    site.start()
    backup = _begin(site)
    for name in ("east", "west"):
        site.report(name)
    site.load(2)
    backup.steps.run("base")
    site.load()
    with psycopg.connect(site.database.url, autocommit=True) as connection:
        moment = connection.execute("SELECT clock_timestamp()::text").fetchone()
        assert moment is not None
        backup.steps.set("MOMENT", moment[0])
        site.load()
        connection.execute("DELETE FROM usage")
    site.wait_for_progress()
    position = site.position()
    begin = time.monotonic()
    site.database.stop()
    backup.archive.kill()
    backup.archive.wait()
    backup.steps.run("set-aside")
    backup.steps.run("restore")
    backup.steps.run("moment")
    behind = _start_restored(site, backup, position=position)
    seconds = time.monotonic() - begin
    site.load()
    return _seen(behind, seconds, what="segments after the moment gone")


def _begin(site: Site) -> _Backup:
    """Begin the archive, as the page says."""
    programs = site.database.programs
    needed = ("pg_receivewal", "pg_basebackup", "pg_verifybackup", "psql")
    missing = [name for name in needed if not (programs / name).exists()]
    if missing:
        raise Skipped(f"there is no {', '.join(missing)} here")
    (site.folder / "archive").mkdir()
    steps = Steps(
        "backup.md",
        "disaster-recovery.md",
        programs=programs,
        environment={
            "DATABASE_URL": site.database.url,
            "TOKENWORKS_DATABASE_URL": site.database.url,
            "ARCHIVE": str(site.folder / "archive"),
            "BACKUP": str(site.folder / "base"),
            "PGDATA": str(site.database.data),
        },
        log=site.folder / "steps.log",
    )
    steps.run("begin-archive")
    return _Backup(steps=steps, archive=_start_archive(site, steps))


def _start_archive(site: Site, steps: Steps) -> "subprocess.Popen[bytes]":
    archive = steps.start("archive")
    site.later(archive.wait)
    site.later(archive.kill)
    wait_until(
        lambda: site.database.question(_FOLLOWS) == 1, seconds_max=30, what="the archive follows"
    )
    return archive


def _start_restored(site: Site, backup: _Backup, *, position: int) -> int:
    """Start what was restored, with an archive of its own; returns how many segments it lacks."""
    site.database.start()
    backup.steps.run("wait")
    behind = position - site.position()
    (site.folder / "archive-2").mkdir()
    backup.steps.set("ARCHIVE", str(site.folder / "archive-2"))
    backup.steps.run("begin-archive")
    _start_archive(site, backup.steps)
    site.wait_for_progress(seconds_max=RECOVERY_SECONDS_MAX)
    return behind


def _seen(behind: int, seconds: float, *, what: str) -> Seen:
    late = seconds > RECOVERY_SECONDS_MAX
    return Seen(
        count=behind,
        what=f"{what}; recording again after {seconds:.1f} s",
        wrong=f"recording again only after {seconds:.1f} s" if late else "",
    )
