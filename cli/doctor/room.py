"""What doctor thinks of what is finite: disks, and connections of the database."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cli.doctor.check import Check, Mark, format_age
from meter.health import Connections
from tokenworks.client.spool.__main__ import Report, read_report
from tokenworks.client.spool.files import SpoolUnusable

_UNITS: Final = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")
_KIBIBYTE: Final = 1024
_GIBIBYTE: Final = 1024**3
# A disk is nearly full when both say so: a tenth of a large one lasts for long.
_FREE_PART_WARN: Final = 0.1
_FREE_BYTES_WARN: Final = 20 * _GIBIBYTE
_FREE_BYTES_FAIL: Final = _GIBIBYTE // 4
# A meter and its jobs; who starts another one needs as many.
_CONNECTIONS_OF_A_METER: Final = 20
_IDLE_SECONDS_WARN: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """The disk that a folder lies on, in bytes."""

    total_bytes: int
    free_bytes: int


def find_disk(folder: Path | None) -> Disk | None:
    """Return the disk of a folder; None where it is not of this machine, or out of reach."""
    if folder is None:
        return None
    try:
        found = shutil.disk_usage(folder)
    except OSError:
        return None
    return Disk(total_bytes=found.total, free_bytes=found.free)


def check_space(*, database_bytes: int, folder: str | None, disk: Disk | None) -> Check:
    """Return how large the database is, and how much room its disk has left, if that is known."""
    facts = {
        "database_bytes": database_bytes,
        "folder": folder,
        "free_bytes": None if disk is None else disk.free_bytes,
    }
    says = f"the database has {format_size(database_bytes)}"
    if disk is None:
        says += "; its disk cannot be seen from here"
        return Check(name="space", mark=Mark.OK, says=says, facts=facts)
    return Check(
        name="space",
        mark=_mark_of(disk),
        says=f"{says}; {_free(disk)} in {folder}",
        do="give the disk more room, or keep less: a database without room refuses what producers"
        " send, and they keep it only as long as their own disks last",
        facts=facts,
    )


def check_spool(folder: Path) -> Check:
    """Return what lies in the spool of a producer of this machine, and how much room it has."""
    name = f"spool {folder.name}"
    try:
        report = read_report(folder)
    except SpoolUnusable as error:
        return Check(name=name, mark=Mark.FAIL, says=f"{folder}: {error}", do="name its folder")
    disk = find_disk(folder)
    facts = {"folder": str(folder), "free_bytes": None if disk is None else disk.free_bytes}
    facts |= {key: report[key] for key in _SPOOL_FACTS}
    held = f"{report['held_event_count']:,} events in {report['held_batch_count']:,} batches wait"
    says = f"{held}, {format_size(report['size_bytes'])}"
    damaged = _damaged(report)
    if damaged:
        return Check(
            name=name,
            mark=Mark.FAIL,
            says=f"{says}; {damaged:,} batches or reports are damaged",
            do=f"the disk is failing, or the files were changed: python -m tokenworks.client.spool"
            f" {folder} says where",
            facts=facts,
        )
    return Check(
        name=name,
        mark=Mark.OK if disk is None else _mark_of(disk),
        says=says if disk is None else f"{says}; {_free(disk)}",
        do="give the disk more room: a spool that cannot be written drops what it is given",
        facts=facts,
    )


_SPOOL_FACTS: Final = ("producer", "held_batch_count", "held_event_count", "size_bytes")


def check_connections(connections: Connections) -> Check:
    """Return how many connections the database has left, and whether one of them hangs."""
    left = connections.count_max - connections.count
    facts = {
        "count": connections.count,
        "count_max": connections.count_max,
        "idle_in_transaction_seconds": connections.idle_seconds,
    }
    says = f"{connections.count:,} of {connections.count_max:,} in use"
    faults = list(_connection_faults(connections, left=left))
    if not faults:
        return Check(name="connections", mark=Mark.OK, says=says, facts=facts)
    return Check(
        name="connections",
        mark=Mark.WARN,
        says="; ".join([says, *(fault for fault, _ in faults)]),
        do="; ".join(do for _, do in faults),
        facts=facts,
    )


def format_size(size_bytes: int) -> str:
    """Return bytes in the unit that fits them: 512 bytes, 1.5 GiB."""
    size, unit = float(size_bytes), 0
    while size >= _KIBIBYTE and unit < len(_UNITS) - 1:
        size, unit = size / _KIBIBYTE, unit + 1
    return f"{size:,.0f} {_UNITS[unit]}" if unit == 0 else f"{size:,.1f} {_UNITS[unit]}"


def _connection_faults(connections: Connections, *, left: int) -> Iterator[Sequence[str]]:
    if left < _CONNECTIONS_OF_A_METER:
        do = (
            f"a meter takes up to {_CONNECTIONS_OF_A_METER}: raise max_connections, or find who"
            " holds the others in pg_stat_activity"
        )
        yield f"{left:,} are left", do
    idle = connections.idle_seconds
    if idle is not None and idle >= _IDLE_SECONDS_WARN:
        do = (
            "whatever it has locked is held: find it in pg_stat_activity, and end it with"
            " pg_terminate_backend"
        )
        yield f"one is idle in a transaction for {format_age(idle)}", do


def _mark_of(disk: Disk) -> Mark:
    if disk.free_bytes < _FREE_BYTES_FAIL:
        return Mark.FAIL
    is_small = disk.free_bytes < _FREE_PART_WARN * disk.total_bytes
    return Mark.WARN if is_small and disk.free_bytes < _FREE_BYTES_WARN else Mark.OK


def _free(disk: Disk) -> str:
    return f"{format_size(disk.free_bytes)} of {format_size(disk.total_bytes)} are free"


def _damaged(report: Report) -> int:
    return report["damaged_batch_count"] + report["damaged_report_count"]
