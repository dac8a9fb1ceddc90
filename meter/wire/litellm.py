"""LiteLLM's records by HTTP: what its callback `generic_api` sends."""

from typing import Final

from meter.domain.clock import Clock
from meter.domain.errors import MeterError
from meter.domain.limits import LITELLM_BODY_BYTES_MAX
from meter.sources.litellm import PROFILE, NoRecords, parse, read
from meter.sources.observation import Observation, Source, Unreadable, sort_out
from meter.sources.places import Places
from meter.wire.http_bodies import check_count, make_sense
from meter.wire.http_reports import HttpAnswer, HttpReport, Route, format_json_error
from meter.wire.observed import ObservedIntake
from meter.wire.status import invalid
from meter.wire.unreadable import UnreadableReports

PATH: Final = "/v1/litellm"
_TYPES: Final = frozenset({"application/json", "application/x-ndjson"})
_TOO_MANY: Final = 429
_UNAVAILABLE: Final = 503


class LiteLlmDesk:
    """Takes records, one or many at once."""

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
        return Route(
            path=PATH,
            answer=self._answer,
            content_types=_TYPES,
            body_bytes_max=LITELLM_BODY_BYTES_MAX,
            format_error=format_error,
        )

    async def _answer(self, report: HttpReport) -> HttpAnswer:
        observations, faults = await make_sense(
            lambda: self._read(report.body), size_bytes=len(report.body)
        )
        self._faults.note(Source.LITELLM, faults)
        await self._intake.take(
            observations, credential=report.credential, source=Source.LITELLM, profile=PROFILE
        )
        return HttpAnswer()

    def _read(self, body: bytes) -> tuple[list[Observation], list[Unreadable]]:
        try:
            records = parse(body)
        except NoRecords as error:
            raise invalid("the body", "records of LiteLLM, as JSON") from error
        check_count(len(records), noun="records")
        received_ms = self._clock.now_ms()
        return sort_out(read(records, places=self._places, received_ms=received_ms))


def format_error(error: MeterError, *, status: int, content_type: str) -> HttpAnswer:
    """Return an error as JSON; who has to wait is told so by 503.

    LiteLLM sends again what was answered by 500 or more, and drops all else.
    """
    told = _UNAVAILABLE if status == _TOO_MANY else status
    return format_json_error(error, status=told, content_type=content_type)
