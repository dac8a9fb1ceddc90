"""`tokenworks billing replay`: the documents of a month made again, as a job on the database."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

import billing.app
import meter.examination
from billing.drafting import UTC_ZONE
from billing.periods import Month, Span, month_of, read_month
from billing.replay import Replayed, Replaying
from cli.connection import load_settings
from cli.db import find_database_url
from cli.process import CommandError, format_sandbox, report_progress
from meter.counting.auditor import Audit, Progress, Read
from meter.counting.findings import Check
from meter.counting.rebuild import Rebuilding
from meter.domain.errors import MeterError
from meter.domain.times import to_iso
from meter.examination import AuditHost
from meter.options import JobOptions
from meter.runtime.clock import SystemClock

_PREVIOUS: Final = "previous"
_TOLD_SECONDS: Final = 1.0
# Findings that are shown; --json has some hundred more.
_SHOWN_MAX: Final = 20
# What of an audit says something about documents, and what it is called here.
_KINDS: Final = {Check.SEGMENTS: "journal", Check.SUMS: "usage"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Result:
    """What a replay found."""

    month: Month
    audit: Audit | None
    replayed: Replayed

    def findings(self) -> list[dict[str, Any]]:
        """Return all that is told, the causes first."""
        audited = [] if self.audit is None else self.audit.findings
        causes = [(_KINDS[it.check], it.says, it.facts) for it in audited if it.check in _KINDS]
        faults = [(it.kind, it.says, it.facts) for it in self.replayed.faults]
        faults.sort(key=lambda it: it[0] != "terms")
        return [
            {"kind": kind, "says": says, "facts": dict(facts)}
            for kind, says, facts in (*causes, *faults)
        ]

    def finding_count(self) -> int:
        """Return how many there are in all."""
        counts = {} if self.audit is None else self.audit.counts
        return sum(counts.get(it, 0) for it in _KINDS) + self.replayed.fault_count


@click.command("replay")
@click.argument("month", metavar="MONTH|previous")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--config", type=click.Path(path_type=Path), help="A settings file (TOML).")
def replay(*, month: str, as_json: bool, config: Path | None) -> None:
    """Make all documents of MONTH (2026-10) again from the journal, and compare them to the byte.

    `previous` is the last month that has ended in UTC, as a scheduled job says it. Works on the
    database of TOKENWORKS_DATABASE_URL, else on that of the nearest folder in which `tokenworks up`
    runs, and changes nothing. Names what is not as it was: a price or contract, a row of usage, a
    segment of the journal, a document or its rows. The exit code is 1 when there is anything.
    """
    try:
        wanted = None if month == _PREVIOUS else read_month(month)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="MONTH") from error
    settings = load_settings(config, flags={})
    options = JobOptions(
        database_url=find_database_url(settings),
        tiers=settings.tiers,
        archive_folder=settings.archive_folder,
    )
    try:
        with meter.examination.open_audit(options) as opened:
            if opened.host.is_driven:
                report_progress(format_sandbox(to_iso(opened.host.clock.now_ms())))
            now_ms = opened.host.clock.now_ms()
            result = _replay(opened, wanted or month_of(now_ms, UTC_ZONE).previous())
    except MeterError as error:
        raise CommandError(f"{error.message} ({error.reason})") from error
    if as_json:
        click.echo(json.dumps(_to_json(result), indent=2))
    else:
        _print(result)
    count = result.finding_count()
    if count:
        raise CommandError(f"{count:,} things are not as they were")


def _replay(opened: AuditHost, month: Month) -> _Result:
    replaying = billing.app.make_replaying(opened.host)
    span = replaying.find_span(month)
    if span is None:
        return _Result(month=month, audit=None, replayed=replaying.look_for_missing())
    rebuilding, tell = Rebuilding(), _Teller()
    audit = _read_journal(opened, span, rebuilding=rebuilding, tell=tell)
    replayed = _make(replaying, month, rebuilding=rebuilding, tell=tell)
    return _Result(month=month, audit=audit, replayed=replayed)


def _read_journal(
    opened: AuditHost, span: Span, *, rebuilding: Rebuilding, tell: "_Teller"
) -> Audit:
    """Read the journal once: for the audit, and for the usage that it comes to."""

    def take(read: Read) -> None:
        rebuilding.add(
            read.segment, cut_id=read.cut_id, window=read.window, catalogue=read.catalogue
        )

    def told(progress: Progress) -> None:
        until = to_iso(progress.window.end_ms)
        tell(f"replay: {progress.event_count:,} events up to {until}")

    return opened.auditor.audit(
        since_ms=span.start_ms, until_ms=span.end_ms, on_progress=told, on_read=take
    )


def _make(
    replaying: Replaying, month: Month, *, rebuilding: Rebuilding, tell: "_Teller"
) -> Replayed:
    return replaying.replay(
        month,
        rebuilding.usage(),
        on_progress=lambda count: tell(f"replay: {count:,} documents"),
    )


class _Teller:
    """Tells of progress, at most once a second."""

    def __init__(self) -> None:
        self._clock = SystemClock()
        self._told = self._clock.monotonic_seconds()

    def __call__(self, line: str) -> None:
        if self._clock.monotonic_seconds() - self._told >= _TOLD_SECONDS:
            self._told = self._clock.monotonic_seconds()
            report_progress(line)


def _print(result: _Result) -> None:
    replayed, audit = result.replayed, result.audit
    found = result.findings()
    for it in found[:_SHOWN_MAX]:
        click.echo(f"{it['kind']}: {it['says']}")
    more = result.finding_count() - min(len(found), _SHOWN_MAX)
    if more:
        click.echo(f"… and {more:,} more")
    if audit is None:
        click.echo(f"{result.month}: no documents")
        return
    same = replayed.document_count - len(replayed.different)
    click.echo(
        f"{result.month}: {same:,} of {replayed.document_count:,} documents come out the same, byte"
        f" for byte, from {audit.event_count:,} events"
    )


def _to_json(result: _Result) -> dict[str, object]:
    replayed, audit = result.replayed, result.audit
    return {
        "month": str(result.month),
        "documents": replayed.document_count,
        "different": sorted(replayed.different),
        "events": 0 if audit is None else audit.event_count,
        "finding_count": result.finding_count(),
        "findings": result.findings(),
    }
