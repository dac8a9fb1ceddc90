"""CloudEvents by HTTP, as OpenMeter takes them: 204 once all that was read is recorded."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from meter.domain.clock import Clock
from meter.domain.outcome import Outcome
from meter.sources.cloud_events import (
    PROFILE,
    CloudEvent,
    NoCloudEvents,
    parse_binary,
    parse_structured,
    read,
)
from meter.sources.observation import Observation, Source, Unreadable, sort_out
from meter.sources.places import Places
from meter.wire.http_bodies import check_count, make_sense
from meter.wire.http_reports import HttpAnswer, HttpReport, Route
from meter.wire.observed import ObservedIntake
from meter.wire.status import invalid
from meter.wire.unreadable import UnreadableReports

PATH: Final = "/api/v1/events"
# What became of the events, for a person who looks: RECORDED=2, ACCOUNT_UNKNOWN=1.
OUTCOMES_HEADER: Final = "tokenworks-outcomes"
_UNREADABLE: Final = "UNREADABLE"
_PLAIN: Final = "application/json"
_TYPES: Final = frozenset(
    {_PLAIN, "application/cloudevents+json", "application/cloudevents-batch+json"}
)


class CloudEventDesk:
    """Takes CloudEvents in each of their forms."""

    def __init__(
        self, intake: ObservedIntake, *, places: Places, faults: UnreadableReports, clock: Clock
    ) -> None:
        """Take where reports go, and where they have what."""
        self._intake = intake
        self._places = places
        self._faults = faults
        self._clock = clock

    def route(self) -> Route:
        """Return the place that takes them."""
        return Route(path=PATH, answer=self._answer, content_types=_TYPES)

    async def _answer(self, report: HttpReport) -> HttpAnswer:
        observations, faults = await make_sense(
            lambda: self._read(report), size_bytes=len(report.body)
        )
        self._faults.note(Source.CLOUD_EVENTS, faults)
        if faults and not observations:
            # Of a batch that others read the rest is recorded: who sends it has no use for a no.
            raise invalid("data", f"usage; {faults[0].reason}")
        outcomes = await self._intake.take(
            observations,
            credential=report.credential,
            source=Source.CLOUD_EVENTS,
            profile=PROFILE,
        )
        counts = Counter(Outcome(number).name for number in outcomes)
        counts.update({_UNREADABLE: len(faults)} if faults else {})
        told = ", ".join(f"{name}={count}" for name, count in sorted(counts.items()))
        return HttpAnswer(headers={OUTCOMES_HEADER: told} if told else {})

    def _read(self, report: HttpReport) -> tuple[list[Observation], list[Unreadable]]:
        try:
            events = _parse(report)
        except NoCloudEvents as error:
            raise invalid(error.field, error.rule) from error
        check_count(len(events), noun="events")
        received_ms = self._clock.now_ms()
        return sort_out(read(events, places=self._places, received_ms=received_ms))


def _parse(report: HttpReport) -> Sequence[CloudEvent]:
    if report.content_type == _PLAIN and "ce-specversion" in report.headers:
        return parse_binary(report.headers, report.body)
    return parse_structured(report.body)
