"""Disks of Postgres that are full, or that fail."""

import psycopg

from cli.postgres.errors import PostgresError
from tests.faults.mounts import fill, mount_small, move_onto
from tests.faults.row import Seen, row
from tests.faults.shims import build
from tests.faults.site import Site
from tests.faults.waiting import wait_until

_WAL_MEBIBYTES = 256
_DATA_MEBIBYTES = 192
_SWITCHES_MAX = 40


@row(
    "disk-full-wal",
    fault="the disk of Postgres' log is full",
    how="the log lies on a loop file system, which is filled; the log is switched until it ends",
    expected="Postgres panics, nothing is acknowledged; with room again it recovers, counted once",
    starts_itself=True,
)
def disk_full_wal(site: Site) -> Seen:
    """Fill the disk of the write-ahead log."""
    place = mount_small(site, name="wal", mebibytes=_WAL_MEBIBYTES)
    move_onto(site.database.data / "pg_wal", place=place)
    site.start()
    site.start_fleet()
    site.load()
    filler = fill(place)
    for _ in range(_SWITCHES_MAX):
        try:
            site.database.question("SELECT pg_switch_wal() - '0/0'::pg_lsn")
        except (psycopg.Error, PostgresError):
            break
    wait_until(lambda: _panics(site) > 0, seconds_max=60, what="Postgres panics")
    site.load(2)
    filler.unlink()
    site.database.revive()
    site.load()
    site.wait_for_progress(seconds_max=60)
    return Seen(count=_panics(site), what="panics of Postgres")


@row(
    "disk-full-data",
    fault="the disk of Postgres' tables is full",
    how="the tables lie on a loop file system, which is filled",
    expected="the meter acknowledges nothing that it could not write; counted once",
    starts_itself=True,
)
def disk_full_data(site: Site) -> Seen:
    """Fill the disk of the tables."""
    place = mount_small(site, name="tables", mebibytes=_DATA_MEBIBYTES)
    move_onto(site.database.data / "base", place=place)
    site.start()
    site.start_fleet()
    site.load()
    filler = fill(place)
    wait_until(
        lambda: "No space left on device" in site.database.log_text,
        seconds_max=90,
        what="Postgres finds no room",
    )
    site.load()
    filler.unlink()
    site.load()
    site.wait_for_progress(seconds_max=60)
    refusals = site.database.log_text.count("No space left on device")
    return Seen(count=refusals, what="statements without room")


@row(
    "postgres-fsync-eio",
    fault="fsync of Postgres fails with EIO",
    how="a library loaded first lets fsync and fdatasync fail for a while",
    expected="Postgres panics rather than trust the page cache; nothing acknowledged is lost",
    starts_itself=True,
)
def postgres_fsync_eio(site: Site) -> Seen:
    """Let fsync fail."""
    library = build("fsync_eio", folder=site.folder)
    trigger, count = site.database.folder / "eio", site.database.folder / "eio-count"
    site.database.preload(
        library,
        environment={"FAULTS_EIO_WHILE": str(trigger), "FAULTS_EIO_COUNT": str(count)},
    )
    site.start()
    site.start_fleet()
    site.load()
    trigger.touch()
    wait_until(lambda: _panics(site) > 0, seconds_max=60, what="Postgres panics")
    site.load(2)
    trigger.unlink()
    site.database.revive()
    site.load()
    site.wait_for_progress(seconds_max=60)
    failed = count.stat().st_size
    wrong = "" if failed else "no fsync failed"
    return Seen(count=_panics(site), what=f"panics after {failed} failed fsyncs", wrong=wrong)


def _panics(site: Site) -> int:
    return site.database.log_text.count("PANIC")
