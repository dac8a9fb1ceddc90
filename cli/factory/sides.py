"""What `factory compare` sets beside each other: months, pools, hardware, versions of software."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import click

from cli.connection import Client
from cli.factory.measured import Measured, add_up, measure
from cli.process import CommandError, Exit
from cli.usage.span import Span
from meter.domain.interval import interval_start_ms, next_edge_ms
from tokenworks.meter.v1 import energy_service_pb2 as pb

MONTH: Final = "month"
_KINDS: Final = ("pool", "hardware", "software")
_MONTH: Final = re.compile(r"(\d{4})-(\d{2})")
_MONTHS_PER_YEAR: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class SideName:
    """A side as it is typed: its kind, and what of that kind."""

    text: str
    kind: str
    name: str


def check_side(context: click.Context, param: click.Parameter, value: str) -> SideName:
    """Return a side: a month, or a kind with a name."""
    month = _MONTH.fullmatch(value)
    if month is not None and 1 <= int(month[2]) <= _MONTHS_PER_YEAR and int(month[1]):
        return SideName(text=value, kind=MONTH, name=value)
    kind, _, name = value.partition(":")
    if kind not in _KINDS or not name:
        raise click.BadParameter(
            f"{value}: a month like 2026-09, or pool:NAME, hardware:NAME, software:NAME",
            context,
            param,
        )
    return SideName(text=value, kind=kind, name=name)


def measure_side(client: Client, side: SideName, *, span: Span) -> Measured:
    """Return what a side served in the span, or in its month.

    Raises CommandError where there is no pool of that hardware, or no mark of that software.
    """
    if side.kind == MONTH:
        return measure(client, month_span(side.name), takes=_is_any)
    if side.kind == "pool":
        return measure(client, span, takes=side.name.__eq__)
    if side.kind == "hardware":
        return measure(client, span, takes=_find_hardware(client, side, span=span).__contains__)
    return _measure_software(client, side, span=span)


def month_span(month: str) -> Span:
    """Return a month in UTC."""
    year, number = map(int, month.split("-"))
    after = (year + number // _MONTHS_PER_YEAR, number % _MONTHS_PER_YEAR + 1)
    return Span(start_ms=_begin_ms(year, number), end_ms=_begin_ms(*after))


def find_spans(
    marks: Sequence[pb.SoftwareMark], software: str, *, span: Span
) -> dict[Span, set[str]]:
    """Return the whole intervals in which pools had a software: the pools by the span.

    Marks come by pool and time. An interval in which the software changed belongs to neither.
    """
    found: dict[Span, set[str]] = {}
    for place, mark in enumerate(marks):
        if mark.software != software:
            continue
        after = marks[place + 1] if place + 1 < len(marks) else None
        end_ms = span.end_ms
        if after is not None and after.pool == mark.pool:
            end_ms = min(end_ms, interval_start_ms(after.time.ToMilliseconds()))
        start_ms = max(span.start_ms, next_edge_ms(mark.time.ToMilliseconds()))
        if start_ms < end_ms:
            found.setdefault(Span(start_ms=start_ms, end_ms=end_ms), set()).add(mark.pool)
    return found


def _measure_software(client: Client, side: SideName, *, span: Span) -> Measured:
    marks = client.energy.ListSoftwareMarks(pb.ListSoftwareMarksRequest()).marks
    spans = find_spans(marks, side.name, span=span)
    if not spans:
        known = ", ".join(sorted({it.software for it in marks})) or "none"
        raise CommandError(
            f"no pool had the software {side.name} in {span}; marked are: {known}", code=Exit.USAGE
        )
    return add_up(
        [measure(client, part, takes=pools.__contains__) for part, pools in spans.items()]
    )


def _find_hardware(client: Client, side: SideName, *, span: Span) -> set[str]:
    request = pb.GetFactoryRequest()
    request.at.FromMilliseconds(span.end_ms - 1)
    version = client.energy.GetFactory(request).version
    pools = {it.pool for it in version.pools if it.hardware == side.name}
    if not pools:
        known = ", ".join(sorted({it.hardware for it in version.pools})) or "none"
        raise CommandError(
            f"no pool has the hardware {side.name}; the description has: {known}", code=Exit.USAGE
        )
    return pools


def _is_any(pool: str) -> bool:
    return bool(pool)


def _begin_ms(year: int, month: int) -> int:
    return round(datetime(year, month, 1, tzinfo=UTC).timestamp() * 1000)
