"""Which of a request's reports is counted, when several were made. Pure.

It depends on all reports and on the order in which they came, never on when somebody looked: what
was decided before is decided again with each report that comes late.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from meter.corrections import CorrectableEvent
from meter.domain.event import DEFAULTS
from meter.domain.limits import TOKEN_COUNT_MAX
from meter.domain.tokens import OUTPUT_CLASSES

_UNKNOWN: Final = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One report of a request; `report_id` is a number that no other report of it has.

    `rank` tells how good it is; `is_choice` that it is of one of several answers to one prompt.
    """

    report_id: int
    source: int
    rank: int
    is_choice: bool
    event: CorrectableEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is counted of a request: one report, or one source's choices added up."""

    report_ids: frozenset[int]
    source: int
    rank: int
    is_choice: bool
    event: CorrectableEvent

    @property
    def token_count(self) -> int:
        """How many tokens it has, of all classes."""
        return sum(self.event.tokens.values())


def choose(reports: Sequence[Report]) -> Standing:
    """Return what is to be counted of the reports, one or more, in the order in which they came.

    The best one is, of equals the first. A source's choices are one report, as good as the best of
    them, that came when this one did.
    """
    best: tuple[tuple[int, int], list[Report]] | None = None
    for candidate in _candidates(reports):
        rank, at = max((report.rank, -at) for at, report in candidate)
        if best is None or (rank, at) > best[0]:
            best = ((rank, at), [report for _, report in candidate])
    assert best is not None, "there is at least one report"
    (rank, _), members = best
    return Standing(
        report_ids=frozenset(report.report_id for report in members),
        source=members[0].source,
        rank=rank,
        is_choice=members[0].is_choice,
        event=_added_up([report.event for report in members]),
    )


def is_billed_alike(one: CorrectableEvent, other: CorrectableEvent) -> bool:
    """Tell whether it makes no difference to anybody's bill which of the two is counted.

    When it ended and where it ran makes none: observers' clocks differ by themselves.
    """
    return _billed(one) == _billed(other)


def _candidates(reports: Sequence[Report]) -> list[list[tuple[int, Report]]]:
    """Return the reports that may be counted together, each with its place in the order."""
    alone: list[list[tuple[int, Report]]] = []
    choices: dict[int, list[tuple[int, Report]]] = {}
    for at, report in enumerate(reports):
        if not report.is_choice:
            alone.append([(at, report)])
            continue
        members = choices.setdefault(report.source, [])
        # A sum that no event could say stays without the rest of it, as evidence.
        if _fits([*(it.event for _, it in members), report.event]):
            members.append((at, report))
    return [*alone, *choices.values()]


def _fits(events: Sequence[CorrectableEvent]) -> bool:
    return max(_sums(events).values(), default=0) <= TOKEN_COUNT_MAX


def _added_up(events: Sequence[CorrectableEvent]) -> CorrectableEvent:
    """Return the choices as one event: one prompt, all answers, and what the worst came to."""
    if len(events) == 1:
        return events[0]
    extra = {
        "duration_ms": max(_said(events, "duration_ms")),
        "finish": max(_said(events, "finish")),
        "quality": max(_said(events, "quality")),
        "attempt": _said(events, "attempt")[0],
        "reported_input": max(_said(events, "reported_input")),
        "reported_output": _UNKNOWN,
    }
    outputs = _said(events, "reported_output")
    if _UNKNOWN not in outputs:
        extra["reported_output"] = min(sum(outputs), TOKEN_COUNT_MAX)
    return replace(
        events[0],
        end_ms=max(event.end_ms for event in events),
        tokens=_sums(events),
        extra={name: value for name, value in extra.items() if value != DEFAULTS[name]},
    )


def _said(events: Sequence[CorrectableEvent], name: str) -> list[int]:
    return [event.extra.get(name, DEFAULTS[name]) for event in events]


def _sums(events: Sequence[CorrectableEvent]) -> dict[int, int]:
    sums: dict[int, int] = {}
    for event in events:
        for number, count in event.tokens.items():
            before = sums.get(number, 0)
            sums[number] = before + count if number in OUTPUT_CLASSES else max(before, count)
    return sums


def _billed(event: CorrectableEvent) -> tuple[str, str, str, str, int, str, Mapping[int, int]]:
    of = event.dimensions
    served = of.served_model or of.model
    return (of.account, of.model, served, of.tier, of.mode, of.region, event.tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """What a request is counted by, as its claim says: of one report, or of choices added up.

    `correction_id` is the last correction that the arbiter made of it, None before the first one.
    """

    source: int
    rank: int
    token_count: int
    is_choice: bool
    correction_id: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstReport:
    """The report that came first, kept beside the others once it is counted no more.

    `event` is a message of the wire; `received_ms` is when its request was claimed.
    """

    report_key: bytes
    source: int
    rank: int
    billed_hash: bytes
    token_count: int
    is_choice: bool
    received_ms: int
    key_id: str
    profile: str
    event: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What was decided about a request; written in one transaction with its correction.

    `before` is the claim that was looked at, `after` the one from now on. `counted_ids` are the
    observations that are counted, `seen_id` is the newest one that was looked at, of `seen_count`:
    those above it are looked at again, and all of them where more are below it by now.
    """

    event_key: bytes
    before: Claimed
    after: Claimed
    counted_ids: Sequence[int]
    seen_id: int
    seen_count: int
    first: FirstReport | None = None
