"""Reports of any source to the journal: each request is counted once, whoever reports it."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from meter.domain.credential import Credential
from meter.domain.event import Origin
from meter.domain.limits import OBSERVED_AT_ONCE_MAX
from meter.domain.outcome import FIRST_QUARANTINED
from meter.sources.observation import Observation, Source
from meter.wire.observed_counts import note_differing, note_observed
from meter.wire.stream import StreamParts

# How long a call waits for room in the buffer before its source is told to come back.
_ROOM_SECONDS: Final = 5.0


class ObservedIntake:
    """Takes what sources saw. Runs on the event loop alone."""

    def __init__(self, parts: StreamParts) -> None:
        """Take what streams work with."""
        self._parts = parts

    async def take(
        self,
        observations: Sequence[Observation],
        *,
        credential: Credential,
        source: Source,
        profile: str,
    ) -> list[int]:
        """Record reports and return an `Outcome` number for each, in order, once they are on disk.

        `profile` names the table and version by which they were read. Raises Overloaded and
        Unavailable; what was recorded until then is recognised when it comes again.
        """
        parts = self._parts
        outcomes: list[int] = []
        for first in range(0, len(observations), OBSERVED_AT_ONCE_MAX):
            some = observations[first : first + OBSERVED_AT_ONCE_MAX]
            outcomes += await self._take_some(
                some, credential=credential, source=source, profile=profile
            )
        note_observed(parts.metrics, source, Counter(outcomes), now_ms=parts.clock.now_ms())
        return outcomes

    async def _take_some(
        self,
        observations: Sequence[Observation],
        *,
        credential: Credential,
        source: Source,
        profile: str,
    ) -> list[int]:
        parts = self._parts
        share = parts.bounds.of(credential.key_id)
        calls = share.sender("")
        origin = Origin(
            account_id=credential.account_id or "",
            key_id=credential.key_id,
            received_ms=parts.clock.now_ms(),
        )
        async with share.events(len(observations)):
            await calls.news()
            await parts.writer.wait_for_room(origin, seconds=_ROOM_SECONDS)
            met_count = parts.intake.met_count
            submission, checked = parts.intake.from_observations(
                observations, credential, origin, source=source, profile=profile
            )
            calls.met(parts.intake.met_count - met_count)
            result = await parts.writer.submit(submission)
        calls.known(result.known_dimension_count)
        note_differing(parts.metrics, source, result)
        return merged(checked.tolist(), result.outcomes)


def merged(checked: Sequence[int], claimed: Sequence[int]) -> list[int]:
    """Return each event's outcome: the check's where it was set aside, else the claim's."""
    places = iter(claimed)
    return [next(places) if it < FIRST_QUARANTINED else it for it in checked]
