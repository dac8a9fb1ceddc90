"""Whatever a source makes of what it was sent: events, or set aside; never a fault of ours."""

from typing import Final

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from meter import segment
from meter.domain.event import Dimensions
from meter.domain.limits import EVENT_ID_BYTES
from meter.sources.observation import Observation, Source
from tests.meter.observing import Reporting
from tokenworks.meter.v1 import usage_pb2

REPORTING: Final = Reporting()
_TEXTS: Final = (
    st.sampled_from(["acme", "high", "m", ""])
    | st.text(max_size=200)
    | st.text(st.characters(codec=None), max_size=3)
)
_NUMBERS: Final = st.integers(-2, 300) | st.integers()
_OBSERVATIONS: Final = st.builds(
    Observation,
    report_id=_TEXTS,
    request_id=_TEXTS,
    dimensions=st.builds(Dimensions, _TEXTS, _TEXTS, _TEXTS, _TEXTS, _NUMBERS, _TEXTS, _TEXTS),
    end_ms=_NUMBERS,
    tokens=st.dictionaries(st.integers(1, 50), _NUMBERS, max_size=4),
    attempt=_NUMBERS,
    duration_ms=_NUMBERS,
    finish=_NUMBERS,
    quality=_NUMBERS,
    reported_input=_NUMBERS,
    reported_output=_NUMBERS,
    is_choice=st.booleans(),
)


@given(observations=st.lists(_OBSERVATIONS, min_size=1, max_size=5), source=st.sampled_from(Source))
def test_observations__of_any_content(observations: list[Observation], source: Source) -> None:
    """Each observation is an event of a segment or an entry for quarantine, readable as such."""
    submission = REPORTING(*observations, source=source)
    assert len(submission.batch) + len(submission.set_aside) == len(observations)
    for item in submission.set_aside:
        usage_pb2.UsageEvent.FromString(item.payload)
    assert submission.claims is not None
    for index in submission.claims.indexes:
        usage_pb2.UsageEvent.FromString(submission.claims.payload(index))
    if len(submission.batch):
        body = segment.encode(
            [(submission.origin, submission.batch)],
            dimension_ids=lambda batch: np.zeros(len(batch), np.int64),
        )
        assert len(segment.decode(body).event_ids) == EVENT_ID_BYTES * len(submission.batch)
