"""What the tests of observed requests report: observations, and the submissions made of them."""

from collections.abc import Mapping, Sequence
from typing import Final

from meter.domain.event import Dimensions, Origin
from meter.journal.commit import Submission
from meter.sources.observation import Observation, Source
from meter.wire.intake import Intake
from tests.meter.plain_events import BEGIN_MS
from tests.meter.test_intake import CREDENTIAL, ORIGIN, new_intake

INPUT: Final = 1
OUTPUT: Final = 7
PROFILE: Final = "test/1"


def seen(
    report_id: str = "r1",
    *,
    request_id: str = "q1",
    attempt: int = 0,
    tokens: Mapping[int, int] | None = None,
    quality: int = 1,
    end_ms: int = BEGIN_MS,
    account: str = "acme",
    model: str = "m",
    tier: str = "high",
    is_choice: bool = False,
    arrival_ns: int = 0,
    original: Mapping[str, object] | None = None,
) -> Observation:
    """Return a report."""
    return Observation(
        report_id=report_id,
        request_id=request_id,
        attempt=attempt,
        dimensions=Dimensions(account, model, "", tier, 1, "", ""),
        end_ms=end_ms,
        tokens={INPUT: 10, OUTPUT: 5} if tokens is None else tokens,
        quality=quality,
        is_choice=is_choice,
        arrival_ns=arrival_ns,
        original=original or {},
    )


class Reporting:
    """Makes submissions of what sources saw, as the server does."""

    def __init__(self) -> None:
        """Begin with an account `acme` and a tier `high`."""
        self.intake: Intake = new_intake()

    def __call__(
        self,
        *observations: Observation,
        source: Source = Source.SPAN,
        origin: Origin = ORIGIN,
        profile: str = PROFILE,
    ) -> Submission:
        """Return them as a submission."""
        submission, _ = self.intake.from_observations(
            observations, CREDENTIAL, origin, source=source, profile=profile
        )
        return submission


def outcomes_of(result: object) -> Sequence[int]:
    """Return the outcomes of a commit's result, those of the check left out."""
    outcomes: Sequence[int] = result.outcomes  # type: ignore[attr-defined]
    return outcomes
