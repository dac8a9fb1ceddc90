"""Reports from a source's call to the journal: in order, in parts, and told of in metrics."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from meter.domain.errors import Reason, Unavailable
from meter.domain.event import Origin
from meter.domain.limits import OBSERVED_AT_ONCE_MAX
from meter.domain.outcome import Outcome
from meter.journal.commit import Result, Submission
from meter.metrics import Metrics
from meter.sources.observation import Observation, Source
from meter.store.journal import JournalStore
from meter.wire.bounds import Bounds
from meter.wire.observed import ObservedIntake
from tests.clock import FakeClock
from tests.meter.observing import INPUT, seen
from tests.meter.plain_events import BEGIN_MS
from tests.meter.store.recording import commit
from tests.meter.test_intake import CREDENTIAL, new_intake


class Writer:
    """Commits each submission by itself, until it is out of order."""

    def __init__(self, store: JournalStore, *, commits_max: int = 1_000) -> None:
        self._store = store
        self.commits_left = commits_max

    async def wait_for_room(self, origin: Origin, *, seconds: float) -> None:
        """Have room."""

    async def submit(self, submission: Submission) -> Result:
        """Return what became of it."""
        if not self.commits_left:
            raise Unavailable(Reason.STORE_UNAVAILABLE, "The database is away.")
        self.commits_left -= 1
        (result,) = commit(self._store, submission)
        return result


def take(
    writer: Writer, metrics: Metrics, *observations: Observation, source: Source = Source.SPAN
) -> list[int]:
    """Take reports as a server does."""
    clock = FakeClock(BEGIN_MS)
    parts: Any = SimpleNamespace(
        intake=new_intake(),
        bounds=Bounds(metrics, calls_per_second_max=100, monotonic_seconds=clock.monotonic_seconds),
        writer=writer,
        clock=clock,
        metrics=metrics,
    )
    intake = ObservedIntake(cast("Any", parts))
    return asyncio.run(
        intake.take(observations, credential=CREDENTIAL, source=source, profile="test/1")
    )


def test_take__more_than_fit_at_once(store: JournalStore) -> None:
    """A call's outcomes come in its order, however many parts it takes, and so do metrics."""
    metrics = Metrics()
    many = [
        seen(f"{n}", request_id=f"{n}", tier="none" if n % 1_000 == 7 else "high")
        for n in range(OBSERVED_AT_ONCE_MAX + 100)
    ]
    outcomes = take(Writer(store), metrics, *many, many[0])
    assert outcomes[7] == outcomes[1_007] == Outcome.TIER_UNKNOWN
    assert outcomes[-1] == Outcome.DUPLICATE
    assert outcomes.count(Outcome.RECORDED) == len(many) - 2
    take(Writer(store), metrics, seen("e", request_id="0", tokens={INPUT: 9}), source=Source.LOG)
    found = {
        tuple(sample.labels.values()): sample.value
        for metric in metrics.registry.collect()
        if metric.name.startswith("tokenworks_observation")
        for sample in metric.samples
        if sample.name.endswith("_total")
    }
    assert found == {
        ("span", "counted"): len(many) - 2,
        ("span", "set_aside"): 2,
        ("span", "duplicate"): 1,
        ("log", "observed"): 1,
        ("log",): 1,
    }


def test_metrics__of_ids_used_again_begin_with_none() -> None:
    """The first one of a server is an increase, which an alert sees."""
    value = Metrics().registry.get_sample_value
    assert value("tokenworks_events_total", {"outcome": "REQUEST_ID_REUSED"}) == 0


def test_take__database_is_lost_amid_a_call(store: JournalStore) -> None:
    """The call fails, and sent again it counts what is missing, and nothing twice."""
    many = [seen(f"{n}", request_id=f"{n}") for n in range(OBSERVED_AT_ONCE_MAX + 1)]
    with pytest.raises(Unavailable):
        take(Writer(store, commits_max=1), Metrics(), *many)
    outcomes = take(Writer(store), Metrics(), *many)
    assert outcomes.count(Outcome.DUPLICATE) == OBSERVED_AT_ONCE_MAX
    assert outcomes[-1] == Outcome.RECORDED
