"""Disks of the spool that are full, that fail, or that a crash left torn; a database set back."""

import shutil
from pathlib import Path
from typing import Final

from tests.faults.mounts import fill, mount_small
from tests.faults.row import Seen, row
from tests.faults.shims import build
from tests.faults.site import Site

_SPOOL_MEBIBYTES: Final = 16
_RATE: Final = 2_000
_BOUND_SECONDS: Final = 0.5


@row(
    "spool-fsync-eio",
    fault="fsync of the spool fails with EIO",
    how="a library loaded first lets fsync and fdatasync below the spool fail for a while",
    expected="the producer goes on, from memory or another segment; nothing is lost",
)
def spool_fsync_eio(site: Site) -> Seen:
    """Let fsync of the spool fail."""
    site.need_spool()
    library = build("fsync_eio", folder=site.folder)
    trigger, count = site.folder / "eio", site.folder / "eio-count"
    site.report("west")
    sender = site.report(
        "east",
        environment={
            "LD_PRELOAD": str(library),
            "FAULTS_EIO_WHILE": str(trigger),
            "FAULTS_EIO_COUNT": str(count),
            "FAULTS_EIO_BELOW": "/spool/",
        },
    )
    site.load()
    trigger.touch()
    site.load()
    trigger.unlink()
    site.load()
    failed = count.stat().st_size if count.exists() else 0
    return Seen(
        count=failed,
        what="fsyncs of the spool failed",
        wrong="" if sender.is_running else "the producer ended",
    )


@row(
    "disk-full-spool",
    fault="the disk of the spool is full",
    how="the spool lies on a loop file system, which is filled, and has room again later",
    expected="the producer goes on from memory and says so; nothing is lost",
)
def disk_full_spool(site: Site) -> Seen:
    """Fill the disk of the spool."""
    site.need_spool()
    place = mount_small(site, name="small", mebibytes=_SPOOL_MEBIBYTES)
    site.report("west")
    sender = site.report("east", client=site.spool(spool=str(place)))
    site.load(3)
    filler = fill(place)
    left = shutil.disk_usage(place).free
    site.load()
    site.proxy.mischief.refusing = True
    site.proxy.cut()
    site.load(3)
    site.proxy.heal()
    filler.unlink()
    site.load(3)
    says = sender.log.read_text("utf-8").count("spool_failing")
    wrong = "" if sender.is_running else "the producer ended"
    return Seen(
        count=says, what=f"times that the spool was failing ({left} bytes left)", wrong=wrong
    )


@row(
    "spool-torn-tail",
    fault="the newest segment of a spool ends in half a record",
    how="kill -9 with a backlog; then half a record's bytes are written behind its end",
    expected="what is torn is cut off, the rest is delivered once",
)
def spool_torn_tail(site: Site) -> Seen:
    """Tear the tail."""
    site.need_spool()
    first = site.report("east-0", producer="east")
    site.load(3)
    site.proxy.mischief.refusing = True
    site.proxy.cut()
    site.load(3)
    first.kill()
    newest = max(_segments(site), key=lambda path: path.name)
    whole = newest.read_bytes()
    with newest.open("ab") as file:
        # The beginning of the file's own first record, as a crash would leave it.
        file.write(whole[: min(len(whole) // 2, 700)])
    site.proxy.heal()
    second = site.report("east-1", producer="east")
    site.load(3)
    wrong = "" if second.is_running else "the producer did not start on the torn spool"
    return Seen(count=1, what="torn tail", at_risk_max=round(_RATE * _BOUND_SECONDS), wrong=wrong)


@row(
    "restored-base-backup",
    fault="Postgres is lost and restored from a base backup of some seconds ago",
    how="pg_basebackup under load; later the data are replaced by it, the meter keeps running",
    expected="producers hear that numbers are missing again, and refill them from their spools",
)
def restored_base_backup(site: Site) -> Seen:
    """Go back to a backup."""
    site.need_spool()
    for name in ("east", "west"):
        site.report(name)
    site.load()
    backup = site.database.back_up(site.folder / "backup")
    site.load()
    position = site.position()
    site.database.kill()
    shutil.rmtree(site.database.data)
    backup.rename(site.database.data)
    site.database.start()
    back = position - site.position()
    site.load()
    site.wait_for_progress(seconds_max=60)
    return Seen(count=back, what="segments that the restored database had lost")


def _segments(site: Site) -> list[Path]:
    return list((site.folder / "spool").rglob("*.spool"))
