"""Reading again and again: restarts, silences and times, without a clock of its own."""

from collections.abc import Iterator
from itertools import islice

import pytest

from cli.top.counters import Sample, parse_page
from cli.top.endpoint import NoAnswer
from cli.top.watch import Frame, watch
from tests.cli.top.fake_metrics import write_page

EVERY = 2.0


class Clock:
    """A clock that goes on only when somebody waits."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        return int(self.seconds * 1000)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.seconds += seconds


def _watch(answers: list[float | None], *, window_seconds: float = 60.0) -> Iterator[Frame]:
    """Watch a server whose pages are of these seconds of running; None for no answer."""
    clock, left = Clock(), iter(answers)

    def read() -> Sample:
        running = next(left)
        if running is None:
            raise NoAnswer("connection refused")
        return parse_page(write_page(running), read_seconds=clock.seconds)

    return watch(
        read,
        every_seconds=EVERY,
        window_seconds=window_seconds,
        now_ms=clock.now_ms,
        wait=clock.wait,
    )


def test_watch__goes_on() -> None:
    """The first frame has no rates, each further one those of the window so far."""
    first, *frames = islice(_watch([10, 12, 14, 16]), 4)
    assert (first.report, first.silence, first.time_ms) == (None, None, 0)
    assert [frame.report and frame.report.seconds for frame in frames] == [2, 4, 6]
    assert [frame.time_ms for frame in frames] == [2_000, 4_000, 6_000]
    for frame in frames:
        assert frame.report is not None
        assert frame.report.total.tokens_per_second == pytest.approx(39_270)


def test_watch__first_reading_fails() -> None:
    """Nobody there at the beginning is a failure, not something to wait for."""
    with pytest.raises(NoAnswer):
        next(_watch([None, 1]))


def test_watch__silence() -> None:
    """While nobody answers the last rates stay, and since when is told; then it goes on."""
    frames = list(islice(_watch([10, 12, None, None, 18]), 5))
    silences = [frame.silence and frame.silence.since_ms for frame in frames]
    assert silences == [None, None, 2_000, 2_000, None]
    assert frames[2].report == frames[3].report == frames[1].report
    assert frames[4].report is not None
    assert frames[4].report.seconds == 8
    assert frames[4].report.total.watts == pytest.approx(7_450)


@pytest.mark.parametrize("answers", [[10, 12, 1, 3], [10, 12, None, 1, 3]])
def test_watch__restart(answers: list[float | None]) -> None:
    """A meter that began anew is a window that begins anew, after a silence as well."""
    *_, anew, last = islice(_watch(answers), len(answers))
    assert anew.report is None
    assert last.report is not None
    assert last.report.seconds == 2
    assert last.report.total.tokens_per_second == pytest.approx(39_270)


def test_watch__window() -> None:
    """Rates are of the window's end, not of all that was seen."""
    *_, last = islice(_watch([0, 1, 2, 4, 6], window_seconds=4), 5)
    assert last.report is not None
    assert last.report.seconds == 4
    assert last.report.total.tokens_per_second == pytest.approx(39_270)
