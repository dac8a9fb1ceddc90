"""What a source saw of one request. Pure.

Several sources may see the same request; `rank` says whose report is counted.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from meter.domain.event import Dimensions


class Source(IntEnum):
    """Who reports, where several may; numbers as on the wire, kept for good."""

    PROXY = 1
    LITELLM = 2
    ENVOY = 3
    CLOUD_EVENTS = 4
    ASGI = 5
    SPAN = 6
    LOG = 7


@dataclass(slots=True, kw_only=True)
class Observation:
    """One report of one request; not frozen, since it is made 30,000 times a second.

    `report_id` names the report among all of its source, and is the same when it is sent again.
    Reports with the same `request_id` and `attempt` are of one request; without a `request_id` a
    report stands alone. `tokens` maps class numbers to counts > 0; an absent class counts 0.
    `is_choice` tells that the report is of one of several answers to one prompt: those add up that
    came to the engine at the same `arrival_ns`, ns since 1970, of each `turn` that a request has.
    `is_doubtful` tells that another source may have reported the request under another id.
    `original` is the usage object as it came, JSON at heart, with neither prompt nor answer.
    """

    report_id: str
    request_id: str
    dimensions: Dimensions
    end_ms: int
    tokens: Mapping[int, int]
    attempt: int = 0
    duration_ms: int = 0
    finish: int = 1
    quality: int = 1
    reported_input: int = -1
    reported_output: int = -1
    is_choice: bool = False
    arrival_ns: int = 0
    turn: int = 0
    is_doubtful: bool = False
    original: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A report that claims to be of usage, and of which no event can be made.

    `reason` is one of few texts of ours: it is logged, and never holds anything that was sent.
    """

    reason: str


def sort_out(
    reports: Iterable[Observation | Unreadable],
) -> tuple[list[Observation], list[Unreadable]]:
    """Return what can be read and what cannot, each in its order."""
    observations: list[Observation] = []
    faults: list[Unreadable] = []
    for report in reports:
        if isinstance(report, Observation):
            observations.append(report)
        else:
            faults.append(report)
    return observations, faults


# Who is nearer to the caller knows for whom a request ran; who is nearer to the engine does not.
_PRECEDENCE: Final[Mapping[Source, int]] = {
    Source.PROXY: 5,
    Source.LITELLM: 4,
    Source.ENVOY: 4,
    Source.CLOUD_EVENTS: 4,
    Source.ASGI: 3,
    Source.SPAN: 2,
    Source.LOG: 1,
}
RANK_MAX: Final = 63
_FINAL: Final = 1
_PARTIAL: Final = 2


def rank(source: Source, *, quality: int) -> int:
    """Return how good a report is, 0 to 63: greater is better, equals leave the first one counted.

    What the engine counted, in whole or until the end came, is better than anybody's estimate; then
    it matters who reports, and then whether the counts are final.
    """
    is_counted = quality in (_FINAL, _PARTIAL)
    return 32 * is_counted + 4 * _PRECEDENCE[source] + (quality == _FINAL)
