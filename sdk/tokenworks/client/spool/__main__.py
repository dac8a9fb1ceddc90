"""Says what lies in a spool: ``python -m tokenworks.client.spool FOLDER [--json]``.

It only reads, and takes no lock; while a process writes, the last record may look unfinished. Exit
status: 0 all well, 1 something is damaged, 2 it cannot be read.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from tokenworks.client.hold import OffsetMap
from tokenworks.client.spool.files import Reason, SpoolUnusable, unusable
from tokenworks.client.spool.folder import Folder
from tokenworks.client.spool.manifest import Manifest, read_manifest
from tokenworks.client.spool.recovery import Recovered, recover
from tokenworks.client.spool.segments import Segment


class SegmentReport(TypedDict):
    """What one file holds."""

    name: str
    size_bytes: int
    first: int
    next: int
    first_sequence: int | None
    """None where the numbers have not been told to the meter yet."""
    batch_count: int
    event_count: int
    damaged_batch_count: int


class Report(TypedDict):
    """What a spool holds."""

    producer: str
    offsets: Sequence[tuple[int, int]]
    is_manifest_damaged: bool
    segments: Sequence[SegmentReport]
    next: int
    released: int
    size_bytes: int
    held_batch_count: int
    held_event_count: int
    running_report_count: int
    damaged_batch_count: int
    damaged_event_count: int
    damaged_report_count: int
    damaged_header_count: int
    torn_bytes: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what lies in a folder; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tokenworks.client.spool",
        description="Say what lies in the spool of a producer. It only reads.",
    )
    parser.add_argument("folder", type=Path, help="the folder of one producer")
    parser.add_argument("--json", action="store_true", help="for programs")
    given = parser.parse_args(arguments)
    try:
        report = read_report(given.folder)
    except SpoolUnusable as error:
        sys.stderr.write(f"{given.folder}: {error}\n")
        return 2
    sys.stdout.write(json.dumps(report, indent=2) + "\n" if given.json else _page(report))
    return 1 if report["damaged_batch_count"] or report["damaged_report_count"] else 0


def read_report(path: Path) -> Report:
    """Read a spool. Raises SpoolUnusable."""
    folder = Folder(path, lock=None)
    try:
        found = read_manifest(folder)
        if found is None:
            raise SpoolUnusable("there is no spool there yet", reason=Reason.FOREIGN)
        manifest, is_sound = found
        recovered = recover(folder, salt=manifest.salt)
    except FileNotFoundError as error:
        raise SpoolUnusable(f"there is no spool there: {error}", reason=Reason.FOREIGN) from error
    except OSError as error:
        raise unusable(error) from error
    finally:
        folder.abandon()
    return _report(recovered, manifest=manifest, is_manifest_damaged=not is_sound)


def _report(recovered: Recovered, *, manifest: Manifest, is_manifest_damaged: bool) -> Report:
    offsets = OffsetMap(manifest.offsets)
    findings = recovered.findings
    segments = recovered.segments
    held = [
        event_count
        for segment in segments
        for local, event_count in enumerate(segment.event_counts, segment.first)
        if local > recovered.released and event_count
    ]
    return Report(
        producer=manifest.producer,
        offsets=manifest.offsets,
        is_manifest_damaged=is_manifest_damaged,
        segments=[_segment_report(segment, offsets=offsets) for segment in segments],
        next=recovered.next,
        released=recovered.released,
        size_bytes=sum(segment.size_bytes for segment in segments),
        held_batch_count=len(held),
        held_event_count=sum(held),
        running_report_count=len(recovered.running),
        damaged_batch_count=findings.damaged_batch_count,
        damaged_event_count=findings.damaged_event_count,
        damaged_report_count=findings.damaged_report_count,
        damaged_header_count=findings.damaged_header_count,
        torn_bytes=findings.torn_bytes,
    )


def _segment_report(segment: Segment, *, offsets: OffsetMap) -> SegmentReport:
    offset = offsets.find(segment.first)
    batch_count = sum(map(bool, segment.starts))
    return SegmentReport(
        name=segment.name,
        size_bytes=segment.size_bytes,
        first=segment.first,
        next=segment.end,
        first_sequence=None if offset is None else segment.first + offset,
        batch_count=batch_count,
        event_count=sum(segment.event_counts),
        damaged_batch_count=len(segment.starts) - batch_count,
    )


def _page(report: Report) -> str:
    held = f"{report['held_event_count']} events in {report['held_batch_count']} batches"
    batches = f"{report['damaged_batch_count']} batches, {report['damaged_event_count']} events"
    others = f"{report['damaged_report_count']} reports, {report['damaged_header_count']} headers"
    numbers = ", ".join(f"{offset:+d} from {first}" for first, offset in report["offsets"])
    lines = [
        f"producer          {report['producer']}",
        f"manifest          {'one copy is damaged' if report['is_manifest_damaged'] else 'sound'}",
        f"numbers           {numbers or 'not told to the meter yet'}",
        f"next batch        {report['next']}, all up to {report['released']} is at the meter",
        f"held              {held}",
        f"running reports   {report['running_report_count']}",
        f"damaged           {batches}, {others}",
        f"unfinished        {report['torn_bytes']} bytes at the end",
        f"size              {report['size_bytes']} bytes",
    ]
    if report["segments"]:
        lines += ["", f"{'segment':<28}{'bytes':>10}{'batches':>9}{'events':>10}  numbers"]
    for segment in report["segments"]:
        sequence = segment["first_sequence"]
        damaged = segment["damaged_batch_count"]
        lines.append(
            f"{segment['name']:<28}{segment['size_bytes']:>10}{segment['batch_count']:>9}"
            f"{segment['event_count']:>10}  {_numbers(segment)}"
            + (f" (sent as {sequence} on)" if sequence is not None else "")
            + (f", {damaged} damaged" if damaged else "")
        )
    return "\n".join(lines) + "\n"


def _numbers(segment: SegmentReport) -> str:
    if segment["first"] == segment["next"]:
        return f"none yet, from {segment['first']}"
    return f"{segment['first']} to {segment['next'] - 1}"


if __name__ == "__main__":
    sys.exit(main())
