"""A pace: so many in a second, some at once after a rest, and debts that are paid."""

from hypothesis import given
from hypothesis import strategies as st

from meter.domain.pace import Pace


def test_take__burst_then_the_pace() -> None:
    """What a rest has filled is free; then each waits for the one before it."""
    pace = Pace(per_second=10, burst_max=2, now_seconds=0)
    assert [pace.take(1, now_seconds=0) for _ in range(4)] == [0, 0, 0.1, 0.2]


def test_take__rest_fills_no_more_than_the_burst() -> None:
    """A long rest gives no more than a burst."""
    pace = Pace(per_second=10, burst_max=2, now_seconds=0)
    assert [pace.take(1, now_seconds=1_000) for _ in range(3)] == [0, 0, 0.1]
    assert not pace.is_full(1_000)
    assert pace.is_full(1_001)


def test_give_back__undoes_a_taking() -> None:
    """What was known already is given back, and no more than there was room for."""
    pace = Pace(per_second=1, burst_max=5, now_seconds=0)
    assert pace.take(20, now_seconds=0) == 15
    assert pace.wait_seconds(0) == 16
    pace.give_back(20)
    assert pace.wait_seconds(0) == 0
    pace.give_back(20)
    assert pace.take(6, now_seconds=0) == 1


@given(
    steps=st.lists(st.tuples(st.floats(0, 10), st.integers(1, 50)), min_size=1, max_size=50),
    per_second=st.integers(1, 100),
    burst=st.integers(1, 100),
)
def test_take__never_more_than_the_pace(
    steps: list[tuple[float, int]], per_second: int, burst: int
) -> None:
    """Whoever waits as told has taken at most a burst and what the time since gave."""
    now, taken = 0.0, 0
    pace = Pace(per_second=per_second, burst_max=burst, now_seconds=now)
    for pause, count in steps:
        now += pause
        now += pace.take(count, now_seconds=now)
        taken += count
        assert taken <= burst + per_second * now + 1e-6 * taken
