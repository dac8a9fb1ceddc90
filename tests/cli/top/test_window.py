"""Answers over a window: how far back, what a restart does, and curves through them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.top.counters import Sample, parse_page, to_report
from cli.top.window import SAMPLES_MAX, Window, to_history


def _sample(seconds: float, count: float, *, started: float = 1.0) -> Sample:
    text = (
        f'tokenworks_tokens_total{{tier="high",pool="a",token_class="OUTPUT"}} {count}\n'
        f"tokenworks_commit_seconds_created {started}\n"
    )
    return parse_page(text, read_seconds=seconds)


def _times(window: Window) -> list[float]:
    return [sample.read_seconds for sample in window.samples]


def test_window__reaches_back_so_far() -> None:
    """The oldest answer is the newest that is at least as old as the window is long."""
    window = Window(_sample(0, 0), seconds=10)
    for seconds in (4, 8, 12, 17):
        window.add(_sample(seconds, seconds))
    assert _times(window) == [4, 8, 12, 17]
    window.add(_sample(18, 18))
    assert _times(window) == [8, 12, 17, 18]


def test_window__shorter_than_a_wait() -> None:
    """There are always the last two answers, or there would be no rates."""
    window = Window(_sample(0, 0), seconds=1)
    for seconds in (5, 10, 15):
        window.add(_sample(seconds, seconds))
    assert _times(window) == [10, 15]


@pytest.mark.parametrize("started", [1.0, 2.0])
def test_window__restart(started: float) -> None:
    """After a restart the window starts anew, and no rate is ever negative."""
    window = Window(_sample(0, 100), seconds=60)
    window.add(_sample(2, 120))
    window.add(_sample(4, 5 if started == 1 else 500, started=started))
    assert _times(window) == [4]
    assert to_report(window.samples) is None
    window.add(_sample(6, 525, started=started))
    report = to_report(window.samples)
    assert report is not None
    assert report.total.tokens_per_second == (260 if started == 1 else 12.5)


@given(counts=st.lists(st.integers(0, 1_000), min_size=2, max_size=30))
def test_window__counters_that_jump(counts: list[int]) -> None:
    """However counters go up and down, rates are at least 0."""
    window = Window(_sample(0, counts[0]), seconds=5)
    for seconds, count in enumerate(counts[1:], start=1):
        window.add(_sample(seconds, count))
        report = to_report(window.samples)
        assert report is None or report.total.tokens_per_second >= 0


def test_window__keeps_a_bounded_number() -> None:
    """However often it is read, only so many answers are kept, and the rates stay exact."""
    window = Window(_sample(0, 0), seconds=60)
    for place in range(1, 3_000):
        window.add(_sample(place / 10, place))
    assert len(window.samples) <= SAMPLES_MAX + 2
    assert window.samples[-1].read_seconds == pytest.approx(299.9)
    report = to_report(window.samples)
    assert report is not None
    assert report.seconds == pytest.approx(60, abs=0.3)
    assert report.total.tokens_per_second == pytest.approx(10.0)


def test_history__in_equal_parts() -> None:
    """Counts between two answers are taken as even; before the first there is nothing."""
    samples = [_sample(0, 0), _sample(4, 40), _sample(6, 100)]
    assert to_history(samples, tier="high", points=4, seconds=8) == [None, 10, 10, 30]
    assert to_history(samples, tier="high", points=3, seconds=6) == [10, 10, 30]
    assert to_history(samples, tier="free", points=3, seconds=6) == [0, 0, 0]
    assert to_history(samples[:1], tier="high", points=2, seconds=6) == [None, None]


@given(counts=st.lists(st.integers(0, 10_000), min_size=2, max_size=40), points=st.integers(1, 40))
def test_history__holds_all_tokens(counts: list[int], points: int) -> None:
    """All parts together are what was counted."""
    total, samples = 0, []
    for seconds, count in enumerate(counts):
        total += count
        samples.append(_sample(seconds, total))
    span = len(counts) - 1
    history = to_history(samples, tier="high", points=points, seconds=span)
    counted = sum(point or 0.0 for point in history) * span / points
    assert counted == pytest.approx(total - counts[0])
