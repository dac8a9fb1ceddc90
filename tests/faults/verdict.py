"""Compares truth, journal, usage and invoice; says what was lost, doubled or set aside.

Written against the data alone: the standard library and psycopg, nothing of the product.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg

from tests.acceptance import checker
from tests.faults.kept import request_ids

HELD = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What senders wrote down before they sent it."""

    events: Mapping[str, Mapping[str, Any]]
    """By request id."""
    unpromised: frozenset[str] = frozenset()
    """Those that a killed sender was allowed to lose: recorded after its last promise."""
    refused_count: int = 0
    """Events that a client did not take and said so; they are not among the others."""
    voided_count: int = 0
    """Events that were sent and then taken back; they are not among the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a database holds."""

    journal: checker.Ledger
    usage: checker.Ledger
    faults: list[str] = field(default_factory=list)
    """What is wrong with the journal's form."""
    kept: frozenset[str] = frozenset()
    """Request ids in quarantine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of the events; every number counts events."""

    sent: int
    counted: int
    """Truth's events that are in the journal, each once."""
    lost: int
    """Neither in the journal nor in quarantine, though they were promised."""
    doubled: int
    """Surplus of events in the journal: counted again, or never sent."""
    set_aside: int
    """In quarantine and not in the journal."""
    at_risk_lost: int
    """Lost by a killed sender, which had not promised them."""
    refused: int
    """Not taken by a client, which said so."""
    difference: str | None
    """The first difference in the sums, None when journal and usage hold just what was counted."""


def read_truth(paths: Iterable[Path], *, killed: Iterable[str] = ()) -> Truth:
    """Read truth files; `killed` names those (stems) whose last events were not promised."""
    killed_stems = set(killed)
    events: dict[str, Mapping[str, Any]] = {}
    unpromised: set[str] = set()
    refused: set[str] = set()
    voided: set[str] = set()
    for path in paths:
        promised = _promised_count(path) if path.stem in killed_stems else None
        refused.update(_names(path.with_suffix(".refused")))
        voided.update(_names(path.with_suffix(".voided")))
        for index, line in enumerate(path.read_text("utf-8").splitlines()):
            event = json.loads(line)
            if event["request_id"] in events:
                raise ValueError(f"{path}: two events are called {event['request_id']}")
            events[event["request_id"]] = event
            if promised is not None and index >= promised:
                unpromised.add(event["request_id"])
    taken = {name: it for name, it in events.items() if name not in refused | voided}
    return Truth(
        events=taken,
        unpromised=frozenset(unpromised & taken.keys()),
        refused_count=len(refused),
        voided_count=len(voided),
    )


def read_database(url: str) -> Found:
    """Read journal, usage and quarantine in one snapshot."""
    with psycopg.connect(url, connect_timeout=10) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        journal, faults = checker.read_journal(connection)
        usage = checker.read_usage(connection)
        kept = set()
        for index, payload in connection.execute(
            "SELECT event_index, payload FROM quarantine WHERE state = %s", [HELD]
        ):
            kept.update(request_ids(payload, is_batch=index < 0))
    return Found(journal=journal, usage=usage, faults=faults, kept=frozenset(kept))


def judge(truth: Truth, *, found: Found) -> Verdict:
    """Say what became of the events."""
    # One that was taken back is there 0 times, one that was taken back twice less than that.
    in_journal = {name: times for name, times in found.journal.request_ids.items() if times}
    counted = truth.events.keys() & in_journal.keys()
    surplus = sum(abs(times - 1) for times in in_journal.values())
    foreign = in_journal.keys() - truth.events.keys()
    missing = truth.events.keys() - in_journal.keys()
    aside = missing & found.kept
    lost = missing - aside
    expected = add_up(truth.events[name] for name in counted)
    differences = [
        *found.faults,
        *checker.differences(expected, journal=found.journal, usage=found.usage),
    ]
    return Verdict(
        sent=len(truth.events),
        counted=len(counted),
        lost=len(lost - truth.unpromised),
        doubled=surplus + len(foreign),
        set_aside=len(aside),
        at_risk_lost=len(lost & truth.unpromised),
        refused=truth.refused_count,
        difference=differences[0] if differences else None,
    )


def with_difference(judged: Verdict, difference: str | None) -> Verdict:
    """Return a verdict with a difference that was found beside the sums."""
    return replace(judged, difference=difference)


def counted_events(truth: Truth, *, found: Found) -> list[Mapping[str, Any]]:
    """Return the events of the truth that are in the journal."""
    in_journal = found.journal.request_ids
    return [event for name, event in truth.events.items() if in_journal[name]]


def add_up(events: Iterable[Mapping[str, Any]]) -> checker.Ledger:
    """Return the sums of some events, each counted once."""
    ledger = checker.Ledger()
    counts: dict[checker.Place, Counter[str]] = {}
    for event in events:
        place = checker.Place(
            event["account"],
            event["tier"],
            event["model"],
            event["mode"],
            event["end_time_ms"] // 900_000 * 900_000,
        )
        sums = counts.setdefault(place, Counter())
        sums.update({checker.REQUESTS: 1, **event["classes"]})
        ledger.request_ids[event["request_id"]] += 1
    for place, sums in counts.items():
        ledger.add(place, counts=dict(sums))
    return ledger


def _names(path: Path) -> list[str]:
    return path.read_text("ascii").split() if path.exists() else []


def _promised_count(path: Path) -> int:
    text = path.with_suffix(".promised").read_text("ascii")
    return int(text or "0")
