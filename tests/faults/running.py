"""Runs one row to its end, whatever comes, and says what came of it."""

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Final

import psycopg

from cli.postgres.errors import PostgresError
from tests.faults.plant import Template
from tests.faults.row import Result, Row, Seen, Skipped
from tests.faults.site import Site
from tests.faults.verdict import Verdict
from tests.faults.waiting import TookTooLong

ROW_SECONDS_MAX: Final = 300
# What the world may do to a row; a mistake of the harness's own ends the whole run.
_FAILURES: Final = (
    AssertionError,
    OSError,
    PostgresError,
    RuntimeError,
    ValueError,
    psycopg.Error,
    subprocess.SubprocessError,
)


def run_row(
    row: Row,
    *,
    template: Template,
    folder: Path,
    seconds: float,
    row_seconds_max: int = ROW_SECONDS_MAX,
) -> Result:
    """Run a row: load, fault, heal, drain, judge. It ends in time, and leaves nothing running."""
    begin = time.monotonic()
    result = Result(fault=row.fault, expected=row.expected, seen="")
    site = Site(template, folder=folder, seconds=seconds, behind_proxy=row.behind_proxy)
    try:
        with _deadline(row_seconds_max, what=row.name):
            if not row.starts_itself:
                site.start()
            seen = row.act(site)
            undelivered = site.drain()
            result = to_result(row, seen=seen, judged=site.judge(), undelivered=undelivered)
            found = "" if row.wants_doubled else site.audit(seconds_max=row_seconds_max)
            if result.ok and found:
                result = replace(result, ok=False, wrong=found)
    except Skipped as reason:
        result = replace(result, skipped=str(reason))
    except _FAILURES as error:
        result = replace(result, wrong=f"{type(error).__name__}: {error}")
    finally:
        left = _close(site)
    if left:
        result = replace(result, ok=False, wrong=result.wrong or left)
    return replace(result, seconds=round(time.monotonic() - begin, 1))


def to_result(row: Row, *, seen: Seen, judged: Verdict, undelivered: str) -> Result:
    """Say whether a row is ok: the fault was seen, and every event is where it belongs."""
    wrong = next(filter(None, _complaints(row, seen, judged, undelivered)), None)
    return Result(
        fault=row.fault,
        expected=row.expected,
        seen=f"{seen.count:,} {seen.what}",
        sent=judged.sent,
        counted=judged.counted,
        lost=judged.lost,
        doubled=judged.doubled,
        set_aside=judged.set_aside,
        at_risk_lost=judged.at_risk_lost,
        refused=judged.refused,
        ok=wrong is None,
        wrong=wrong,
    )


def _close(site: Site) -> str:
    """Leave nothing running; returns what could not be ended."""
    try:
        site.close()
    except _FAILURES as error:
        return f"{type(error).__name__} at the end: {error}"
    return ""


def _complaints(row: Row, seen: Seen, judged: Verdict, undelivered: str) -> Iterator[str]:
    if seen.count < 1:
        yield f"the fault was not seen: {seen.count} {seen.what}"
    if judged.sent == 0:
        yield "nothing was sent"
    if row.wants_doubled:
        yield "" if judged.doubled else "nothing was doubled, though the sender is broken"
        return
    yield undelivered
    yield seen.wrong
    if judged.lost > seen.loss_max:
        yield f"{judged.lost} events are lost, at most {seen.loss_max} may be"
    if judged.at_risk_lost > seen.at_risk_max:
        yield f"{judged.at_risk_lost} events of a killed sender, at most {seen.at_risk_max} may be"
    if judged.refused > seen.refused_max:
        yield f"{judged.refused} events were not taken, at most {seen.refused_max} may be"
    if judged.doubled:
        yield f"{judged.doubled} events are doubled"
    if not seen.set_aside_min <= judged.set_aside <= max(seen.set_aside_max, seen.set_aside_min):
        yield f"{judged.set_aside} events in quarantine, not {seen.set_aside_min} or a few more"
    yield judged.difference or ""


@contextmanager
def _deadline(seconds: int, *, what: str) -> Iterator[None]:
    def give_up(_number: int, _frame: FrameType | None) -> None:
        raise TookTooLong(f"{what} did not end within {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
